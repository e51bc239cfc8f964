"""Index messages of peers: what is refused, what is kept, and how often a file info is parsed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import structlog
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.file_infos import device, directory, file, plaintext
from tests.simulated import SimulatedBucket, fast_directory
from tests.sync.fakes import FakeSource, claiming, name_key, new_folder, run, sync_memory
from tests.virtual_time import run_in_virtual_time, virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.errors import FileInfoRefused, FolderRefused, RemoteProtocolError
from untrusted_s3.index.pending import PendingIndex
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.index_in import IndexIn, check_size
from untrusted_s3.sync.sources import Sources
from untrusted_s3.threads import LargeWork
from untrusted_s3.units import MIB

A = device(1)
PARSERS = ("FromString", "ParseFromString", "MergeFromString")


class Parses:
    """Counts how often a file info is parsed, by any code. A profile function."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        if event == "c_call" and getattr(argument, "__name__", "") in PARSERS:
            parsed = getattr(argument, "__self__", None)
            self.count += parsed is pb.FileInfo or isinstance(parsed, pb.FileInfo)


@contextlib.contextmanager
def counted() -> Iterator[Parses]:
    parses = Parses()
    sys.setprofile(parses)
    try:
        yield parses
    finally:
        sys.setprofile(None)


class Taking:
    """The intake of one folder, and the state and pending index that it works on."""

    def __init__(self, directory: Path, settings: SyncSettings | None = None) -> None:
        self.state = FolderState(directory / "state.sqlite")
        self.pending = PendingIndex(directory / "pending.sqlite")
        claims = claiming(self.state, self.pending, Sources("folder", self.pending))
        self.index_in = IndexIn("folder", claims, self.pending, settings or SyncSettings(), LargeWork(1 << 20))

    async def take(self, raw: Sequence[bytes], *, update: bool = True) -> None:
        await self.index_in.take(A, 7, IndexReceived("folder", tuple(raw), update, 0, 0))

    def close(self) -> None:
        self.state.close()
        self.pending.close()


@pytest.fixture
def taking(tmp_path: Path) -> Iterator[Taking]:
    opened = Taking(tmp_path, SyncSettings(index_piece_files=3))
    yield opened
    opened.close()


def test_a_file_must_fit_into_an_object() -> None:
    check_size(file("a", sizes=(5000, 5000)), max_size=10_000)
    with pytest.raises(FileInfoRefused, match="10001 bytes are more than an object can hold"):
        check_size(file("a", sizes=(5000, 5001)), max_size=10_000)


async def test_a_long_message_is_taken_as_a_whole(taking: Taking) -> None:
    await taking.take([file(number, sequence=number).raw for number in range(1, 11)])
    entries = taking.pending.after(A, 0, 100)
    assert [entry.name_hash for entry in entries] == [name_key(number) for number in range(1, 11)]
    assert taking.pending.received(A) == IndexState(7, 10)


@pytest.mark.parametrize("last", [plaintext("secret.txt", sequence=9), b"not a file info"])
async def test_nothing_of_a_wrong_message_is_kept(taking: Taking, last: bytes) -> None:
    await taking.take([directory("before", sequence=1).raw])
    infos = [directory(number, sequence=number).raw for number in range(2, 8)]
    with pytest.raises((FolderRefused, RemoteProtocolError)):
        await taking.take([*infos, last], update=False)
    assert [entry.name_hash for entry in taking.pending.after(A, 0, 100)] == [name_key("before")]
    assert taking.pending.received(A) == IndexState(7, 1)


BAD: dict[str, Callable[[pb.FileInfo], object]] = {
    "blocks": lambda message: setattr(message.blocks[0], "offset", 5),
    "size": lambda message: setattr(message, "size", 2**50),
    "too large": lambda message: setattr(message, "encrypted", bytes(17 * MIB)),
    "version": lambda message: message.version.counters.add(id=2, value=3),
    "name": lambda message: setattr(message, "name", message.name + "/.."),
}


