"""Bad entries are taken back: earlier versions come instead, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.file_infos import encrypted_name
from tests.simulated import Call, Fault, Phase, SimulatedBucket
from tests.way_back.attacked import ATTACKER, HONEST, OTHER, Attacked, by, forged, of_version, version_of
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, StoreUnreachable
from untrusted_s3.index.entry import Confirmation, Dissent, Entry, EntryClaims
from untrusted_s3.index.segment import Segment, decode_segment, encode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.naming import object_names
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.layout import name_key
from untrusted_s3.way_back.suspects import FromDevices, Named, Suspects, Undecryptable


def from_attacker(state: FolderState) -> Suspects:
    return FromDevices([ATTACKER])


async def attacked(tmp_path: Path, bucket: SimulatedBucket | None = None) -> Attacked:
    """A folder of five honest entries, of which three are attacked, and one made-up directory."""
    folder = await Attacked.create(tmp_path, bucket)
    stored = folder.stored
    await stored.append(
        *by(HONEST, stored.directory("docs"), *[await stored.file(name, name.encode()) for name in "abcd"])
    )
    await stored.append(*by(OTHER, await stored.file("b", b"second version of b")))
    await stored.append(
        forged(folder.name("a"), 1000, deleted=True),
        forged(folder.name("b"), 2**63 - 1, deleted=True),
        forged(folder.name("c"), 1001),
        forged(encrypted_name("made up"), 1),
    )
    return folder


def undecryptable(folder: Attacked) -> Suspects:
    return Undecryptable(folder.opener.decrypts)


@pytest.mark.parametrize("rule", ["device", "undecryptable", "names"])
async def test_an_attack_is_taken_back(tmp_path: Path, rule: str) -> None:
    folder = await attacked(tmp_path)
    before = await folder.contents()
    names = [*map(folder.name, "abc"), encrypted_name("made up")]

    def suspects(state: FolderState) -> Suspects:
        if rule == "device":
            return from_attacker(state)
        return undecryptable(folder) if rule == "undecryptable" else Named(names, state)

    changes, _ = await folder.retract(suspects, with_password=rule == "undecryptable")
    made_up = encrypted_name("made up")
    assert changes.keys() == {"a", "b", "c", made_up}
    assert changes[made_up].after is None
    contents = await folder.contents()
    assert contents.keys() == {"docs", "a", "b", "c", "d"}
    assert {path: entry.source for path, entry in contents.items()} == dict.fromkeys("acd", HONEST) | {
        "docs": HONEST,
        "b": OTHER,
    }
    assert all(map(folder.opener.decrypts, contents.values()))
    assert contents["d"] == before["d"] and contents["docs"] == before["docs"]

    position = len(folder.store.keys(f"{folder.stored.keys.base}log/"))
    again, _ = await folder.retract(suspects, with_password=rule == "undecryptable")
    assert again == {} and await folder.contents() == contents
    assert len(folder.store.keys(f"{folder.stored.keys.base}log/")) == position


async def test_a_store_that_loses_the_end_of_the_log_meanwhile(tmp_path: Path) -> None:
    folder = await attacked(tmp_path)

    def suspects(state: FolderState) -> Suspects:
        del folder.store.objects[folder.stored.keys.segment(state.position)]
        return from_attacker(state)

    with pytest.raises(DataError, match="the store has lost its end"):
        await folder.retract(suspects)


async def test_names_are_not_taken_back_twice(tmp_path: Path) -> None:
    folder = await Attacked.create(tmp_path)
    stored = folder.stored
    for source, text in ((HONEST, b"1"), (OTHER, b"2"), (ATTACKER, b"3"), (ATTACKER, b"4")):
        await stored.append(*by(source, await stored.file("a", text)))

    def named(state: FolderState) -> Suspects:
        return Named([folder.name("a"), folder.name("unknown")], state)

    changes, plan = await folder.retract(named)
    assert (await folder.contents())["a"].source == OTHER and plan.spared == 0 and len(changes) == 1
    for _ in range(2):
        changes, plan = await folder.retract(named)
        assert (changes, plan.spared) == ({}, 1)
        assert (await folder.contents())["a"].source == OTHER


async def test_names_without_sources_get_the_version_before(tmp_path: Path) -> None:
    folder = await Attacked.create(tmp_path)
    for text in (b"1", b"22", b"333"):
        await folder.stored.append(*by(None, await folder.stored.file("a", text)))
    await folder.retract(lambda state: Named([folder.name("a")], state))
    contents = await folder.contents()
    assert version_of(contents["a"]) == 2


async def test_what_comes_back_decrypts_if_there_is_a_password(tmp_path: Path) -> None:
    folder = await Attacked.create(tmp_path)
    stored = folder.stored
    await stored.append(*by(HONEST, stored.directory("a")))
    await stored.append(*by(None, forged(folder.name("a"), 50, seed=1)))
    await stored.append(forged(folder.name("a"), 100))
    changes, _ = await folder.retract(from_attacker, with_password=True)
    assert version_of((await folder.contents())["a"]) == 1 and len(changes) == 1


async def test_versions_come_from_the_oldest_checkpoint(tmp_path: Path) -> None:
    folder = await attacked(tmp_path)
    stored = folder.stored
    unknown = stored.directory("unknown")
    await stored.append(forged(folder.name("docs"), 1000), unknown, forged(unknown.file_info.name, 1000))
    await stored.log.checkpoint()  # has the bad ones
    again = await stored.file("a", b"a, again", change_real=of_version(2000))
    await stored.append(*by(HONEST, again, await stored.file("new", b"new")))
    await stored.append(forged(folder.name("a"), 3000), forged(folder.name("new"), 3000))
    store = folder.store
    for position in range(1, 5):
        del store.objects[stored.keys.segment(position)]
    changes, _ = await folder.retract(from_attacker)
    contents = await folder.contents()
    # What a device claims is there as a dissent. Of what nobody claims, nothing good is known any more.
    assert contents.keys() == {"a", "b", "c", "d", "docs", "new"}
    assert ATTACKER not in {entry.source for entry in contents.values()}
    assert sorted(path for path, change in changes.items() if change.after is None)[-1:] == ["unknown"]


async def test_data_that_are_gone_do_not_come_back(tmp_path: Path) -> None:
    folder = await attacked(tmp_path)
    before = await folder.contents()
    stored = folder.stored
    key = (await stored.file("a", b"a")).stored
    assert key is not None
    del folder.store.objects[stored.keys.object(folder.name("a"), key.object_name)]
    changes, _ = await folder.retract(from_attacker)
    assert changes["a"].data_gone and changes["a"].after is None
    contents = await folder.contents()
    assert contents.keys() == {"docs", "b", "c", "d"} and contents["d"] == before["d"]


async def test_objects_of_the_attacker_are_never_used_again(tmp_path: Path) -> None:
    """Its tokens may be those of the honest file, and its data garbage: a gateway cannot tell."""
    folder = await Attacked.create(tmp_path)
    stored = folder.stored
    honest, new = await stored.file("a", b"honest"), await stored.file("new", b"new")
    touched = await stored.file("a", b"honest")  # the same content and another version
    await stored.append(*by(HONEST, honest))
    await stored.append(*by(ATTACKER, new, touched))
    changes, _ = await folder.retract(from_attacker)
    assert new.stored is not None
    assert (changes["new"].distrusted, changes["a"].distrusted) == ((new.stored.object_name,), ())
    async with folder.loaded() as state:
        assert state.condemned(name_key(folder.name("new"))) == {new.stored.object_name}
        assert [missing.name for missing in state.missing()] == [folder.name("new")]
    # Nobody brings it; by its name it is listed no longer.
    changes, _ = await folder.retract(lambda state: Named([folder.name("new")], state))
    assert changes["new"].before is changes["new"].after is None
    async with folder.loaded() as state:
        assert list(state.missing()) == [] and state.condemned(name_key(folder.name("new")))
    assert (await folder.retract(lambda state: Named([folder.name("new")], state)))[0] == {}


async def test_objects_with_blocks_of_untrusted_devices_have_names_of_their_own(tmp_path: Path) -> None:
    folder = await Attacked.create(tmp_path)
    new = await folder.stored.file("new", b"new")
    assert new.stored is not None
    name = next(object_names(new.file_info, ATTACKER))
    await folder.stored.append(Entry(new.file_info, replace(new.stored, object_name=name), ATTACKER))
    changes, _ = await folder.retract(from_attacker)
    assert changes["new"].after is None and changes["new"].distrusted == ()
    async with folder.loaded() as state:
        assert state.missing_count == 0


async def disputed(folder: Attacked, current: Entry, *dissents: Entry) -> Entry:
    """Write an entry and its dissents, each claimed by its source. Return the entry without them."""
    claims = EntryClaims(
        (current.source,) if current.source else (),
        tuple(Dissent(one, (one.source,)) for one in dissents if one.source is not None),
    )
    await folder.stored.append(replace(current, claims=claims))
    return current


@pytest.mark.parametrize("rule", ["device", "undecryptable"])
async def test_a_bad_dissent_is_taken_back_and_the_rest_of_its_name_stays(tmp_path: Path, rule: str) -> None:
    folder = await Attacked.create(tmp_path)
    stored = folder.stored
    current, other = by(HONEST, await stored.file("a", b"current"))[0], by(OTHER, await stored.file("a", b"other"))[0]
    bad = forged(folder.name("a"), 1)
    assert bad.source == ATTACKER
    await disputed(folder, current, bad, other)
    await disputed(folder, by(HONEST, await stored.file("b", b"b"))[0], by(OTHER, await stored.file("b", b"c"))[0])

    def suspects(state: FolderState) -> Suspects:
        return from_attacker(state) if rule == "device" else undecryptable(folder)

    changes, _ = await folder.retract(suspects, with_password=rule == "undecryptable")
    assert changes.keys() == {"a"}
    async with folder.loaded() as state:
        row = state.row(name_key(folder.name("a")))
        assert row is not None
        assert list(row.entries.values()) == [current, other]
        assert row.claims.claimed.keys() == {HONEST, OTHER}
        assert state.missing_count == 0
        assert state.disputed_count == 2
    assert (await folder.retract(suspects, with_password=rule == "undecryptable"))[0] == {}


async def test_a_bad_version_gives_way_to_what_others_claim(tmp_path: Path) -> None:
    """An attacker's large number makes the honest version a dissent, which becomes the current one again."""
    folder = await Attacked.create(tmp_path)
    honest = by(HONEST, await folder.stored.file("a", b"honest"))[0]
    await folder.stored.append(honest)
    await disputed(folder, forged(folder.name("a"), 1000), honest)
    changes, _ = await folder.retract(from_attacker)
    assert changes["a"].after == honest
    async with folder.loaded() as state:
        assert state.versions(folder.name("a")) == (honest,)
        assert state.disputed_count == 0


