"""The local state: what it says after segments, and how damage shows."""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import deleted, device, directory, encrypted_name, entry, file
from tests.simulated import fast_directory
from untrusted_s3.accounts import Account
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import DataError, StateDamaged, StateFolderUnusable
from untrusted_s3.index.checkpoint_check import check_copy
from untrusted_s3.index.database import open_database
from untrusted_s3.index.entry import Entry, PeerCursor, StoredObject
from untrusted_s3.index.schema import STATE_VERSION
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.state import FolderState, FolderTotals
from untrusted_s3.store.layout import name_key


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "state.sqlite"


@pytest.fixture
def state(path: Path) -> Iterator[FolderState]:
    opened = FolderState(path)
    yield opened
    opened.close()


def segment(first_sequence: int, *infos: FileInfo, cursors: tuple[PeerCursor, ...] = ()) -> Segment:
    return Segment(device(1), bytes(16), first_sequence, first_sequence, tuple(map(entry, infos)), cursors)


def test_an_empty_state(state: FolderState) -> None:
    assert (state.position, state.sequence, state.totals) == (0, 0, FolderTotals(0, 0, 0, 0))
    assert state.entry(encrypted_name("a")) is None
    assert list(state.file_infos_after(0, 10)) == []
    assert state.cursor(device(1)) == IndexState()


def test_apply(state: FolderState) -> None:
    first, second, third = file("a", sizes=(2000, 3000)), directory("b"), deleted("c")
    state.apply(1, segment(1, first, second))
    state.apply(2, segment(3, third))
    assert (state.position, state.sequence, state.totals) == (2, 3, FolderTotals(1, 1, 1, 5000))
    assert state.time_ms == 3
    assert list(state.file_infos_after(0, 10)) == [(1, first.raw), (2, second.raw), (3, third.raw)]
    assert list(state.file_infos_after(1, 1)) == [(2, second.raw)]
    assert list(state.file_infos_after(3, 10)) == []
    assert state.entry(first.name) == entry(first)
    assert state.entry(third.name) == Entry(third, None)


def test_a_new_version_takes_the_place_of_the_old_one(state: FolderState) -> None:
    state.apply(1, segment(1, file("a", 1), file("b", 1)))
    assert state.entry(encrypted_name("a")) == entry(file("a", 1))
    state.apply(2, segment(3, file("a", 2, sizes=(4000,))))
    assert state.entry(encrypted_name("a")) == entry(file("a", 2, sizes=(4000,)))
    assert [sequence for sequence, _ in state.file_infos_after(0, 10)] == [2, 3]


def test_a_very_large_entry_is_read_and_not_kept(path: Path) -> None:
    account = Account(1 << 30)
    state = FolderState(path, parsed=account)
    large, small = file("large", sizes=(1064,) * 30_000), file("small")
    state.apply(1, segment(1, large, small))
    assert state.entry(large.name) == entry(large)
    assert state.size_of(large.name) == (1, len(large.raw))
    assert account.used == 0
    assert state.entry(small.name) is state.entry(small.name)
    assert 0 < account.used <= 2 * small.memory_size
    assert state.size_of("unknown") is None
    state.close()


def test_all_of_a_stored_object_comes_back(state: FolderState) -> None:
    stored = StoredObject("c" * 32, 3 << 33, 1 << 33, (0, 0xFFFF_FFFF, 7))
    change = Entry(file("a"), stored)
    state.apply(1, Segment(device(1), bytes(16), 0, 1, (change,), ()))
    assert state.entry(encrypted_name("a")) == change


@pytest.mark.parametrize(("position", "first_sequence"), [(1, 3), (3, 3), (4, 3), (2, 2), (2, 4), (2, 1)])
def test_a_gap_or_an_overlap_is_refused(position: int, first_sequence: int, state: FolderState) -> None:
    state.apply(1, segment(1, file("a"), file("b")))
    before = list(state.file_infos_after(0, 10))
    with pytest.raises(DataError, match=f"segment {position} "):
        state.apply(position, segment(first_sequence, file("c")))
    assert (state.position, state.sequence, list(state.file_infos_after(0, 10))) == (1, 2, before)