def bad(name: int, kind: str, sequence: int) -> bytes:
    message = pb.FileInfo.FromString(file(name, sequence=sequence).raw)
    BAD[kind](message)
    return message.SerializeToString()


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("update", [True, False])
async def test_a_file_info_that_breaks_a_rule_is_refused_alone(kind: str, update: bool, taking: Taking) -> None:
    infos = [file(number, sequence=number).raw for number in range(1, 11)]
    infos[4] = bad(5, kind, 5)
    with structlog.testing.capture_logs() as lines:
        await taking.take(infos, update=update)
        await taking.take([bad(5, kind, 11)])
    assert [line["event"] for line in lines] == ["files refused"], "once"
    entries = taking.pending.after(A, 0, 100)
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 6, 7, 8, 9, 10]
    assert len(taking.pending.refused) == 1
    ((device_id, refused),) = taking.pending.refused.examples(10)
    assert device_id == A
    assert lines[0]["reason"] == refused.reason
    assert taking.pending.received(A) == IndexState(7, 11)
    taking.pending.remove(entries)
    assert taking.pending.handled(A) == IndexState(7, 10), "the cursor does not pass what is refused"


async def test_what_was_refused_is_taken_when_it_is_announced_again(taking: Taking) -> None:
    await taking.take([bad(1, "blocks", 1), file(2, sequence=2).raw])
    await taking.take([file(1, 2, sequence=3).raw])
    assert len(taking.pending.refused) == 0
    taking.pending.remove(taking.pending.after(A, 0, 100))
    assert taking.pending.handled(A) == IndexState(7, 3)


async def test_after_a_restart_what_was_refused_is_asked_for_again(tmp_path: Path) -> None:
    taking = Taking(tmp_path)
    await taking.take([file(number, sequence=number).raw for number in range(1, 5)])
    await taking.take([bad(5, "version", 5), file(6, sequence=6).raw, bad(7, "blocks", 7)])
    taking.close()
    again = Taking(tmp_path)
    assert again.pending.received(A) == IndexState(7, 4)
    assert [entry.sequence for entry in again.pending.after(A, 0, 100)] == [1, 2, 3, 4, 6]
    await again.take([file(number, sequence=number).raw for number in range(5, 8)])
    assert [entry.sequence for entry in again.pending.after(A, 0, 100)] == [1, 2, 3, 4, 5, 6, 7]
    again.close()
    third = Taking(tmp_path)
    assert third.pending.received(A) == IndexState(7, 7)
    third.close()


async def test_what_is_kept_of_refused_files_is_bounded(taking: Taking) -> None:
    with structlog.testing.capture_logs() as lines:
        for start in range(0, 5000, 1000):
            await taking.take([bad(number, "blocks", number + 1) for number in range(start, start + 1000)])
    assert len(lines) <= 334, "at most one line a piece, and none for those that are only counted"
    assert len(taking.pending.refused) == 5000
    assert len(list(taking.pending.refused)) == 1000
    assert taking.pending.handled(A) == IndexState(7, 0)


