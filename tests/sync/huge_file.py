"""One huge file through a folder: from a source that makes blocks when they are requested, to a store that keeps none.

`python -m tests.sync.huge_file --gib 200` does it at full size, and prints what it took.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from bench.measure import peak_bytes
from tests.file_infos import device, file
from tests.simulated import SimulatedBucket, SimulatedStore
from tests.simulated.calls import Call
from tests.sync.fakes import has, new_folder, sync_memory, working
from tests.sync.scripted_device import RECORD
from untrusted_s3.accounts import Account
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.bucket import Buffer, UploadedPart
from untrusted_s3.store.format import PART_GRID, PartGrid
from untrusted_s3.store.multipart import part_size
from untrusted_s3.sync.folder import Folder
from untrusted_s3.units import GIB, MIB

A = device(1)


class _Hollow:
    """Bytes that were thrown away: their number is known."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        return bytes(len(range(*part.indices(self._size))))


class HollowStore(SimulatedStore):
    """A store that keeps of parts, and of what they are joined to, only the sizes."""

    def add_size(self, upload_id: str, number: int, size: int) -> str:
        """Take a part of so many bytes, and return its ETag."""
        upload = self._upload(upload_id)
        upload.parts[number] = cast(bytes, _Hollow(size))
        upload.written[number] = self.clock()
        return f"{number} {size}"

    def parts(self, upload_id: str) -> list[UploadedPart]:
        return [
            UploadedPart(number, len(body), f"{number} {len(body)}", 0.0)
            for number, body in sorted(self._upload(upload_id).parts.items())
        ]

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        parts = self.parts(upload_id)
        assert [part.etag for part in parts] == list(etags)
        self.put(key, cast(bytes, _Hollow(sum(part.size for part in parts))), if_none_match=True)
        del self.uploads[upload_id]


class HollowBucket(SimulatedBucket):
    """A client of such a store.

    Attributes:
        sent: The bytes of the parts that were sent.
        read: The bytes of objects that were read.
    """

    def __init__(self, store: HollowStore) -> None:
        super().__init__(store)
        self.hollow = store
        self.sent = self.read = 0

    async def get(self, key: str, start: int = 0, size: int | None = None, *, max_size: int = 128 << 20) -> bytes:
        body = await super().get(key, start, size, max_size=max_size)
        self.read += len(body) if "/objects/" in key else 0
        return body

    async def upload_part(self, key: str, upload_id: str, number: int, body: Sequence[Buffer]) -> str:
        size = sum(map(len, body))
        etag = await self._call(Call("upload_part", key), lambda: self.hollow.add_size(upload_id, number, size))
        self.sent += size
        return etag

    async def upload_part_copy(
        self, key: str, upload_id: str, number: int, source_key: str, start: int, end: int
    ) -> str:
        call = Call("upload_part_copy", key, start, end - start)
        return await self._call(call, lambda: self.hollow.add_size(upload_id, number, end - start))


@dataclass
class Source:
    """A peer that makes each block when it is requested.

    Attributes:
        given: The bytes that it has given.
        pause_at: After so many bytes it gives no more.
    """

    pause_at: float = float("inf")
    given: int = 0
    paused: asyncio.Event = field(default_factory=asyncio.Event)

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        await asyncio.sleep(0)
        if self.given >= self.pause_at:
            self.paused.set()
            await asyncio.get_running_loop().create_future()
        self.given += block.size
        return memoryview(b"\1" * block.size)  # zeros would take no memory


@dataclass(frozen=True)
class Step:
    """What one step took, in bytes: got from the peer, sent to the store, read from it, and held for blocks at most."""

    given: int
    sent: int
    read: int
    held: int


@dataclass(frozen=True)
class Course:
    """What happened to a file.

    Attributes:
        size: The bytes of its data.
        trailer: Those of its file info, which follow the data in the object.
        before: Up to the crash, when the given share of its blocks had come.
        after: From the start after that until the file was in the log.
        change: A change of its first block.
        back: The way back to what it was.
    """

    size: int
    trailer: int
    before: Step
    after: Step
    change: Step
    back: Step


async def play(home: Path, blocks: int, block_size: int, memory: int, grid: PartGrid, crash_at: float) -> Course:
    """Announce a file, crash when a share of it is there, start again, change a block of it, and change that back."""
    sizes = (block_size,) * blocks
    first = file("huge", 1, sizes=sizes, sequence=1)
    message = pb.FileInfo.FromString(first.raw)
    message.version.counters[0].value, message.sequence = 2, 2
    message.blocks[0].hash = file("huge", 2, sizes=sizes[:1], content=1).message.blocks[0].hash
    changed = FileInfo(message.SerializeToString(), message)
    store, total = HollowStore(time.time), blocks * block_size

    bucket, source = HollowBucket(store), Source(crash_at * total)
    folder, held = await _opened(home, bucket, source, memory, grid)
    async with working(folder):
        await _announce(folder, first)
        await source.paused.wait()
    before = Step(source.given, bucket.sent, bucket.read, held.most_used)

    bucket, source = HollowBucket(store), Source()
    folder, held = await _opened(home, bucket, source, memory, grid)
    steps = []
    async with working(folder):
        for info in (first, changed, file("huge", 3, sizes=sizes, sequence=3)):
            given, sent, read = source.given, bucket.sent, bucket.read
            if info is not first:
                await _announce(folder, info)
            while not has(folder, info):
                await folder.changed_since(folder.own_index.max_sequence)
            steps.append(Step(source.given - given, bucket.sent - sent, bucket.read - read, held.most_used))
    return Course(total, len(first.raw) + 4, before, *steps)


async def _opened(
    home: Path, bucket: HollowBucket, source: Source, memory: int, grid: PartGrid
) -> tuple[Folder, Account]:
    accounts = sync_memory(memory, in_work=SyncSettings().file_infos_in_work)
    folder = new_folder(RECORD, bucket, home, memory=accounts, grid=grid)
    await folder.open()
    folder.start_index(A, IndexState(7, 3))
    folder.add_source(A, source)
    return folder, accounts.blocks_in


async def _announce(folder: Folder, info: FileInfo) -> None:
    await folder.take_index(A, 7, IndexReceived("folder", (info.raw,), True, info.message.sequence, 0))


def main() -> None:
    """Play it at full size."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gib", type=int, default=200, help="the size of the file")
    parser.add_argument("--buffer-memory", type=int, default=256, help="MiB, as the option of `serve`")
    parser.add_argument("--directory", type=Path, help="for the local state")
    options = parser.parse_args()
    block_size = 16 * MIB + 40  # the largest that Syncthing has, encrypted
    with tempfile.TemporaryDirectory(dir=options.directory) as home:
        started, cpu = time.monotonic(), time.process_time()
        blocks = options.gib * GIB // (16 * MIB)
        memory = options.buffer_memory * MIB
        course = asyncio.run(play(Path(home, "state"), blocks, block_size, memory, PART_GRID, 0.9))
    print(f"{options.gib} GiB in parts of {part_size(course.size, block_size) / MIB:.1f} MiB")
    for name in ("before", "after", "change", "back"):
        step = getattr(course, name)
        amounts = (f"{what} {getattr(step, what) / GIB:.2f} GiB" for what in ("given", "sent", "read"))
        print(f"{name}: {', '.join(amounts)}, at most {step.held / MIB:.0f} MiB of blocks")
    print(
        f"{time.monotonic() - started:.0f} s, {time.process_time() - cpu:.0f} CPU s, "
        f"peak resident memory {peak_bytes(os.getpid()) / MIB:.0f} MiB"
    )


if __name__ == "__main__":
    main()
