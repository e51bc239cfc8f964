from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.file_infos import deleted, device, directory, encrypted_name, file
from tests.simulated import fast_directory
from untrusted_s3.accounts import Account
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import StateDamaged
from untrusted_s3.index.database import WAL_KEPT
from untrusted_s3.index.pending import Announced, Pending, PendingIndex, held_size
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.store.layout import name_key
from untrusted_s3.units import MIB

DEVICES = [device(1), device(2), device(3)]
NAMES = range(5)
KINDS = (file, directory, deleted)


def announced(name: int, version: int, sequence: int) -> FileInfo:
    kind = KINDS[version % 3]
    if kind is file:
        return file(name, version, sizes=(1064 + version,), sequence=sequence)
    return kind(name, version, sequence=sequence)


def announcement(info: FileInfo) -> Announced:
    return Announced(info, content_hash(info) if info.has_data else None)


def pending(one: DeviceID, info: FileInfo) -> Pending:
    """Return the entry that is pending once a device has announced a file info."""
    return Pending(
        one,
        name_key(info.name),
        info.message.sequence,
        info.message.version.SerializeToString(),
        content_hash(info) if info.has_data else None,
        info.message.size if info.has_data else 0,
        len(info.raw),
    )


class AgainstAModel(RuleBasedStateMachine):
    """The pending index behaves like a dict of dicts."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.path = self.exits.enter_context(fast_directory()) / "pending.sqlite"
        self.parsed = Account(3000)  # room for a few
        self.disk = Account(1 << 40)
        self.index = PendingIndex(self.path, parsed=self.parsed, disk=self.disk)
        self.received: dict[DeviceID, IndexState] = {}
        self.pending: dict[DeviceID, dict[bytes, Pending]] = {one: {} for one in DEVICES}
        self.infos: dict[Pending, FileInfo] = {}
        self.version = 0

    def teardown(self) -> None:
        self.index.close()
        assert self.parsed.used == self.disk.used == 0
        self.exits.close()

    @rule(one=st.sampled_from(DEVICES), index_id=st.integers(0, 2**64 - 1), sequence=st.integers(0, 100))
    def start(self, one: DeviceID, index_id: int, sequence: int) -> None:
        self.index.start(one, IndexState(index_id, sequence))
        self.received[one] = IndexState(index_id, sequence)
        self.pending[one] = {}

    @precondition(lambda self: self.received)
    @rule(
        data=st.data(),
        wanted=st.lists(st.sampled_from(NAMES), unique=True, max_size=4),
        unwanted=st.lists(st.sampled_from(NAMES), unique=True, max_size=2),
        step=st.integers(1, 3),
    )
    def add(self, data: st.DataObject, wanted: list[int], unwanted: list[int], step: int) -> None:
        one = data.draw(st.sampled_from(sorted(self.received)))
        sequence = self.received[one].max_sequence
        infos = []
        for name in wanted:
            self.version += 1
            sequence += step
            infos.append(announced(name, self.version, sequence))
        others = [announced(name, 1, sequence) for name in unwanted if name not in wanted]
        state = IndexState(self.received[one].index_id, sequence)
        self.index.add(one, state, [announcement(info) for info in infos], [info.name for info in others])
        self.received[one] = state
        for info in others:
            self.pending[one].pop(name_key(info.name), None)
        for info in infos:
            entry = self.pending[one][name_key(info.name)] = pending(one, info)
            self.infos[entry] = info

    @rule(data=st.data(), stale=st.booleans())
    def remove(self, data: st.DataObject, stale: bool) -> None:
        everything = [entry for entries in self.pending.values() for entry in entries.values()]
        chosen = data.draw(st.lists(st.sampled_from(everything), unique_by=id)) if everything else []
        if stale:  # the device has announced it anew since
            chosen = [replace(entry, sequence=entry.sequence + 1000) for entry in chosen]
        done = self.index.remove(chosen)
        for entry in chosen:
            if not stale:
                del self.pending[entry.device_id][entry.name_hash]
        left = {key for entries in self.pending.values() for key in entries}
        assert done == {entry.name_hash for entry in chosen} - left

    @rule()
    def restart(self) -> None:
        self.index.close()
        self.index = PendingIndex(self.path, parsed=self.parsed, disk=self.disk)

    @rule(one=st.sampled_from(DEVICES), forget=st.booleans())
    def empty(self, one: DeviceID, forget: bool) -> None:
        asyncio.run(self.index.forget(one) if forget else self.index.empty(one))
        self.received[one] = IndexState()
        if forget:
            del self.received[one]
        self.pending[one] = {}

    @rule(data=st.data())
    def load(self, data: st.DataObject) -> None:
        everything = [entry for entries in self.pending.values() for entry in entries.values()]
        if not everything:
            return
        entry = data.draw(st.sampled_from(everything))
        assert self.index.file_info(replace(entry, sequence=entry.sequence + 1000)) is None
        for _ in range(2):
            found = self.index.file_info(entry)
            assert found is not None
            assert (found.raw, found.message) == (self.infos[entry].raw, self.infos[entry].message)

    @invariant()
    def says_the_same(self) -> None:
        assert sorted(self.index.devices()) == sorted(self.received)
        for one in DEVICES:
            ordered = sorted(self.pending[one].values(), key=lambda entry: entry.sequence)
            assert self.index.after(one, 0, 100) == ordered
            for sequence in {entry.sequence for entry in ordered}:
                assert self.index.after(one, sequence, 2) == [e for e in ordered if e.sequence > sequence][:2]
            received = self.received.get(one, IndexState())
            assert self.index.received(one) == received
            for handled in ([], [entry.sequence for entry in ordered[:2]], [entry.sequence for entry in ordered]):
                left = [entry.sequence for entry in ordered if entry.sequence not in handled]
                reached = left[0] - 1 if left else received.max_sequence
                assert self.index.handled(one, handled) == IndexState(received.index_id, reached)
        largest: dict[bytes, int] = {}
        for key in (name_key(encrypted_name(name)) for name in NAMES):
            found = {entry.device_id: entry for entry in self.index.of_name(key)}
            assert found == {one: entries[key] for one, entries in self.pending.items() if key in entries}
            for entry in found.values():
                largest[key] = max(largest.get(key, 0), entry.size)
        assert self.index.totals == (len(largest), sum(largest.values()))
        assert self.parsed.used <= self.parsed.capacity
        for one, entries in self.pending.items():
            held = sum(held_size(entry.file_info_size, len(entry.version)) for entry in entries.values())
            assert self.index.held_by(one) == self.disk.used_by(one) == held


AgainstAModel.TestCase.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
TestAgainstAModel = AgainstAModel.TestCase


@pytest.fixture
def index(tmp_path: Path) -> Iterator[PendingIndex]:
    opened = PendingIndex(tmp_path / "pending.sqlite")
    yield opened
    opened.close()


def test_nothing_is_known_of_a_new_device(index: PendingIndex) -> None:
    assert index.received(device(1)) == IndexState()
    assert index.handled(device(1)) == IndexState()
    assert index.totals == (0, 0)
    assert index.devices() == []


@pytest.mark.parametrize("index_id", [2**63, 2**64 - 1])
def test_index_ids_have_64_bits(index_id: int, index: PendingIndex) -> None:
    index.start(device(1), IndexState(index_id, 3))
    assert index.received(device(1)) == IndexState(index_id, 3)


def test_removing_what_was_announced_anew_leaves_the_new_one(index: PendingIndex) -> None:
    old, new = file("a", 1, sequence=1), file("a", 2, sequence=2)
    index.add(device(1), IndexState(7, 1), [announcement(old)], [])
    taken = index.after(device(1), 0, 10)
    index.add(device(1), IndexState(7, 2), [announcement(new)], [])
    index.remove(taken)
    assert index.of_name(name_key(old.name)) == [pending(device(1), new)]
    assert index.handled(device(1)) == IndexState(7, 1)


def test_a_file_that_several_devices_announce_counts_once(index: PendingIndex) -> None:
    for number in (1, 2):
        index.add(device(number), IndexState(7, 1), [announcement(file("a", 1, sizes=(2000,), sequence=1))], [])
    assert index.totals == (1, 2000)


async def test_the_file_is_as_large_as_it_is_counted_and_shrinks(tmp_path: Path) -> None:
    disk = Account(1 << 40)
    with fast_directory() as directory:
        index = PendingIndex(directory / "pending.sqlite", disk=disk)
        sequence = 0
        for sizes in ((1064,), (1064,) * 20, (1064,) * 200):
            infos = [file(sequence + one, sizes=sizes, sequence=sequence + one + 1) for one in range(300)]
            sequence += 300
            index.add(device(1), IndexState(7, sequence), [announcement(info) for info in infos], [])
        counted = index.held_by(device(1))
        index.close()
        assert disk.used == 0
        on_disk = index.path.stat().st_size
        assert on_disk < counted < 3 * on_disk
        index = PendingIndex(index.path, disk=disk)
        assert index.held_by(device(1)) == disk.used == counted
        await index.forget(device(1))
        assert (disk.used, index.devices(), index.totals) == (0, [], (0, 0))
        index.close()
        assert index.path.stat().st_size < 100_000


def test_a_message_that_fails_half_way_leaves_nothing(index: PendingIndex) -> None:
    index.add(device(1), IndexState(7, 1), [announcement(file("a", sequence=1))], [])
    too_large = IndexState(7, 2**64)  # more than SQLite holds
    with pytest.raises(OverflowError):
        index.add(device(1), too_large, [announcement(file("b", sizes=(2000,), sequence=2))], [encrypted_name("a")])
    assert index.after(device(1), 0, 10) == [pending(device(1), file("a", sequence=1))]
    assert index.totals == (1, 1064)
    assert index.received(device(1)) == IndexState(7, 1)


def test_a_message_that_names_a_file_twice_counts_it_once(index: PendingIndex) -> None:
    infos = [file("a", version, sizes=(2000 * version,), sequence=version) for version in (1, 2)]
    index.add(device(1), IndexState(7, 2), [announcement(info) for info in infos], [])
    assert index.after(device(1), 0, 10) == [pending(device(1), infos[1])]
    assert index.totals == (1, 4000)


def test_the_earliest_file_infos_stay_parsed_when_memory_is_short(tmp_path: Path) -> None:
    infos = [file(number, sequence=number + 1) for number in range(4)]
    account = Account(5 * infos[0].memory_size // 2)
    index = PendingIndex(tmp_path / "pending.sqlite", parsed=account)
    index.add(device(1), IndexState(7, 4), [announcement(info) for info in infos], [])
    loaded = [index.file_info(entry) for entry in index.after(device(1), 0, 10)]
    assert [found is info for found, info in zip(loaded, infos, strict=True)] == [True, True, False, False]
    assert [found and found.raw for found in loaded] == [info.raw for info in infos]
    index.close()


def test_an_entry_that_cannot_be_parsed_is_damage(tmp_path: Path) -> None:
    damaged: list[bool] = []
    index = PendingIndex(tmp_path / "pending.sqlite", lambda: damaged.append(True))
    index.add(device(1), IndexState(7, 1), [announcement(file("a", sequence=1))], [])
    with contextlib.closing(sqlite3.connect(tmp_path / "pending.sqlite", isolation_level=None)) as connection:
        connection.execute("UPDATE pending SET file_info = x'ffff'")
    (entry,) = index.after(device(1), 0, 10)
    with pytest.raises(StateDamaged, match="pending sequence 1"):
        index.file_info(entry)
    assert damaged == [True]
    index.close()


def test_the_write_ahead_log_counts_and_shrinks(tmp_path: Path) -> None:
    disk = Account(1 << 40)
    pending = PendingIndex(tmp_path / "pending.sqlite", disk=disk)
    infos = [file(number, sizes=(1064,) * 20_000, sequence=number + 1) for number in range(3)]
    for info in infos:
        pending.add(device(1), IndexState(7, info.message.sequence), [Announced(info, "hash")], [])
    written = sum(path.stat().st_size for path in tmp_path.iterdir() if path.name.endswith("-wal"))
    assert written > 3 * MIB
    assert disk.used == pending.held_by(device(1)) + written - WAL_KEPT
    pending.tidy()
    assert disk.used == pending.held_by(device(1))
    pending.start(device(1), IndexState())
    pending.tidy()
    assert disk.used == 0
    pending.close()


def test_room_is_made_by_the_write_ahead_log(tmp_path: Path) -> None:
    disk = Account(8 * MIB)
    pending = PendingIndex(tmp_path / "pending.sqlite", disk=disk)
    info = file("a", sizes=(1064,) * 35_000, sequence=1)
    for _ in range(2):
        pending.add(device(1), IndexState(7, 1), [Announced(info, "hash")], [])
        pending.start(device(1), IndexState())
    assert disk.used > 4 * MIB
    assert pending.has_room(device(1), 4 * MIB)
    assert disk.used == 0
    pending.close()
