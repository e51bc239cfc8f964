"""What a folder's state says of claims, dissents and confirmations, and what a segment may say of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import device, encrypted_name
from tests.index.claim_entries import (
    CONFIRMATIONS,
    CURSORS,
    DEVICES,
    REMOVALS,
    A,
    B,
    C,
    disputed,
    entries,
    version,
)
from tests.index.claim_model import Model
from tests.simulated import fast_directory
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError
from untrusted_s3.index.checkpoint_check import check_copy
from untrusted_s3.index.database import Database
from untrusted_s3.index.dissent_counts import Dissents, DissentsOf
from untrusted_s3.index.entry import (
    Confirmation,
    DeclinedVersion,
    Dissent,
    Entry,
    EntryClaims,
    PeerCursor,
    Removal,
    Renewal,
)
from untrusted_s3.index.row import Row, VersionKey
from untrusted_s3.index.segment import Segment, decode_segment, encode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key

NAME = encrypted_name("a")
KEY = name_key(NAME)


class Folder:
    """A state that follows a log, and the model of it."""

    def __init__(self, path: Path) -> None:
        self.state = FolderState(path)
        self.model = Model()

    def apply(
        self,
        *entries: Entry,
        cursors: tuple[PeerCursor, ...] = (),
        confirmations: tuple[Confirmation, ...] = (),
        renewal: Renewal | None = None,
    ) -> None:
        """Apply a segment, as it comes out of its bytes, and compare with the model."""
        position, first = self.state.position + 1, self.state.sequence + 1
        segment = Segment(device(0), bytes(16), position, first, entries, cursors, renewal, 0, confirmations)
        assert decode_segment(encode_segment(segment), "the key") == segment
        self.state.apply(position, segment)
        self.model.apply(segment)
        self.model.check(self.state)

    @property
    def row(self) -> Row:
        """The row of the name `a`."""
        row = self.state.row(KEY)
        assert row is not None
        return row


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path / "state.sqlite")
    yield made
    made.state.close()


def some(*devices: DeviceID) -> tuple[DeviceID, ...]:
    """Return devices in the order in which the log has them."""
    return tuple(sorted(devices))


def test_the_source_claims_an_entry_without_claims(folder: Folder) -> None:
    folder.apply(version(1), version(1, None, "b"))
    assert folder.state.claimed_by(1) == {A}
    assert folder.state.claimed_by(2) == frozenset()
    assert folder.state.is_claimed(A, 1)
    assert not folder.state.is_claimed(B, 1)
    assert folder.state.claimed_by(77) == frozenset()
    assert folder.state.row(name_key(encrypted_name("c"))) is None


def test_an_entry_has_claims_dissents_and_what_was_declined(folder: Folder) -> None:
    folder.apply(disputed())
    assert folder.row.whole_entry == disputed()
    assert folder.state.versions(NAME) == (version(5), version(3, B), version(4, C))
    assert folder.state.versions(encrypted_name("b")) == ()
    assert folder.state.disputed_count == 1


def test_an_entry_leaves_what_other_devices_claim(folder: Folder) -> None:
    folder.apply(version(1), disputed("b"))
    folder.apply(version(2, B))
    assert folder.row.whole_entry == replace(version(2, B), claims=EntryClaims((B,), (Dissent(version(1), (A,)),)))
    folder.apply(disputed())
    folder.apply(version(6, B))
    dissents = (Dissent(version(5), (A,)), Dissent(version(4, C), (C,)))
    assert folder.row.whole_entry == replace(
        version(6, B), claims=EntryClaims((B,), dissents, (DeclinedVersion(C, 1, 1000),))
    )
    folder.apply(version(6, None))
    assert folder.row.whole_entry == replace(folder.row.whole_entry, source=None), "of an unknown device"
    folder.apply(version(6, B), version(6, A), version(7, C))
    assert folder.row.whole_entry == replace(
        version(7, C), claims=EntryClaims((C,), (Dissent(version(6), some(A, B)),))
    )
    folder.apply(version(7, A), version(7, B))
    assert folder.row.whole_entry == replace(version(7, B), claims=EntryClaims(some(A, B, C)))
    assert folder.state.disputed_count == 1


def test_an_entry_with_claims_or_beside_a_renewal_replaces_the_whole_row(folder: Folder) -> None:
    folder.apply(disputed(), disputed("b"))
    folder.apply(version(6, B), renewal=Renewal(1))
    assert folder.row.whole_entry == version(6, B)
    assert folder.state.disputed_count == 1
    folder.apply(replace(version(7), claims=EntryClaims((B, C), (Dissent(version(5), (A,)),))))
    assert folder.state.disputed_count == 2
    folder.apply(replace(version(7), claims=EntryClaims((A,))))
    assert folder.row.claims.claimed.keys() == {A}


def test_a_removal_takes_the_whole_row(folder: Folder) -> None:
    folder.apply(disputed(), disputed("b"))
    folder.apply(renewal=Renewal(1, (Removal(KEY),)))
    assert folder.state.row(KEY) is None
    assert folder.state.disputed_count == 1


def test_a_renewal_removes_a_row_and_puts_another_one_in_its_place(folder: Folder) -> None:
    folder.apply(disputed())
    stored = disputed().dissents[0].entry.stored
    assert stored is not None
    without = folder.row.entry_with(folder.row.claims.withdraw(B))
    folder.apply(without, renewal=Renewal(1, (Removal(KEY, stored.object_name),)))
    assert folder.row.whole_entry == without
    assert folder.state.missing_count == 0
    assert folder.state.condemned(KEY) == {stored.object_name}


def test_a_range_is_confirmed(folder: Folder) -> None:
    folder.apply(*(version(1, A, name) for name in range(6)))
    folder.apply(version(2, A, 2), confirmations=(Confirmation(B, (range(2, 5), range(6, 100))),))
    assert [sequence for sequence in range(1, 8) if folder.state.is_claimed(B, sequence)] == [2, 4, 6]
    assert all(folder.state.is_claimed(A, sequence) for sequence in (1, 2, 4, 5, 6, 7))
    (row,) = folder.state.disputed()
    assert (row.sequence, row.claims.claimed[B].number) == (7, 1), "confirmations come before the entries"
    folder.apply(confirmations=(Confirmation.of(C, [1, 2]), Confirmation.of(A, [1, 2])))
    assert [len(folder.state.claimed_by(sequence)) for sequence in range(1, 8)] == [2, 3, 0, 2, 1, 2, 1]


def test_what_a_device_confirms_ends_its_dissent(folder: Folder) -> None:
    both = EntryClaims((A,), (Dissent(version(3, B), (B, C)),), (DeclinedVersion(B, 0, 7), DeclinedVersion(A, 1, 7)))
    folder.apply(replace(version(5), claims=both))
    folder.apply(confirmations=(Confirmation.of(B, [1]),))
    assert list(folder.row.claims.dissents) == [VersionKey.of_entry(version(3))], "for C claims it"
    assert folder.row.claims.declined.keys() == {A}
    folder.apply(confirmations=(Confirmation.of(C, [1]),))
    assert not folder.row.claims.dissents
    assert folder.row.claims.declined == {}, "a version that is gone is no longer declined"
    assert folder.state.claimed_by(1) == {A, B, C}
    assert folder.state.disputed_count == 0


def test_a_device_with_another_index_has_forgotten_what_it_claimed(folder: Folder) -> None:
    folder.apply(disputed(), version(1, B, "b"), cursors=(PeerCursor(B, 7, 0), PeerCursor(C, 1, 9)))
    assert folder.state.claimed_by(2) == {B}, "its first cursor makes nothing void"
    folder.apply(version(1, B, "c"), cursors=(PeerCursor(B, 7, 3),), confirmations=(Confirmation.of(B, [1]),))
    folder.apply(version(1, B, "d"), cursors=(PeerCursor(B, 8, 1),))
    assert [sorted(folder.state.claimed_by(sequence)) for sequence in range(1, 5)] == [[A], [], [], [B]]
    folder.apply(cursors=(PeerCursor(C, 2, 0),))
    assert not folder.row.claims.dissents
    assert folder.row.claims.declined == {}


def test_a_renewal_leaves_claims_and_which_index_a_device_had(folder: Folder) -> None:
    folder.apply(disputed(), cursors=(PeerCursor(B, 7, 5),))
    folder.apply(renewal=Renewal(1))
    folder.apply(cursors=(PeerCursor(B, 7, 0),))
    assert folder.row.claims.claimed.keys() == {A, B, C}
    folder.apply(renewal=Renewal(2))
    folder.apply(cursors=(PeerCursor(B, 9, 0),))
    assert folder.row.claims.claimed.keys() == {A, C}


def test_devices_with_high_numbers_claim_dissents_only(folder: Folder) -> None:
    many = [device(number) for number in range(100, 164)]
    folder.apply(*(version(1, one, number) for number, one in enumerate(many)))
    low, high = many[61], many[62]
    assert folder.state.claimed_by(63) == {high}, "as the source"
    folder.apply(confirmations=(Confirmation(high, (range(1, 64),)), Confirmation(low, (range(63, 65),))))
    assert [folder.state.claimed_by(sequence) for sequence in (61, 62, 63, 64)] == [{many[60]}, {low}, {low}, {low}]
    folder.apply(replace(version(5), claims=EntryClaims((A, low), (Dissent(version(3, high), (high, B)),))))
    assert folder.row.claims.claimed.keys() == {low, high, B}
    folder.apply(confirmations=(Confirmation.of(high, [folder.row.sequence]),))
    assert folder.row.claims.claimed.keys() == {low, B}
    assert folder.state.has(folder.row.whole_entry)


def test_the_versions_that_devices_are_shown(folder: Folder) -> None:
    """C has declined the current version, so that others are shown what C claims."""
    folder.apply(version(1, A, "b"), disputed())
    shown = {one: dict(folder.state.file_infos_after(0, 10, one))[2] for one in (A, B, C, device(9))}
    assert shown == {
        A: version(4).file_info.raw,
        B: version(5).file_info.raw,
        C: version(4).file_info.raw,
        device(9): version(5).file_info.raw,
    }


def test_entries_differ_by_their_claims(folder: Folder) -> None:
    folder.apply(disputed())
    assert folder.state.has(disputed())
    assert not folder.state.has(version(5))
    assert not folder.state.has(folder.row.entry_with(folder.row.claims.withdraw(C)))
    folder.apply(version(5), renewal=Renewal(1))
    assert folder.state.has(replace(version(5), claims=EntryClaims((A,))))
    assert not folder.state.has(replace(version(5), claims=EntryClaims((A, B))))
    assert not folder.state.has(replace(version(5), claims=EntryClaims(())))


def test_ordinary_entries_need_few_statements(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """New names are looked for and inserted together. Of others each row is read and replaced; with claims too."""
    folder.apply(disputed("b"), *(version(1, A, number) for number in range(50)), cursors=(PeerCursor(A, 1, 1),))
    statements: list[str] = []
    execute, executemany = Database.execute, Database.executemany

    def noting(self: Database, statement: str, *arguments: Any) -> Any:
        statements.append(statement)
        return execute(self, statement, *arguments)

    def noting_many(self: Database, statement: str, *arguments: Any) -> Any:
        statements.append(statement)
        return executemany(self, statement, *arguments)

    monkeypatch.setattr(Database, "execute", noting)
    monkeypatch.setattr(Database, "executemany", noting_many)
    for position, names, replaced in ((2, range(50, 100), 0), (3, range(100), 100)):
        entries = tuple(version(2, A, number) for number in names)
        segment = Segment(device(0), bytes(16), position, folder.state.sequence + 1, entries, ())
        statements.clear()
        folder.state.apply(position, segment)
        assert sum(one.startswith(("SELECT", "\nSELECT")) for one in statements) == 1 + replaced
        assert sum(one.startswith("INSERT") for one in statements) == max(replaced, 1)
        assert sum(one.startswith("DELETE") for one in statements) == replaced


@settings(deadline=None, max_examples=60)
@given(
    first=st.integers(0, 69),
    steps=st.lists(
        st.tuples(
            st.lists(entries(), max_size=3),
            st.lists(CURSORS, max_size=2),
            st.lists(CONFIRMATIONS, max_size=2),
            st.none() | st.none() | REMOVALS,
        ),
        max_size=5,
    ),
)
def test_a_state_says_what_a_model_of_the_rules_says(
    first: int, steps: list[tuple[list[Entry], list[PeerCursor], list[Confirmation], tuple[Removal, ...] | None]]
) -> None:
    """Also after a round trip through a checkpoint."""
    with fast_directory() as path:
        folder = Folder(path / "state.sqlite")
        # So many devices have numbers, so that those of the others are low or high.
        folder.apply(cursors=tuple(PeerCursor(one, 1, 1) for one in DEVICES[70 - first :]))
        for number, (some, cursors, confirmations, removals) in enumerate(steps):
            renewal = Renewal(number + 1, removals) if removals is not None else None
            folder.apply(*some, cursors=tuple(cursors), confirmations=tuple(confirmations), renewal=renewal)
        folder.state.write_copy(path / "copy")
        check_copy(path / "copy", folder.state.position, "the key")
        folder.state.close()
        other = FolderState(path / "other.sqlite")
        other.replace(path / "copy")
        folder.model.check(other)
        other.close()


def test_dissents_are_counted_and_not_gone_through(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.apply(disputed(), disputed("b"), version(1, B, "c"))
    folder.apply(replace(version(9, A, "c"), claims=EntryClaims((A,), (Dissent(version(2, B, "c"), some(B, C)),))))
    counts = Dissents(3, 5, 2, (DissentsOf(B, 3), DissentsOf(C, 3, 2)), 2)
    assert folder.state.dissents(20) == counts
    assert folder.state.dissents(1) == replace(counts, of_devices=counts.of_devices[:1])
    monkeypatch.setattr(Database, "execute", None)
    assert folder.state.dissents(20) == counts


def test_counts_of_dissents_are_those_of_the_file(folder: Folder, tmp_path: Path) -> None:
    """Of a state that is opened, or loaded from a checkpoint, and after a segment that was not applied."""
    folder.apply(disputed(), disputed("b"))
    counts = folder.state.dissents(20)
    assert (counts.names, counts.versions) == (2, 4)
    removals = (Removal(KEY), Removal(name_key(encrypted_name("b"))))
    huge = version(1, A, "d")
    huge.file_info.message.size = 2**62 + 1
    wrong = Segment(device(0), bytes(16), 0, 3, (disputed("c"), huge), (), Renewal(5, removals))
    with pytest.raises(DataError):
        folder.state.apply(folder.state.position + 1, wrong)
    assert folder.state.dissents(20) == counts
    folder.state.write_copy(tmp_path / "copy.sqlite")
    folder.apply(version(9, C), renewal=Renewal(5))
    assert folder.state.dissents(20).versions == 2
    folder.state.replace(tmp_path / "copy.sqlite")
    assert folder.state.dissents(20) == counts
    folder.state.clear()
    assert folder.state.dissents(20) == Dissents()
