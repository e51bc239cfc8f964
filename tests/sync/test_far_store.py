"""How long a store that is far away makes a folder wait, in virtual time: the machine's speed does not count."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from tests.file_infos import device, file
from tests.simulated import Call, Phase, SimulatedBucket
from tests.sync.fakes import FakeSource, new_folder, working
from tests.virtual_time import virtual_time
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.counters import Counters
from untrusted_s3.settings import ReadSettings, SyncSettings
from untrusted_s3.store.adaptive_limit import limit_of_request
from untrusted_s3.store.bucket import Buffer
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.recent_ranges import RequestedBlock
from untrusted_s3.sync.responder import Responder
from untrusted_s3.units import MIB
from untrusted_s3.vault.concurrency import for_each
from untrusted_s3.vault.read_pipeline import ReadPipeline

pytestmark = virtual_time

Result = TypeVar("Result")
A = device(1)
ROUND_TRIP = 0.04
FILES = 1000


class Whole(NamedTuple):
    """A file that is read by one GET."""

    size: int


class Read(NamedTuple):
    """What came of it."""

    memory: int


class FarBucket(SimulatedBucket):
    """A store that answers each request after one round trip, however many there are, and tells the request's limit."""

    def __init__(self) -> None:
        super().__init__(gate=self._wait)

    async def _wait(self, call: Call, phase: Phase) -> None:
        if phase is Phase.REQUEST:
            await asyncio.sleep(ROUND_TRIP)

    async def put(self, key: str, body: Sequence[Buffer], *, if_none_match: bool = False, lifetime: int = 900) -> None:
        size = sum(map(len, body))
        await _told(super().put(key, body, if_none_match=if_none_match, lifetime=lifetime), size)

    async def get(self, key: str, start: int = 0, size: int | None = None, *, max_size: int = 128 << 20) -> bytes:
        return await _told(super().get(key, start, size, max_size=max_size), size or 0)


async def _told(request: Awaitable[Result], size: int) -> Result:
    limit, began = limit_of_request(), asyncio.get_running_loop().time()
    result = await request
    if limit is not None:
        limit.answered(size, began)
    return result


def seconds() -> float:
    return asyncio.get_running_loop().time()


async def test_small_files_come_in(tmp_path: Path) -> None:
    """Log segments and what is asked once for a folder hold up no file: 1,200 a second and more."""
    folder = new_folder(FolderRecord("folder", "", b"token"), FarBucket(), tmp_path)
    await folder.open()
    async with working(folder):
        folder.start_index(A, IndexState(7, FILES))
        folder.add_source(A, FakeSource())
        began = seconds()
        raw = tuple(file(number, sequence=number, sizes=(4136,)).raw for number in range(1, FILES + 1))
        await folder.take_index(A, 7, IndexReceived("folder", raw, True, FILES, 0))
        while folder.own_index.max_sequence < FILES:
            await asyncio.sleep(ROUND_TRIP / 4)
        assert seconds() - began < FILES / 1200


async def test_small_files_are_served() -> None:
    """1,500 a second, where a device asks for as many at once as there are."""
    bucket = FarBucket()
    responder = Responder(bucket, Counters(), SyncSettings(), MIB)
    answered = 0

    async def answer(data: memoryview, code: int) -> None:
        nonlocal answered
        answered += len(data) == 4136

    began = seconds()
    for number in range(FILES):
        bucket.store.put(str(number), bytes(5000))
        responder.submit(RequestedBlock(str(number), 0, 4136, 5000), answer)
    while answered < FILES:
        await asyncio.sleep(ROUND_TRIP / 4)
    await responder.stop()
    assert seconds() - began < FILES / 1500


async def test_small_files_are_read_with_the_password() -> None:
    """2,000 a second."""
    settings = ReadSettings()
    bucket = FarBucket()
    began = seconds()
    async with ReadPipeline(settings) as pipeline:

        def read_whole(wanted: Whole, data: bytes) -> Read:
            return Read(len(data))

        async def read(number: int) -> None:
            async for _ in pipeline.read([Whole(4136)], lambda one: bucket.get(str(number), 0, one.size), read_whole):
                pass

        for number in range(FILES):
            bucket.store.put(str(number), bytes(5000))
        await for_each(range(FILES), read, settings.concurrent_files)
    assert seconds() - began < FILES / 2000
