"""Index messages of peers: what is refused, what is kept, and how often a file info is parsed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

import pytest

from tests.file_infos import device, directory, file, plaintext
from tests.simulated import SimulatedBucket
from tests.sync.fakes import FakeSource, name_key, new_folder, run, sync_memory
from tests.virtual_time import virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.errors import FolderRefused, RemoteProtocolError
from untrusted_s3.index.pending import PendingIndex
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.index_in import IndexIn, check_size

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
        self.index_in = IndexIn(self.state, self.pending, settings or SyncSettings())

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
    with pytest.raises(RemoteProtocolError, match="10001 bytes are more than an object can hold"):
        check_size(file("a", sizes=(5000, 5001)), max_size=10_000)


async def test_a_long_message_is_taken_as_a_whole(taking: Taking) -> None:
    await taking.take([file(number, sequence=number).raw for number in range(1, 11)])
    entries = taking.pending.after(A, 0, 100)
    assert [entry.name_hash for entry in entries] == [name_key(number) for number in range(1, 11)]
    assert taking.pending.received(A) == IndexState(7, 10)


@pytest.mark.parametrize("last", [plaintext("secret.txt", sequence=9), directory("d", sequence=2).raw])
async def test_nothing_of_a_wrong_message_is_kept(taking: Taking, last: bytes) -> None:
    await taking.take([directory("before", sequence=1).raw])
    infos = [directory(number, sequence=number).raw for number in range(2, 8)]
    with pytest.raises((FolderRefused, RemoteProtocolError)):
        await taking.take([*infos, last], update=False)
    assert [entry.name_hash for entry in taking.pending.after(A, 0, 100)] == [name_key("before")]
    assert taking.pending.received(A) == IndexState(7, 1)


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