async def test_confirmations_are_played_by_the_numbers_that_entries_have_without_the_bad_ones(tmp_path: Path) -> None:
    folder = await Attacked.create(tmp_path)
    stored = folder.stored
    first, second = by(HONEST, await stored.file("a", b"a"))[0], by(OTHER, await stored.file("a", b"b"))[0]
    await stored.append(forged(folder.name("x"), 7), forged(folder.name("y"), 7))
    await disputed(folder, first, second)
    segment = Segment(
        HONEST, bytes(16), 5, 4, (), (), None, stored.state.append_id, (Confirmation(OTHER, (range(1, 4),)),)
    )
    folder.store.put(stored.keys.segment(3), encode_segment(segment))
    await stored.log.refresh()
    await stored.append(forged(folder.name("a"), 1000))
    await folder.retract(from_attacker)
    async with folder.loaded() as state:
        row = state.row(name_key(folder.name("a")))
        assert row is not None
        assert list(row.entries.values()) == [first]
        assert row.claims.claimed.keys() == {HONEST, OTHER}


class Meddler:
    """A client whose first writes to the log come too late: another writer is first."""

    def __init__(self, folder: Attacked, *writes: list[Entry]) -> None:
        self.folder = folder
        self.writes = list(writes)
        self.bucket = SimulatedBucket(folder.store, gate=self._gate)

    async def _gate(self, call: Call, phase: object) -> None:
        if call.operation == "put" and "/log/" in call.key and self.writes:
            entries = self.writes.pop(0)
            await self.folder.stored.append(*entries)


