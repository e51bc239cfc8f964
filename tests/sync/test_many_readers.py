"""Many devices that pull the same object at once: what is read of the store for them.

The object is 1 GiB at half the number of blocks: 512, 8 in a part. As much is kept as 32 blocks take, and
six are on their way to each device, as where ten share a buffer memory of 256 MiB.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import replace

from tests.simulated import Call, Phase, SimulatedBucket
from tests.virtual_time import virtual_time
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.counters import Counters
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.recent_ranges import RequestedBlock
from untrusted_s3.sync.responder import Responder

pytestmark = virtual_time
SIZE, BLOCKS, OF_PART, KEPT, ON_THEIR_WAY = 1000, 512, 8, 32, 6
SETTINGS = replace(SyncSettings(), largest_get=16 * SIZE)
# Seconds that the store takes for a GET, and for each block of it; four are answered at a time.
GET, BLOCK = 0.002, 0.002
# Seconds that a block takes to the fastest device, on average.
LINK = 0.0005
# 150 for a GiB, of which this is a half.
GETS_OF_OBJECT = 75


class Pulled:
    """An object that devices pull."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.body = self.chance.randbytes(SIZE * BLOCKS)
        self.bucket = SimulatedBucket()
        self.bucket.store.put("object", self.body)
        self.bucket.gate = self._answer
        memory = KEPT * SIZE + 1024 * KEPT // OF_PART
        self.responder = Responder(self.bucket, Counters(), SETTINGS, memory)
        self._store = asyncio.Semaphore(4)

    async def _answer(self, call: Call, phase: Phase) -> None:
        if phase is Phase.REQUEST:
            async with self._store:
                await asyncio.sleep(GET + BLOCK * (call.size or 0) / SIZE)

    async def pull(self, order: list[int], slowness: float) -> None:
        """Pull all blocks in this order, and check them."""
        places, line = asyncio.Semaphore(ON_THEIR_WAY), asyncio.Lock()
        left = len(order)
        complete = asyncio.Event()

        def answer(number: int) -> Callable[[memoryview, int], asyncio.Future[None]]:
            async def take(data: memoryview, code: int) -> None:
                nonlocal left
                assert (bytes(data), code) == (self.body[number * SIZE :][:SIZE], pb.NO_ERROR)
                async with line:
                    await asyncio.sleep(LINK * slowness * self.chance.uniform(0.5, 1.5))
                places.release()
                left -= 1
                if not left:
                    complete.set()

            return lambda data, code: asyncio.ensure_future(take(data, code))

        for number in order:
            await places.acquire()
            end = min((number // OF_PART + 1) * OF_PART, BLOCKS) * SIZE
            self.responder.submit(RequestedBlock("object", number * SIZE, SIZE, end), answer(number))
        await complete.wait()

    @property
    def share_read(self) -> float:
        """What was read, as a multiple of the object."""
        return sum(call.size or 0 for call in self.bucket.calls) / len(self.body)

    @property
    def gets(self) -> int:
        return self.bucket.count("get")


def in_halves(first: int) -> list[int]:
    """The order of Syncthing: a device that shares a folder with one other begins with its own half of the blocks
    (v1.19.2 lib/model/blockpullreorderer.go)."""
    half = BLOCKS // 2
    return [(first * half + number) % BLOCKS for number in range(BLOCKS)]


async def test_ten_devices_at_once_have_each_byte_read_at_most_twice() -> None:
    """Their own lines differ by up to a factor of two, and are all faster than what the store gives.

    Those in front wait for the store, those behind get what is kept, so they come together again.
    """
    pulled = Pulled(2)
    slowness = [pulled.chance.uniform(1, 2) for _ in range(10)]
    await asyncio.gather(*(pulled.pull(in_halves(number % 2), slow) for number, slow in enumerate(slowness)))
    assert pulled.share_read <= 2.05, "once for each half that is the first, but for how it begins"
    assert pulled.gets <= 2 * GETS_OF_OBJECT
    await pulled.responder.stop()


async def test_one_device_takes_150_gets_a_gibibyte_at_most() -> None:
    pulled = Pulled(0)
    await pulled.pull(in_halves(1), 1.0)
    assert pulled.share_read <= 1.01
    assert pulled.gets <= GETS_OF_OBJECT
    await pulled.responder.stop()


async def test_who_reads_here_and_there_has_nothing_read_that_it_does_not_ask_for() -> None:
    """Beside others that read in order."""
    pulled = Pulled(1)
    order = list(range(0, BLOCKS, 3))
    pulled.chance.shuffle(order)
    await asyncio.gather(pulled.pull(order, 1.0), *(pulled.pull(in_halves(0), 1.0) for _ in range(3)))
    assert pulled.share_read <= 1.05 + 1.1 * len(order) / BLOCKS
    await pulled.responder.stop()
