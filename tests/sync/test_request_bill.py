"""The requests that a piece of work takes: the table in docs/performance.md, counted."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.file_infos import SMALLEST_BLOCK, block_token, deleted, device, directory, encrypted_name, file
from tests.simulated import SimulatedBucket
from tests.sync.fakes import new_folder, working
from tests.sync.judging_device import virtual_store
from tests.virtual_time import virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.events import IndexReceived, RequestReceived
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.counters import Counters
from untrusted_s3.settings import LogSettings, Settings, SyncSettings
from untrusted_s3.store.format import PartGrid
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.recent_ranges import RequestedBlock
from untrusted_s3.sync.responder import Responder

pytestmark = virtual_time
DOCUMENT = Path(__file__).parents[2] / "docs" / "performance.md"
TITLE = "## Requests and the bill"
KINDS = ("PUT", "GET", "LIST", "HEAD")
# As they are billed: POST is priced like PUT, and a copy inside the store is a PUT.
KIND_OF = {
    "put": "PUT",
    "upload_part": "PUT",
    "upload_part_copy": "PUT",
    "create_multipart_upload": "PUT",
    "complete_multipart_upload": "PUT",
    "get": "GET",
    "size": "HEAD",
    "list": "LIST",
    "list_multipart_uploads": "LIST",
    "list_parts": "LIST",
}
PART = 4096
GRID = PartGrid(single_put_size=PART, min_part_size=PART)
DEVICE = device(1)
_FIRST = "the first file, before which candidates for deletion are listed"
# Longer than anything that a change causes.
WHILE = 10.0
# Looks at the log take requests of their own (tests/gateway/test_idle.py).
NEVER = 1e9
SETTINGS = Settings(
    log=LogSettings(poll_interval=NEVER, check_interval=NEVER, whole_check_interval=NEVER, trusted_look=NEVER)
)


class AnyBlock:
    """A device that has every block."""

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        return memoryview(bytes(block.size))


class Work:
    """A folder, and what it has asked of the store for each piece of work."""

    def __init__(self, folder: Folder, bucket: SimulatedBucket) -> None:
        self.folder = folder
        self.bucket = bucket
        self.counts: dict[str, tuple[int, ...]] = {}
        self._sequence = 0

    async def announce(self, work: str, *infos: Callable[[int], FileInfo]) -> None:
        """Have a device announce files, and count what that takes."""
        before = len(self.bucket.calls)
        raws = [make(self._sequence + number).raw for number, make in enumerate(infos, 1)]
        previous, self._sequence = self._sequence, self._sequence + len(infos)
        update = IndexReceived("f", tuple(raws), True, self._sequence, previous)
        assert await self.folder.take_index(DEVICE, 7, update)
        await asyncio.sleep(WHILE)
        self.count(work, before)
        assert self.folder.pending_totals == (0, 0)

    def count(self, work: str, before: int) -> None:
        found = Counter(KIND_OF[call.operation] for call in self.bucket.calls[before:])
        self.counts[work] = tuple(found[kind] for kind in KINDS)


@asynccontextmanager
async def a_folder(home: Path) -> AsyncIterator[Work]:
    bucket = SimulatedBucket(virtual_store())
    folder = new_folder(FolderRecord("f", "", b"token"), bucket, home, grid=GRID, settings=SETTINGS)
    await folder.open()
    async with working(folder):
        folder.start_index(DEVICE, IndexState(7, 0))
        folder.add_source(DEVICE, AnyBlock())
        await asyncio.sleep(1)
        yield Work(folder, bucket)


def small(name: str, version: int = 1, content: int = 0) -> Callable[[int], FileInfo]:
    return lambda sequence: file(name, version, sequence=sequence, content=content)


def large(sizes: Sequence[int], version: int, changed: int | None = None) -> Callable[[int], FileInfo]:
    """A file of blocks that are parts each, of which one is `changed`."""

    def make(sequence: int) -> FileInfo:
        message = pb.FileInfo.FromString(file("large", version, sizes=sizes, sequence=sequence).raw)
        if changed is not None:
            message.blocks[changed].hash = block_token(message.name, changed, 1)
        return FileInfo(message.SerializeToString(), message)

    return make


async def counted(home: Path) -> dict[str, tuple[int, ...]]:
    """Do each piece of work once."""
    async with a_folder(home) as work:
        await work.announce(_FIRST, small("first"))
        del work.counts[_FIRST]
        await work.announce("a new small file", small("a"))
        await work.announce("100 new small files at once", *(small(f"{number}") for number in range(100)))
        await work.announce("a small file with other content", small("a", 2, content=1))
        await work.announce("a small file renamed", lambda number: deleted("a", 3, sequence=number), small("b", 1, 1))
        await work.announce("a directory", lambda number: directory("d", sequence=number))
        await work.announce("a deletion", lambda number: deleted("b", 2, sequence=number))
        await work.announce("a new file of 10 parts", large([PART] * 10, 1))
        await work.announce("one block of it changed", large([PART] * 10, 2, changed=4))
        await work.announce("its metadata changed", large([PART] * 10, 3, changed=4))
        await serve(work, "a small file served", "0", SMALLEST_BLOCK)
        await serve_in_order(work, "1 GiB served in order")
        await open_cold(work, "a folder opened without a local state, with 11 segments", home / "other")
        return work.counts


async def serve(work: Work, what: str, name: str, size: int) -> None:
    before = len(work.bucket.calls)
    responder = Responder(work.bucket, Counters(), SyncSettings(), 1 << 20)
    answered = asyncio.Event()

    async def answer(data: memoryview, code: int) -> None:
        assert code == pb.NO_ERROR and len(data) == size
        answered.set()

    encrypted = encrypted_name(name)
    request = RequestReceived(1, "f", encrypted, 0, size, block_token(encrypted, 0), False)
    block = await work.folder.requested_block(request, DEVICE)
    assert block is not None
    responder.submit(block, answer)
    await answered.wait()
    work.count(what, before)
    await responder.stop()


async def serve_in_order(work: Work, what: str) -> None:
    """Serve an object of 1,024 blocks, of which 8 are a part, to a device that has requested 16 at a time."""
    size, count, before = 1064, 1024, len(work.bucket.calls)
    work.bucket.store.put("gibibyte", bytes(size * count))
    responder = Responder(work.bucket, Counters(), SyncSettings(largest_get=16 * size), 64 * size)
    places = asyncio.Semaphore(16)

    async def answer(data: memoryview, code: int) -> None:
        assert code == pb.NO_ERROR and len(data) == size
        places.release()

    for number in range(count):
        await places.acquire()
        responder.submit(RequestedBlock("gibibyte", number * size, size, (number // 8 + 1) * 8 * size), answer)
    for _ in range(16):
        await places.acquire()
    work.count(what, before)
    await responder.stop()


async def open_cold(work: Work, what: str, home: Path) -> None:
    bucket = SimulatedBucket(work.bucket.store)
    folder = new_folder(FolderRecord("f", "", b"token"), bucket, home, grid=GRID, settings=SETTINGS)
    await folder.open()
    folder.close()
    work.bucket = bucket
    work.count(what, 0)


def documented() -> dict[str, tuple[int, ...]]:
    """Return the table of the document."""
    section = DOCUMENT.read_text().partition(TITLE)[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert rows[0] == ["work", *KINDS]
    return {row[0]: tuple(map(int, row[1:])) for row in rows[2:]}


async def test_the_requests_of_each_piece_of_work_are_those_of_the_table(tmp_path: Path) -> None:
    assert await counted(tmp_path) == documented()