async def test_what_gateways_write_meanwhile_is_planned_for(tmp_path: Path) -> None:
    folder = await attacked(tmp_path)
    stored = folder.stored
    late = [await stored.file("e", b"e")]
    newer = await stored.file("a", b"changed meanwhile", change_real=of_version(2000))
    meddler = Meddler(
        folder,
        # An honest version of what is taken back, and another name of the attacker.
        [*by(HONEST, newer), forged(folder.name("d"), 5000)],
        # Names that are new to both.
        [*by(HONEST, *late), forged(encrypted_name("late"), 1)],
    )
    changes, _ = await folder.retract(from_attacker, bucket=meddler.bucket)
    assert meddler.writes == []
    contents = await folder.contents()
    assert contents.keys() == {"docs", "a", "b", "c", "d", "e"}
    assert version_of(contents["a"]) == 2000
    assert changes["a"].after == by(HONEST, newer)[0], "the attacker's version has become a dissent"
    assert encrypted_name("late") in changes
    assert ATTACKER not in {entry.source for entry in contents.values()}


@pytest.mark.parametrize("rule", ["device", "names"])
async def test_a_crash_between_segments(tmp_path: Path, rule: str) -> None:
    """Some names are taken back then; the same command does the others, and none twice."""
    folder = await Attacked.create(tmp_path)
    stored = folder.stored
    paths = [f"file {number}" for number in range(10)]
    for source in (None, HONEST, None):
        await stored.append(*by(source, *[await stored.file(path, str(source).encode()) for path in paths]))
    await stored.append(*[forged(folder.name(path), 1000) for path in paths])

    def suspects(state: FolderState) -> Suspects:
        return Named(map(folder.name, paths), state) if rule == "names" else from_attacker(state)

    settings = LogSettings(segment_entries=4)
    puts = 0

    def fault(call: Call) -> Fault | None:
        nonlocal puts
        puts += call.operation == "put"
        return Fault.UNREACHABLE if puts == 2 and call.operation == "put" else None

    failing = SimulatedBucket(folder.store, fault=fault)
    with pytest.raises(StoreUnreachable):
        await folder.retract(suspects, bucket=failing, settings=settings)
    versions = {path: version_of(entry) for path, entry in (await folder.contents()).items()}
    assert sum(version == 1000 for version in versions.values()) == 6
    changes, _ = await folder.retract(suspects, settings=settings)
    assert len(changes) == 6
    contents = await folder.contents()
    assert {version_of(entry) - number for number, entry in enumerate(contents.values())} == {21}


