"""Our requests for blocks: their responses, their window and their timeouts."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from tests.file_infos import SMALLEST_BLOCK, device, encrypted_name, file
from tests.sync.wire import Wire
from tests.virtual_time import settled, virtual_time
from untrusted_s3.accounts import Account
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.events import ResponseReceived, UnaskedResponseSkipped
from untrusted_s3.bep.framing import FrameDecoder, encode_frame, encode_hello
from untrusted_s3.bep.response import encode_response
from untrusted_s3.counters import Counters
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.requests_out import RequestsOut
from untrusted_s3.units import KIB, MIB

pytestmark = virtual_time

BLOCK = file("a").message.blocks[0]


class Asking:
    """Requests over a wire, and the peer's responses."""

    def __init__(self, settings: SyncSettings | None = None) -> None:
        settings = settings or SyncSettings()
        self.wire = Wire(device(1))
        self.wire.begin()
        self.memory = Account(1 << 30, guarantee=True)
        self.counters = Counters()
        window = self.memory.share(device(1), settings.request_window)
        self.paused = 0.0
        self.requests = RequestsOut(self.wire, window, self.counters, settings, lambda: self.paused)

    async def ask(self) -> asyncio.Task[memoryview]:
        """Request a block. The request is written if the window allows it."""
        task = asyncio.ensure_future(self.requests.request_block("f", encrypted_name("a"), 0, BLOCK))
        await settled()
        return task

    def respond(self, data: bytes, code: int = pb.NO_ERROR, number: int = -1) -> None:
        """Answer one of the requests, by default the last one."""
        request_id = self.wire.requests()[number].id
        self.requests.received(ResponseReceived(request_id, memoryview(data), code))


async def test_a_request_and_its_response() -> None:
    asking = Asking()
    task = await asking.ask()
    (request,) = asking.wire.requests()
    assert (request.folder, request.name, request.offset, request.size) == ("f", encrypted_name("a"), 0, BLOCK.size)
    assert (request.hash, request.block_no) == (BLOCK.hash, 0)
    asking.respond(bytes(SMALLEST_BLOCK))
    assert await task == bytes(SMALLEST_BLOCK)
    assert asking.counters.registry.get_sample_value("untrusted_s3_blocks_received_total") == 1
    assert asking.counters.registry.get_sample_value("untrusted_s3_block_bytes_received_total") == SMALLEST_BLOCK


@pytest.mark.parametrize(
    ("data", "code", "reason"),
    [
        (bytes(SMALLEST_BLOCK - 1), pb.NO_ERROR, "1063 bytes instead of 1064"),
        (bytes(SMALLEST_BLOCK + 1), pb.NO_ERROR, "1065 bytes"),
        (b"", pb.NO_ERROR, "0 bytes"),
        (b"", pb.NO_SUCH_FILE, "NO_SUCH_FILE"),
        (bytes(SMALLEST_BLOCK), pb.GENERIC, "GENERIC"),
        (b"", 77, "error 77"),
    ],
)
async def test_a_block_that_the_peer_does_not_give(data: bytes, code: int, reason: str) -> None:
    asking = Asking()
    task = await asking.ask()
    asking.respond(data, code)
    with pytest.raises(BlockUnavailable, match=reason):
        await task


async def test_responses_that_nobody_waits_for_are_dropped() -> None:
    asking = Asking()
    task = await asking.ask()
    asking.requests.received(ResponseReceived(asking.wire.requests()[0].id + 1000, memoryview(bytes(10)), pb.NO_ERROR))
    asking.respond(bytes(SMALLEST_BLOCK))
    asking.respond(bytes(10))
    assert await task == bytes(SMALLEST_BLOCK)
    second = await asking.ask()
    asking.respond(bytes(SMALLEST_BLOCK))
    await second


async def test_a_block_that_never_comes() -> None:
    asking = Asking(SyncSettings(request_timeout=5.0))
    with pytest.raises(BlockUnavailable, match="no answer within 5 s"):
        await (await asking.ask())
    assert asking.memory.used == 0
    assert len(asking.requests) == 0


async def test_no_time_passes_while_the_peer_is_not_read_from() -> None:
    asking = Asking(SyncSettings(request_timeout=5.0))
    first, second = await asking.ask(), await asking.ask()
    await asyncio.sleep(4)
    asking.paused = 100.0
    await asyncio.sleep(100)
    asking.respond(bytes(SMALLEST_BLOCK), number=0)
    assert await first == bytes(SMALLEST_BLOCK)
    asking.paused = 110.0
    await asyncio.sleep(14)
    assert not second.done()
    await asyncio.sleep(2)
    with pytest.raises(BlockUnavailable, match="no answer"):
        await second


async def test_a_request_that_was_given_up_is_forgotten_by_the_connection() -> None:
    asking = Asking(SyncSettings(request_timeout=5.0))
    task = await asking.ask()
    request_id = asking.wire.requests()[0].id
    with pytest.raises(BlockUnavailable):
        await task
    hello, config = encode_hello(pb.Hello()), encode_frame(pb.CLUSTER_CONFIG, b"")
    list(asking.wire.bep.receive_data(hello + config, 0.0))
    frame = b"".join(encode_response(request_id, bytes(SMALLEST_BLOCK), pb.NO_ERROR))
    assert list(asking.wire.bep.receive_data(frame, 0.0)) == [UnaskedResponseSkipped()]


async def test_over_a_slow_line_later_blocks_wait_for_earlier_ones() -> None:
    asking = Asking(SyncSettings(request_timeout=0.2, slowest_peer=10.0 * SMALLEST_BLOCK))
    tasks = [await asking.ask() for _ in range(8)]
    for number in range(8):
        await asyncio.sleep(0.1)
        asking.respond(bytes(SMALLEST_BLOCK), number=number)
    for task in tasks:
        assert len(await task) == SMALLEST_BLOCK
    with pytest.raises(BlockUnavailable, match="no answer"):
        await (await asking.ask())