def test_a_segment_that_fails_half_way_leaves_nothing(state: FolderState, path: Path) -> None:
    too_large = PeerCursor(device(2), 1, 2**64)  # more than SQLite holds
    with pytest.raises(OverflowError):
        state.apply(1, segment(1, file("a"), cursors=(too_large,)))
    assert (state.position, state.sequence, state.totals) == (0, 0, FolderTotals(0, 0, 0, 0))
    state.apply(1, segment(1, file("b")))
    assert [sequence for sequence, _ in state.file_infos_after(0, 10)] == [1]
    again = FolderState(path)
    assert again.totals == FolderTotals(1, 0, 0, 1064)
    again.close()


def test_what_was_looked_up_is_right_after_every_change(state: FolderState) -> None:
    keys = [name_key(encrypted_name(name)) for name in "abc"]

    def sequences() -> list[int | None]:
        found = [current.sequence if current is not None else None for current in map(state.current, keys)]
        assert found == [state.sequence_of(key) for key in keys]
        assert [bool(state.objects_of(key)) for key in keys] == [sequence is not None for sequence in found]
        return found

    state.look_up(keys)
    assert sequences() == [None, None, None]
    state.apply(1, segment(1, file("a", 1)))
    assert sequences() == [1, None, None]
    state.apply(2, segment(2, file("a", 2), file("b")))
    assert sequences() == [2, 3, None]
    with pytest.raises(OverflowError):
        state.apply(3, segment(4, file("c"), cursors=(PeerCursor(device(2), 1, 2**64),)))
    assert sequences() == [2, 3, None]
    state.apply(3, segment(4, file("c")))
    state.tidy()
    assert sequences() == [2, 3, 4]
    state.clear()
    assert sequences() == [None, None, None]


def test_wants(state: FolderState) -> None:
    state.apply(1, segment(1, file("a", 3), deleted("b", 3)))
    assert state.wants(file("new"))
    assert [version for version in range(1, 6) if state.wants(file("a", version))] == [4, 5]
    assert [version for version in range(1, 6) if state.wants(file("b", version))] == [4, 5]


def test_a_concurrent_version_is_not_wanted(state: FolderState) -> None:
    state.apply(1, segment(1, file("a", 3)))
    other = file("a", 9)
    other.message.version.counters[0].id = 2
    assert not state.wants(other)


@pytest.mark.parametrize("index_id", [1, 2**63 - 1, 2**63, 2**64 - 1])
def test_cursors(index_id: int, state: FolderState) -> None:
    state.apply(1, segment(1, cursors=(PeerCursor(device(2), index_id, 5), PeerCursor(device(3), 9, 9))))
    assert state.cursor(device(2)) == IndexState(index_id, 5)
    state.apply(2, segment(1, cursors=(PeerCursor(device(2), index_id, 7),)))
    assert state.cursor(device(2)) == IndexState(index_id, 7)
    assert state.cursor(device(3)) == IndexState(9, 9)


def test_a_cursor_never_goes_back_within_an_index(state: FolderState) -> None:
    """Two gateways that both know a peer would write theirs in turn, without end."""
    state.apply(1, segment(1, cursors=(PeerCursor(device(2), 5, 100),)))
    state.apply(2, segment(1, cursors=(PeerCursor(device(2), 5, 50),)))
    assert state.cursor(device(2)) == IndexState(5, 100)
    state.apply(3, segment(1, cursors=(PeerCursor(device(2), 6, 1),)))
    assert state.cursor(device(2)) == IndexState(6, 1), "another index begins from its own number"