async def test_the_history_stays(tmp_path: Path) -> None:
    folder = await attacked(tmp_path)
    stored = folder.stored
    objects = folder.store.keys(stored.keys.objects)
    await folder.retract(from_attacker)
    assert folder.store.keys(stored.keys.objects) == objects


async def test_nothing_to_take_back_reads_no_history(tmp_path: Path) -> None:
    folder = await attacked(tmp_path)
    bucket = folder.client()
    changes, _ = await folder.retract(lambda state: FromDevices([DeviceID(bytes(32))]), bucket=bucket)
    assert changes == {} and bucket.count("put") == 0
    assert [call.key for call in bucket.calls].count(folder.stored.keys.segment(1)) == 1


async def test_a_large_attack_is_taken_back_some_names_at_a_time(tmp_path: Path) -> None:
    """Gateways write meanwhile, also more of the attack: what is planned at once stays small, and nothing is left."""
    folder = await Attacked.create(tmp_path)
    stored = folder.stored
    paths = [f"d{number}" for number in range(10)]
    await stored.append(*by(HONEST, *map(stored.directory, paths)))
    before = await folder.contents()
    await stored.append(*(forged(folder.name(path), 1000, deleted=True) for path in paths))
    segments = len(folder.store.keys(stored.keys.segments))
    writes = [[forged(folder.name("d0"), 2000, deleted=True)], by(HONEST, stored.directory("late"))]
    sizes: list[int] = []

    async def meddle(call: Call, phase: Phase) -> None:
        if call.operation == "put" and phase is Phase.REQUEST and writes:
            await stored.append(*writes.pop())

    bucket = folder.client()
    bucket.gate = meddle
    await folder.retract(from_attacker, bucket=bucket, settings=LogSettings(segment_entries=3))
    for key in folder.store.keys(stored.keys.segments)[segments:]:
        sizes.append(len(decode_segment(folder.store.body(key), key).entries))
    assert writes == [] and max(sizes) <= 3
    contents = await folder.contents()
    assert contents.pop("late").source == HONEST and contents == before
