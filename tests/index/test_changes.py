"""Changes of claims, one after the other: beside the rules alone, with all claims written out, and read again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.file_infos import deleted, device, directory, encrypted_name, entry, file
from tests.index.gateways import contents
from tests.simulated import fast_directory
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.changes import Announcement, Change, Oblivion, Refusal, Reminder, Withdrawal
from untrusted_s3.index.claims import Claims
from untrusted_s3.index.entry import Confirmation, Entry, PeerCursor
from untrusted_s3.index.row import Row, RowClaims, VersionKey
from untrusted_s3.index.segment import Segment, decode_segment, encode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key

TRUSTED = (A, B, C) = tuple(map(device, (1, 2, 3)))
UNTRUSTED, NEW = device(4), device(5)
NAMES = ("a", "b")


def key(name: str) -> bytes:
    """Return the hash of a name."""
    return name_key(encrypted_name(name))


@dataclass(frozen=True)
class Announce:
    """Devices announce a version. Some of them had time to take over what they are shown."""

    name: str
    version: FileInfo
    devices: tuple[DeviceID, ...]
    from_untrusted: bool = False
    late: frozenset[DeviceID] = frozenset()


@dataclass(frozen=True)
class Happens:
    """Something else happens between a device and a name: `withdraws`, `refuses`, `is reminded` or `forgets`."""

    what: str
    device: DeviceID
    name: str
    outdated: bool = False


class Folder:
    """A state that follows a log, one whose log says all claims in each entry, and what the rules alone make of it."""

    def __init__(self, directory: Path) -> None:
        self.state = FolderState(directory / "state.sqlite")
        self.written_out = FolderState(directory / "written out.sqlite")
        self.segments: list[bytes] = []
        self.claims: dict[bytes, RowClaims] = {}
        self.announced: dict[tuple[DeviceID, bytes], VersionKey] = {}
        self.shown: dict[tuple[DeviceID, int], bytes] = {}
        self.time = 1000.0
        self.indexes = dict.fromkeys(TRUSTED, 1)
        self.write(cursors=[PeerCursor(one, 1, 0) for one in TRUSTED])

    def close(self) -> None:
        """Close the states."""
        self.state.close()
        self.written_out.close()

    def write(self, *changes: Change, cursors: Sequence[PeerCursor] = ()) -> None:
        """Write what changes come to as a segment of each log."""
        found = [(change, change(self.state)) for change in changes]
        assert [change(self.written_out) for change in changes] == [one for _, one in found]
        entries = [one for _, one in found if isinstance(one, Entry)]
        whole = [_written_out(self.written_out.row(change.key), one) for change, one in found if isinstance(one, Entry)]
        confirmations = [one for _, some in found if not isinstance(some, Entry) for one in some or ()]
        if not (entries or confirmations or cursors):
            return
        self.segments.append(_apply(self.state, entries, confirmations, cursors))
        _apply(self.written_out, whole, confirmations, cursors)

    def play(self, step: Announce | Happens) -> None:
        """Let something happen, and check what must hold."""
        self.time += 60
        if isinstance(step, Announce):
            self._announce(step)
        else:
            self._happen(step)
        self._check()

    def _announce(self, step: Announce) -> None:
        source = UNTRUSTED if step.from_untrusted or not step.devices else step.devices[0]
        made = Entry(step.version, entry(step.version).stored, source)
        version = VersionKey.of_entry(made)
        self.write(Announcement(made, step.devices, self.time, lambda one, _: one in step.late))
        name = key(step.name)
        claims = before = self.claims.get(name)
        if claims is None or before is None:
            claims = Claims(version, dict.fromkeys(step.devices, version))
        elif not step.devices:
            claims = claims.replaced(version) if version.number > claims.current.number else claims
        else:
            for one in step.devices:
                stays = one in step.late and one not in before.claimed
                if stays and version.has_same_content(claims.current):
                    claims = claims.replaced(version, one)
                    continue
                claims = claims.claim(one, version, self.time)
                if stays and claims.current == before.current != version:
                    claims = claims.decline(one, claims.current, self.time)
        self.claims[name] = claims
        self.announced |= {(one, name): version for one in step.devices}

    def _happen(self, step: Happens) -> None:
        name, one = key(step.name), step.device
        if step.what == "forgets":
            self.indexes[one] += 1
            self._forget(one)
            return
        row, claims = self.state.row(name), self.claims.get(name)
        if row is None or claims is None:
            return
        sequence = row.sequence - step.outdated
        own, shown, declined = claims.claimed.get(one), claims.shown(one), list(claims.declined_by(one))
        if step.what == "withdraws":
            if own is not None:
                self.write(Withdrawal(name, one, claims.current if step.outdated else own, self.time))
                if not step.outdated or own == claims.current:
                    self.claims[name] = claims.withdraw(one, self.time)
                    del self.announced[one, name]
        elif step.what == "refuses":
            self.write(Refusal(name, one, sequence, self.time))
            if shown != own and not step.outdated:
                self.claims[name] = claims.decline(one, shown, self.time)
        elif declined:
            self.write(Reminder(name, one, sequence, declined[0]))
            if not step.outdated:
                self.claims[name] = claims.show_again(one, declined[0])

    def _forget(self, one: DeviceID) -> None:
        """As `LogWriter.begin_index` does it."""
        disputed = filter(None, map(self.state.disputed_name, self.state.disputed_sequences()))
        names = [name.key for name in disputed if one in name.claims.claimed or one in name.claims.declined]
        index_id = self.indexes[one]
        self.write(*(Oblivion(name, one, index_id) for name in names), cursors=[PeerCursor(one, index_id, 0)])
        self.claims = {name: claims.forget(one) for name, claims in self.claims.items()}
        self.announced = {other: version for other, version in self.announced.items() if other[0] != one}

    def _check(self) -> None:
        for name, claims in self.claims.items():
            row = self.state.row(name)
            other = self.written_out.row(name)
            assert row is not None
            assert row.claims == claims
            assert row == other
            assert set(claims.claimed.values()) | {claims.current} == set(row.entries)
            assert [VersionKey.of_entry(one) for one in row.entries.values()] == list(row.entries)
        for (one, name), version in self.announced.items():
            assert self.claims[name].claimed[one] == version
        for one in (*TRUSTED, NEW):
            for sequence, raw in self.state.file_infos_after(0, -1, one):
                assert self.shown.setdefault((one, sequence), raw) == raw

    def check_read_again(self, path: Path, position: int, checkpoint: Path | None) -> None:
        """Check a state that begins with a checkpoint and follows the log."""
        read = FolderState(path)
        if checkpoint is not None:
            read.replace(checkpoint)
        for number, body in enumerate(self.segments[position:], position + 1):
            segment = decode_segment(body, "the key")
            read.apply(number, segment)
        assert contents(read) == contents(self.state)
        assert [read.row(name) for name in self.claims] == [self.state.row(name) for name in self.claims]
        for one in (*TRUSTED, NEW):
            assert list(read.file_infos_after(0, -1, one)) == list(self.state.file_infos_after(0, -1, one))
        read.close()


def _written_out(row: Row | None, found: Entry) -> Entry:
    if found.claims is not None:
        return found
    if row is not None:
        return row.replaced(found)
    row = Row.of(0, found)
    return row.entry_with(row.claims)


def _apply(
    state: FolderState, entries: Sequence[Entry], confirmations: Sequence[Confirmation], cursors: Sequence[PeerCursor]
) -> bytes:
    position = state.position + 1
    segment = Segment(
        writer=device(0),
        append_id=bytes(16),
        time_ms=position,
        first_sequence=state.sequence + 1,
        entries=tuple(entries),
        cursors=tuple(cursors),
        confirmations=tuple(confirmations),
    )
    body = encode_segment(segment)
    state.apply(position, decode_segment(body, "the key"))
    return body


@st.composite
def versions(draw: st.DrawFn, name: str) -> FileInfo:
    """Draw a version of a name: few numbers, and few contents."""
    number = draw(st.integers(1, 5))
    kind = draw(st.sampled_from(("file", "file", "deleted", "directory")))
    if kind == "file":
        return file(name, number, content=draw(st.integers(0, 1)))
    return deleted(name, number) if kind == "deleted" else directory(name, number)


@st.composite
def announcements(draw: st.DrawFn) -> Announce:
    """Draw an announcement."""
    name = draw(st.sampled_from(NAMES))
    some = draw(st.sampled_from(((A,), (B,), (C,), (A,), (B,), (C,), (A, B), (C, A), ())))
    late = draw(st.sampled_from((frozenset[DeviceID](), frozenset(TRUSTED))))
    return Announce(name, draw(versions(name)), some, draw(st.booleans()), late)


HAPPENINGS = st.builds(
    Happens,
    st.sampled_from(("withdraws", "refuses", "refuses", "is reminded", "forgets")),
    st.sampled_from(TRUSTED),
    st.sampled_from(NAMES),
    st.sampled_from((False, False, False, True)),
)


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(announcements() | HAPPENINGS, min_size=4, max_size=14), place=st.integers(0, 14))
@example(
    steps=[
        Announce("b", deleted("b", 1), (A,)),
        Announce("b", file("b", 1), (B,), late=frozenset(TRUSTED)),
        Happens("withdraws", A, "b"),
        Announce("b", deleted("b", 1), (B,)),
    ],
    place=0,
)
@example(
    steps=[
        Announce("a", file("a", 1), (C,)),
        Announce("a", deleted("a", 2), (A,)),
        Happens("withdraws", A, "a"),
        Announce("a", deleted("a", 2), (A,)),
    ],
    place=0,
)
def test_changes_come_to_what_the_rules_say(steps: list[Announce | Happens], place: int) -> None:
    """Also in a log whose entries have all claims, and where the state is read again from the log or a checkpoint."""
    with fast_directory() as path:
        folder = Folder(path)
        position, checkpoint = 0, None
        for number, step in enumerate(steps):
            if number == place:
                position, checkpoint = folder.state.position, path / "checkpoint"
                folder.state.write_copy(checkpoint)
            folder.play(step)
        folder.check_read_again(path / "from the log.sqlite", 0, None)
        folder.check_read_again(path / "from the checkpoint.sqlite", position, checkpoint)
        folder.close()