KINDS = (file, directory, deleted)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(KINDS), st.integers(1, 3)), max_size=5), max_size=8)
)
def test_counters_and_order_against_a_model(changes: list[list[tuple[int, type, int]]]) -> None:
    model: dict[int, tuple[int, FileInfo]] = {}
    with fast_directory() as folder:
        state = FolderState(folder / "state.sqlite")
        sequence = 0
        for position, batch in enumerate(changes, 1):
            infos = [
                file(name, position, sizes=(1064,) * blocks) if kind is file else kind(name, position)
                for name, kind, blocks in batch
            ]
            state.apply(position, segment(sequence + 1, *infos))
            for (name, _, _), info in zip(batch, infos, strict=True):
                sequence += 1
                model[name] = (sequence, info)
            living = [info.message for _, info in model.values() if not info.message.deleted]
            assert state.totals == FolderTotals(
                files=sum(message.type == 0 for message in living),
                directories=sum(message.type != 0 for message in living),
                deleted=len(model) - len(living),
                bytes=sum(message.size for message in living),
            )
            assert list(state.file_infos_after(0, 100)) == sorted((number, info.raw) for number, info in model.values())
            assert (state.position, state.sequence) == (position, sequence)
        state.close()
        again = FolderState(folder / "state.sqlite")
        assert list(again.file_infos_after(0, 100)) == sorted((number, info.raw) for number, info in model.values())
        again.close()


def test_a_copy_is_a_state(state: FolderState, tmp_path: Path) -> None:
    state.apply(1, segment(1, file("a"), cursors=(PeerCursor(device(2), 2**64 - 1, 5),)))
    copy = tmp_path / "copy"
    assert state.write_copy(copy) == 1
    check_copy(copy, 1, "the key")
    state.apply(2, segment(2, file("b")))

    state.replace(copy)
    assert (state.position, state.sequence, state.totals) == (1, 1, FolderTotals(1, 0, 0, 1064))
    assert state.entry(encrypted_name("b")) is None
    assert state.cursor(device(2)) == IndexState(2**64 - 1, 5)
    assert not copy.exists()
    state.apply(2, segment(2, file("c")))
    assert state.entry(encrypted_name("c")) == entry(file("c"))


@pytest.fixture
def copy(state: FolderState, tmp_path: Path) -> Path:
    for position in range(1, 4):
        state.apply(position, segment(1 + 40 * (position - 1), *(file(f"{position} {n}") for n in range(40))))
    state.write_copy(tmp_path / "copy")
    return tmp_path / "copy"


def test_another_version_or_position_is_no_sound_copy(copy: Path) -> None:
    check_copy(copy, 3, "the key")
    with pytest.raises(DataError, match="the key"):
        check_copy(copy, 4, "the key")
    connection = sqlite3.connect(copy)
    connection.execute(f"PRAGMA user_version = {STATE_VERSION + 1}")
    connection.close()
    with pytest.raises(DataError, match=rf"the key has state version {STATE_VERSION + 1}"):
        check_copy(copy, 3, "the key")