class IndexOfAnyOrder(RuleBasedStateMachine):
    """A folder whose peer announces anything in any order, compared with a dict of what it announced last."""

    def __init__(self) -> None:
        super().__init__()
        self.exits = contextlib.ExitStack()
        self.path = self.exits.enter_context(fast_directory())
        self.taking = Taking(self.path, SyncSettings(index_piece_files=2))
        self.announced: dict[int, tuple[int, bool]] = {}
        self.highest = 0
        self.version = 0

    def teardown(self) -> None:
        self.taking.close()
        self.exits.close()

    @rule(
        run_async=st.just(run_in_virtual_time),
        entries=st.lists(st.tuples(st.integers(0, 5), st.integers(-2, 12), st.booleans()), max_size=6),
        update=st.booleans(),
    )
    def announce(self, run_async: Any, entries: list[tuple[int, int, bool]], update: bool) -> None:
        raw = []
        if not update:
            self.announced, self.highest = {}, 0
        for name, sequence, right in entries:
            self.version += 1
            info = file(name, self.version, sequence=sequence)
            raw.append(info.raw if right else bad(name, "version", sequence))
            self.announced[name] = sequence, right
            self.highest = max(self.highest, sequence)
        run_async(self.taking.take(raw, update=update))

    @rule(data=st.data())
    def handle(self, data: st.DataObject) -> None:
        pending = self.taking.pending.after(A, -100, 100)
        if pending:
            one = data.draw(st.sampled_from(pending))
            others = [sequence for name, (sequence, _) in self.announced.items() if name_key(name) != one.name_hash]
            reached = self.taking.pending.handled(A, [one.sequence]).max_sequence
            assert reached == min([self.highest, *(sequence - 1 for sequence in others)])
            self.taking.pending.remove([one])
            self.announced = {n: found for n, found in self.announced.items() if name_key(n) != one.name_hash}

    @invariant()
    def every_entry_is_pending_or_refused_and_the_cursor_does_not_pass_it(self) -> None:
        pending = {entry.name_hash: entry.sequence for entry in self.taking.pending.after(A, -100, 100)}
        refused = {one.key: one.sequence for _, one in self.taking.pending.refused}
        assert pending == {name_key(name): sequence for name, (sequence, right) in self.announced.items() if right}
        assert refused == {name_key(name): sequence for name, (sequence, right) in self.announced.items() if not right}
        lowest = min([self.highest, *(sequence - 1 for sequence, _ in self.announced.values())])
        assert self.taking.pending.handled(A).max_sequence == lowest


IndexOfAnyOrder.TestCase.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
TestIndexOfAnyOrder = IndexOfAnyOrder.TestCase


@virtual_time
async def test_entries_in_any_order_reach_the_log(tmp_path: Path) -> None:
    """Also those whose sequence number is one that others have, or is below what was announced before."""
    folder = new_folder(FolderRecord("folder", "", b"token"), SimulatedBucket(), tmp_path)
    await folder.open()
    work = asyncio.ensure_future(run(folder))
    folder.start_index(A, IndexState(7, 1000))
    folder.add_source(A, FakeSource())
    sequences = [500, 3, 3, 3, 0, -5, 499, 1000, 1000, *[20] * 500, *range(900, 600, -1)]
    infos = [directory(number, sequence=sequence) for number, sequence in enumerate(sequences)]
    for start in range(0, len(infos), 100):
        update = IndexReceived("folder", tuple(info.raw for info in infos[start : start + 100]), True, 0, 0)
        await folder.take_index(A, 7, update)
        await asyncio.sleep(1)
    await asyncio.sleep(60)
    assert folder.pending_totals == (0, 0)
    assert all(folder.entry(info.name) is not None for info in infos)
    assert folder.handled(A) == IndexState(7, 1000)
    work.cancel()
    await asyncio.wait([work])
    folder.close()


def test_parses_are_counted() -> None:
    raw = file("a").raw
    with counted() as parses:
        parse_file_info(raw)
        pb.FileInfo().ParseFromString(raw)
        pb.Vector.FromString(b"")
    assert parses.count == 2


@virtual_time
@pytest.mark.parametrize(("room", "parses_a_file"), [(1 << 24, 1), (0, 2)])
async def test_a_file_info_is_parsed_once_on_its_way_to_the_log(tmp_path: Path, room: int, parses_a_file: int) -> None:
    """Without memory for parsed file infos, it is parsed a second time."""
    infos = [file(number, sequence=number + 1) for number in range(1000)]
    folder = new_folder(
        FolderRecord("folder", "", b"token"), SimulatedBucket(), tmp_path, memory=sync_memory(parsed=room)
    )
    await folder.open()
    work = asyncio.ensure_future(run(folder))
    folder.start_index(A, IndexState(7, 1000))
    folder.add_source(A, FakeSource())
    with counted() as parses:
        update = IndexReceived("folder", tuple(info.raw for info in infos), True, 1000, 0)
        await folder.take_index(A, 7, update)
        while folder.own_index.max_sequence < len(infos):
            await asyncio.sleep(1)
    assert parses.count == parses_a_file * len(infos)
    assert folder.pending_totals == (0, 0)
    work.cancel()
    await asyncio.wait([work])
    folder.close()