async def test_requests_wait_for_the_window() -> None:
    asking = Asking(SyncSettings(request_window=2 * SMALLEST_BLOCK))
    tasks = [await asking.ask() for _ in range(3)]
    assert len(asking.wire.requests()) == len(asking.requests) == 2
    asking.respond(bytes(SMALLEST_BLOCK), number=0)
    await settled()
    assert len(asking.wire.requests()) == 3
    assert [task.done() for task in tasks] == [True, False, False]
    for number in (1, 2):
        asking.respond(bytes(SMALLEST_BLOCK), number=number)
    await asyncio.gather(*tasks)
    assert asking.memory.used == 0


async def test_all_requests_fail_when_the_connection_is_gone() -> None:
    """Requests that wait for the window, and later ones, fail too."""
    asking = Asking(SyncSettings(request_window=2 * SMALLEST_BLOCK))
    tasks = [await asking.ask() for _ in range(4)]
    asking.requests.stop()
    tasks.append(await asking.ask())
    for task in tasks:
        with pytest.raises(BlockUnavailable, match="gone"):
            await task
    assert len(asking.wire.requests()) == 2
    assert not asking.memory.usage()


async def test_a_request_that_is_cancelled_frees_the_window() -> None:
    asking = Asking(SyncSettings(request_window=2 * SMALLEST_BLOCK))
    tasks = [await asking.ask() for _ in range(3)]
    tasks[0].cancel()
    tasks[2].cancel()
    await settled()
    assert asking.memory.used == SMALLEST_BLOCK
    asking.respond(bytes(SMALLEST_BLOCK), number=0)
    asking.respond(bytes(SMALLEST_BLOCK), number=1)
    await tasks[1]
    assert asking.memory.used == 0


# Slow lines


class Line:
    """A peer that answers in order over a line of so many bytes a second."""

    def __init__(self, asking: Asking, rate: float) -> None:
        self.asking = asking
        self.rate = rate
        self.most_under_way = 0
        self.requested = 0

    async def run(self) -> None:
        decoder, read = FrameDecoder(), 0
        waiting: deque[pb.Request] = deque()
        while True:
            written = self.asking.wire.written
            for frame in decoder.receive_data(b"".join(written[read:])):
                if frame.type == pb.REQUEST:
                    waiting.append(pb.Request.FromString(bytes(frame.body)))
            read = len(written)
            self.most_under_way = max(self.most_under_way, sum(request.size for request in waiting))
            if not waiting:
                await asyncio.sleep(0.05)
                continue
            request = waiting.popleft()
            left = request.size
            while left:
                piece = min(left, max(int(self.rate / 2), 1))
                await asyncio.sleep(piece / self.rate)
                self.asking.wire.bytes_received += piece
                left -= piece
            self.asking.requests.received(ResponseReceived(request.id, memoryview(bytes(request.size)), pb.NO_ERROR))
            self.asking.wire.written, read = self.asking.wire.written[read:], 0
            self.requested += 1


async def pulled(asking: Asking, line: Line, size: int, count: int) -> float:
    """Request all blocks at once over the line. Return the seconds until all are here."""
    block = pb.BlockInfo(size=size, hash=BLOCK.hash)
    begun = asyncio.get_running_loop().time()
    running = asyncio.ensure_future(line.run())
    blocks = await asyncio.gather(
        *(asking.requests.request_block("f", encrypted_name("a"), 0, block) for _ in range(count))
    )
    running.cancel()
    assert [len(block) for block in blocks] == [size] * count
    return asyncio.get_running_loop().time() - begun


@pytest.mark.parametrize("rate", [2 * KIB, 8 * KIB, 16 * KIB, 29 * KIB])
@pytest.mark.parametrize(
    ("size", "count"),
    [(128 * KIB + 40, 48), (16 * MIB + 40, 2), (SMALLEST_BLOCK, 1000)],
    ids=["128 KiB", "16 MiB", "1 KiB"],
)
async def test_over_a_slow_line_everything_comes_and_nothing_is_requested_twice(
    rate: int, size: int, count: int
) -> None:
    asking = Asking()
    line = Line(asking, rate)
    seconds = await pulled(asking, line, size, count)
    assert line.requested == count
    assert seconds <= 1.05 * count * size / rate + 1
    assert line.most_under_way <= max(size, SyncSettings().first_request_window + 40 * rate)
    assert asking.memory.used == 0


async def test_over_a_fast_line_the_window_opens() -> None:
    asking = Asking()
    line = Line(asking, 100 * MIB)
    seconds = await pulled(asking, line, 128 * KIB + 40, 800)
    assert seconds < 2.5
    assert line.most_under_way > 16 * MIB


async def test_a_request_that_is_passed_over_is_lost() -> None:
    asking = Asking()
    lost = await asking.ask()
    for _ in range(1000):
        task = await asking.ask()
        asking.respond(bytes(SMALLEST_BLOCK))
        await task
        asking.wire.written = asking.wire.written[:0]
        await asyncio.sleep(1)
        if lost.done():
            break
    with pytest.raises(BlockUnavailable, match="no answer within 1"):
        await lost


async def test_bytes_that_are_no_block_do_not_keep_a_request_waiting_for_ever() -> None:
    asking = Asking()
    task = await asking.ask()
    for _ in range(400):
        asking.wire.bytes_received += 40  # a Ping now and then, or an index
        await asyncio.sleep(1)
    with pytest.raises(BlockUnavailable, match="no answer"):
        await task
