from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.file_infos import deleted, device, directory, encrypted_name, file
from tests.simulated import fast_directory
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.pending import Pending, PendingIndex

DEVICES = [device(1), device(2), device(3)]
NAMES = range(5)
KINDS = (file, directory, deleted)


def announced(name: int, version: int, sequence: int) -> FileInfo:
    kind = KINDS[version % 3]
    if kind is file:
        return file(name, version, sizes=(1064 + version,), sequence=sequence)
    return kind(name, version, sequence=sequence)


class AgainstAModel(RuleBasedStateMachine):
    """The pending index does what a dict of dicts would."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = ExitStack()
        self.path = self.exits.enter_context(fast_directory()) / "pending.sqlite"
        self.index = PendingIndex(self.path)
        self.received: dict[DeviceID, IndexState] = {}
        self.pending: dict[DeviceID, dict[str, Pending]] = {one: {} for one in DEVICES}
        self.version = 0

    def teardown(self) -> None:
        self.index.close()
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
        self.index.add(one, state, infos, others)
        self.received[one] = state
        for info in others:
            self.pending[one].pop(info.name, None)
        for info in infos:
            self.pending[one][info.name] = Pending(one, info.message.sequence, info)

    @rule(data=st.data(), stale=st.booleans())
    def remove(self, data: st.DataObject, stale: bool) -> None:
        everything = [entry for entries in self.pending.values() for entry in entries.values()]
        chosen = data.draw(st.lists(st.sampled_from(everything), unique_by=id)) if everything else []
        if stale:  # the device has announced it anew since
            chosen = [Pending(entry.device_id, entry.sequence + 1000, entry.file_info) for entry in chosen]
        self.index.remove(chosen)
        for entry in chosen:
            if not stale:
                del self.pending[entry.device_id][entry.file_info.name]

    @rule()
    def restart(self) -> None:
        self.index.close()
        self.index = PendingIndex(self.path)

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
        largest: dict[str, int] = {}
        for name in map(encrypted_name, NAMES):
            found = {entry.device_id: entry for entry in self.index.of_name(name)}
            assert found == {one: entries[name] for one, entries in self.pending.items() if name in entries}
            for entry in found.values():
                size = entry.file_info.message.size if entry.file_info.has_data else 0
                largest[name] = max(largest.get(name, 0), size)
        assert self.index.totals == (len(largest), sum(largest.values()))


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
    index.add(device(1), IndexState(7, 1), [old], [])
    taken = index.after(device(1), 0, 10)
    index.add(device(1), IndexState(7, 2), [new], [])
    index.remove(taken)
    assert index.of_name(old.name) == [Pending(device(1), 2, new)]
    assert index.handled(device(1)) == IndexState(7, 1)


def test_a_file_that_several_devices_announce_counts_once(index: PendingIndex) -> None:
    for number in (1, 2):
        index.add(device(number), IndexState(7, 1), [file("a", 1, sizes=(2000,), sequence=1)], [])
    assert index.totals == (1, 2000)


def test_a_message_that_fails_half_way_leaves_nothing(index: PendingIndex) -> None:
    index.add(device(1), IndexState(7, 1), [file("a", sequence=1)], [])
    too_large = IndexState(7, 2**64)  # more than SQLite holds
    with pytest.raises(OverflowError):
        index.add(device(1), too_large, [file("b", sequence=2)], [file("a", 2, sequence=3)])
    assert [entry.file_info.name for entry in index.after(device(1), 0, 10)] == [encrypted_name("a")]
    assert index.totals == (1, 1064)
    assert index.received(device(1)) == IndexState(7, 1)