@pytest.mark.parametrize("body", [b"", b"no database at all" * 1000, b"SQLite format 3\0" + bytes(5000)])
def test_a_local_file_that_cannot_be_used_is_replaced(body: bytes, path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(body)
    state = FolderState(path)
    state.apply(1, segment(1, file("a")))
    state.close()
    assert path.stat().st_mode & 0o77 == 0 or path.parent.stat().st_mode & 0o77 == 0 or body is not None


def test_a_local_file_of_another_version_is_replaced(path: Path) -> None:
    state = FolderState(path)
    state.apply(1, segment(1, file("a")))
    state.close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {STATE_VERSION + 1}")
    connection.close()
    state = FolderState(path)
    assert state.position == 0
    state.close()


def test_a_file_whose_making_was_cut_short_is_no_obstacle(path: Path) -> None:
    with pytest.raises(StateFolderUnusable):
        open_database(path, "CREATE TABLE one (x); CREATE TABLE nonsense;", 1)
    connection = open_database(path, "CREATE TABLE one (x); CREATE TABLE two (y);", 1)
    connection.execute("INSERT INTO one VALUES (1)")
    connection.close()


def test_a_folder_that_cannot_be_used_is_the_users_to_change(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file where a folder should be")
    with pytest.raises(StateFolderUnusable, match="taken"):
        FolderState(tmp_path / "taken" / "state.sqlite")


def test_an_entry_read_before_a_change_is_not_given_after_it(state: FolderState) -> None:
    for position in range(1, 100):
        state.apply(position, segment(position, file("a", position)))
        found = state.entry(encrypted_name("a"))
        assert found is not None
        assert found.file_info.message.version.counters[0].value == position


def test_parsed_entries_stay_within_an_account(path: Path) -> None:
    account = Account(100_000)
    state = FolderState(path, parsed=account)
    state.apply(1, segment(1, *map(file, range(1000))))
    for number in range(1000):
        found = state.entry(encrypted_name(number))
        assert found == state.entry(encrypted_name(number)) == entry(file(number))
    assert 50_000 < account.used <= account.capacity
    assert account.most_used < 2 * account.capacity
    state.close()
    assert account.used == 0


def test_a_parsed_entry_is_given_again(state: FolderState) -> None:
    state.apply(1, segment(1, file("a"), file("b")))
    first = state.entry(encrypted_name("a"))
    assert state.entry(encrypted_name("b")) is not None
    assert state.entry(encrypted_name("a")) is first


def test_file_infos_are_given_as_they_were(state: FolderState) -> None:
    info = file("a", sequence=77)
    raw = info.raw + b"\xfa\x7c\x01z"
    state.apply(1, segment(1, dataclasses.replace(info, raw=raw)))
    assert list(state.file_infos_after(0, 1)) == [(1, raw)]


def spoiled(path: Path) -> None:
    """Overwrite all but the first pages of a file, as a bad disk does."""
    size = path.stat().st_size
    with path.open("r+b") as opened:
        opened.seek(8 * 4096)
        opened.write(b"\xa5" * (size - 8 * 4096))


READS: list[Callable[[FolderState], object]] = [
    lambda state: list(state.file_infos_after(0, 10_000)),
    lambda state: [state.entry(encrypted_name(number)) for number in range(2000)],
    lambda state: [state.wants(file(number)) for number in range(2000)],
    lambda state: state.apply(2, segment(2001, *(file(number, 2) for number in range(2000)))),
]


@pytest.mark.parametrize("use", READS)
def test_damage_is_noticed_in_use(use: Callable[[FolderState], object], path: Path) -> None:
    state = FolderState(path)
    state.apply(1, segment(1, *map(file, range(2000))))
    state.close()
    spoiled(path)
    noticed: list[bool] = []
    state = FolderState(path, lambda: noticed.append(True))
    assert not noticed, "not when it is opened"
    with pytest.raises(StateDamaged):
        use(state)
    assert noticed
    state.close()


@pytest.mark.parametrize(
    "spoil",
    [
        "DELETE FROM files WHERE sequence = 1",
        "UPDATE files SET file_info = x'ffff'",
        "UPDATE files SET part_crc32c = x'ffffff'",
    ],
)
def test_an_entry_that_does_not_fit_together_is_damage(spoil: str, path: Path) -> None:
    state = FolderState(path)
    state.apply(1, segment(1, file("a")))
    state.close()
    connection = sqlite3.connect(path, isolation_level=None)
    if spoil.startswith("DELETE"):
        # As if only the index of names still had it.
        page_size = connection.execute("PRAGMA page_size").fetchone()[0]
        page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'files'").fetchone()[0]
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        with path.open("r+b") as opened:
            opened.seek((page - 1) * page_size)
            opened.write(b"\x0d" + bytes(4) + (page_size % 65536).to_bytes(2, "big") + bytes(1))
    else:
        connection.execute(spoil)
        connection.close()
    noticed: list[bool] = []
    state = FolderState(path, lambda: noticed.append(True))
    with pytest.raises(StateDamaged):
        state.entry(encrypted_name("a"))
    assert noticed
    state.close()


def test_objects_while_the_state_changes(state: FolderState) -> None:
    infos = [file(number) for number in range(1500)]
    state.apply(1, segment(1, *infos))
    objects = state.objects()
    found = [next(objects) for _ in range(1000)]
    state.apply(2, segment(1501, file(0, 2), file("more")))
    found += objects
    assert [named.name_hash for named in found] == [name_key(info.name) for info in [*infos, infos[0], file("more")]]
