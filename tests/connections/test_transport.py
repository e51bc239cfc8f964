"""Transports over loopback: what the handler hears, and how connections end."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

import pytest

from tests.connections.loopback import DEFAULTS, OURS, THEIRS, Recorder, connected, now
from tests.file_infos import file
from tests.virtual_time import advance, paused_time
from tests.waiting import give_a_chance, until
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.constants import MAX_MESSAGE_SIZE
from untrusted_s3.bep.framing import encode_frame
from untrusted_s3.connections.admission import UnadmittedConnections
from untrusted_s3.errors import LocalProtocolError, RemoteProtocolError, TLSFailed, TooManyConnections
from untrusted_s3.identity.certificate import Identity
from untrusted_s3.settings import ConnectionSettings
from untrusted_s3.units import KIB, MIB


@asynccontextmanager
async def a_pair(
    theirs: Identity = THEIRS,
    *,
    ours_polite: bool = True,
    theirs_polite: bool = True,
    settings: ConnectionSettings = DEFAULTS,
) -> AsyncIterator[tuple[Recorder, Recorder]]:
    """Our end, which accepted, and theirs, which dialed."""
    ours = Recorder(OURS, dialed=False, polite=ours_polite, settings=settings)
    other = Recorder(theirs, dialed=True, polite=theirs_polite, settings=settings)
    async with connected(ours.transport, other.transport):
        yield ours, other


class RawPeer(asyncio.Protocol):
    """Something on the other side that speaks no TLS."""

    def __init__(self, *says: bytes) -> None:
        self.says = says
        self.received = b""
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.writelines(self.says)

    def data_received(self, data: bytes) -> None:
        self.received += data

    def connection_lost(self, exc: Exception | None) -> None:
        self.gone = True


async def in_conversation(ours: Recorder, theirs: Recorder) -> None:
    for end in (ours, theirs):
        await end.hear(events.HelloReceived)
    for end in (ours, theirs):
        end.transport.write(end.transport.bep.cluster_config([], now()))
    for end in (ours, theirs):
        await end.hear(events.ClusterConfigReceived)


async def test_both_sides_learn_who_the_other_is() -> None:
    async with a_pair() as (ours, theirs):
        hello = await ours.hear(events.HelloReceived)
        await theirs.hear(events.HelloReceived)
        assert (hello.device_name, hello.client_name, hello.client_version) == ("name", "test", "v1")
        assert ours.transport.peer_device_id == THEIRS.device_id
        assert theirs.transport.peer_device_id == OURS.device_id
        assert ours.transport.address.startswith("tcp://127.0.0.1:")
        assert ours.transport.is_open
        assert ours.transport.bytes_received == theirs.transport.bytes_sent > 0


async def test_an_orderly_close() -> None:
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        ours.transport.close("going home")
        assert (await theirs.hear(events.CloseReceived)).reason == "going home"
        assert await ours.end() is None
        assert await theirs.end() is None
        assert not ours.transport.is_open
        ours.transport.write(b"dropped")
        ours.transport.close("again")
        ours.transport.pause_reading()
        ours.transport.resume_reading()
        await ours.transport.drained()
    assert (len(ours.ends), len(theirs.ends)) == (1, 1)


async def test_a_close_after_which_the_peer_ends_the_connection() -> None:
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        ours.transport.say_close("going home")
        assert (await theirs.hear(events.CloseReceived)).reason == "going home"
        assert not ours.transport.is_open
        ours.transport.write(b"dropped")
        await give_a_chance()
        assert not ours.ends and not theirs.ends
        theirs.transport.close("")
        assert await ours.end() is None
        assert await theirs.end() is None


async def test_a_close_that_the_peer_would_not_understand_yet_is_the_end() -> None:
    async with a_pair(theirs_polite=False) as (ours, theirs):
        await until(lambda: theirs.is_secured)
        ours.transport.say_close("going home")
        await ours.end()
        await theirs.end()


async def test_a_failure_is_told_to_the_peer() -> None:
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        error = RemoteProtocolError("what you say makes no sense")
        ours.transport.fail(error)
        ours.transport.fail(RemoteProtocolError("a later one"))
        assert (await theirs.hear(events.CloseReceived)).reason == str(error)
        assert await ours.end() is error


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x2e\xa7\xd9\x0b\x00\x00", b"\xff"])
async def test_garbage_instead_of_tls(garbage: bytes) -> None:
    ours, peer = Recorder(OURS, dialed=False), RawPeer(garbage)
    async with connected(ours.transport, peer):
        assert isinstance(await ours.end(), TLSFailed)
        await until(lambda: peer.gone)
    assert not ours.heard and not ours.is_secured


@pytest.mark.parametrize("garbage", [b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x01\x40\x00" + bytes(0x4000)])
async def test_garbage_that_looks_like_tls(garbage: bytes) -> None:
    ours, peer = Recorder(OURS, dialed=False), RawPeer(garbage)
    async with connected(ours.transport, peer):
        assert isinstance(await ours.end(), TLSFailed)
        await until(lambda: peer.gone)


async def test_garbage_instead_of_hello() -> None:
    async with a_pair(theirs_polite=False) as (ours, theirs):
        await until(lambda: theirs.is_secured)
        theirs.transport.write(b"this is no Hello")
        error = await ours.end()
        assert isinstance(error, RemoteProtocolError)
        assert "does not say Hello" in str(error)


@pytest.mark.parametrize("tail", [b"\x00", b"\x00\x02\x08\x05", b"\x00\x02\x08\x05\x00\x00\x00\x10half"])
async def test_closed_in_the_middle_of_a_message(tail: bytes) -> None:
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        theirs.transport.write(tail)
        theirs.transport.end()
        error = await ours.end()
    assert isinstance(error, RemoteProtocolError)
    assert "in the middle of a message" in str(error)


async def test_closed_before_hello() -> None:
    async with a_pair(theirs_polite=False) as (ours, theirs):
        await until(lambda: theirs.is_secured)
        theirs.transport.end()
        error = await ours.end()
    assert isinstance(error, RemoteProtocolError)
    assert "before its Hello" in str(error)


async def test_cut_off_in_the_middle() -> None:
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        theirs.transport.abort()
        assert await ours.end() is not None
        assert await theirs.end() is None
    assert len(ours.ends) == 1


async def test_eof_before_the_handshake() -> None:
    ours, peer = Recorder(OURS, dialed=False), RawPeer()
    async with connected(ours.transport, peer):
        peer.transport.write_eof()
        assert isinstance(await ours.end(), TLSFailed)


@paused_time
@pytest.mark.parametrize("stage", ["no TLS", "no Hello"])
async def test_who_says_no_hello_must_go(stage: str) -> None:
    ours = Recorder(OURS, dialed=False)
    silent = Recorder(THEIRS, dialed=True, polite=False)
    async with connected(ours.transport, RawPeer() if stage == "no TLS" else silent.transport):
        await until(lambda: bool(ours.transport.address) and ours.is_secured == (stage == "no Hello"))
        await advance(0.99 * DEFAULTS.handshake_timeout)
        assert ours.ends == []
        await advance(0.02 * DEFAULTS.handshake_timeout)
        error = await ours.end()
    assert isinstance(error, RemoteProtocolError)
    assert "no Hello within 20 s" in str(error)


@paused_time
async def test_silence_after_hello_is_no_handshake_timeout() -> None:
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        await advance(2 * DEFAULTS.handshake_timeout)
        assert ours.ends == theirs.ends == []


@paused_time
async def test_pings_go_out() -> None:
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        for number in (1, 2):
            await advance(DEFAULTS.ping_interval)
            await ours.hear(events.PingReceived, number)


@paused_time
async def test_silence_ends_the_connection() -> None:
    ours = Recorder(OURS, dialed=False)
    theirs = Recorder(THEIRS, dialed=True, settings=ConnectionSettings(ping_interval=1e6, stall_timeout=1e7))
    async with connected(ours.transport, theirs.transport):
        await in_conversation(ours, theirs)
        await advance(DEFAULTS.ping_interval)
        await theirs.hear(events.PingReceived)
        await advance(DEFAULTS.receive_timeout)
        error = await ours.end()
    assert isinstance(error, RemoteProtocolError)
    assert "nothing received" in str(error)


async def test_what_follows_the_hello_waits_until_the_peer_is_admitted() -> None:
    async with a_pair(ours_polite=False) as (ours, theirs):
        await until(lambda: ours.is_secured)
        ours.transport.write(ours.transport.bep.hello("name", "test", "v1", 1, now()))
        await theirs.hear(events.HelloReceived)
        await ours.hear(events.HelloReceived)
        theirs.transport.write(theirs.transport.bep.cluster_config([], now()))
        await give_a_chance()
        assert ours.all(events.ClusterConfigReceived) == []
        ours.transport.admit()
        await ours.hear(events.ClusterConfigReceived)


async def test_a_message_before_its_turn_ends_the_connection() -> None:
    async with a_pair() as (ours, theirs):
        await ours.hear(events.HelloReceived)
        theirs.transport.write(b"\x00\x02\x08\x03\x00\x00\x00\x00")  # a request before the cluster config
        error = await ours.end()
        assert isinstance(error, RemoteProtocolError)
        with pytest.raises(LocalProtocolError):
            ours.transport.bep.cluster_config([], now())


async def test_blocks_pass_whole_in_both_directions() -> None:
    data = memoryview(bytes(range(256)) * 4096)
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        for end in (ours, theirs):
            for number in range(8):
                end.transport.write(*end.transport.bep.response(number, data, pb.NO_ERROR, now()))
        for end in (ours, theirs):
            await end.hear(events.ResponseReceived, 8)
            assert [response.id for response in end.all(events.ResponseReceived)] == list(range(8))
            assert all(response.data == data for response in end.all(events.ResponseReceived))


async def test_from_a_peer_that_sends_tiny_messages_little_is_read_at_once() -> None:
    """The loop is not held for longer than the messages of one read take."""
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        pings = encode_frame(pb.PING, b"") * 100_000
        theirs.transport.write(pings)
        await ours.hear(events.PingReceived, 100_000)
        assert len(ours.transport.get_buffer(-1)) == 16 * KIB
        theirs.transport.write(encode_frame(pb.DOWNLOAD_PROGRESS, bytes(4 * MIB)))
        await ours.hear(events.DownloadProgressReceived)
        assert len(ours.transport.get_buffer(-1)) == 256 * KIB


async def test_a_slow_reader_is_waited_for() -> None:
    data = memoryview(bytes(1 << 20))
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        theirs.transport.pause_reading()
        sent = 0

        async def send() -> None:
            nonlocal sent
            for number in range(64):
                ours.transport.write(*ours.transport.bep.response(number, data, pb.NO_ERROR, now()))
                sent += 1
                await ours.transport.drained()

        sending = asyncio.ensure_future(send())
        stopped_at = -1
        while sent != stopped_at:
            stopped_at = sent
            await give_a_chance()
        assert 0 < sent < 64, "the sender waits"
        theirs.transport.resume_reading()
        await sending
        await theirs.hear(events.ResponseReceived, 64)


async def test_who_waits_for_a_slow_reader_learns_of_the_end() -> None:
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        theirs.transport.pause_reading()
        ours.transport.write(bytes(32 << 20))
        waiting = asyncio.ensure_future(ours.transport.drained())
        await give_a_chance()
        assert not waiting.done()
        ours.transport.abort()
        await until(waiting.done)


@paused_time
async def test_a_reader_that_never_reads_cannot_hold_a_closing_connection() -> None:
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        theirs.transport.pause_reading()
        ours.transport.write(bytes(32 << 20))
        ours.transport.close("no patience")
        await advance(DEFAULTS.close_timeout)
        await ours.end()


async def test_a_size_over_the_cap_is_refused_before_it_comes() -> None:
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        theirs.transport.write(b"\x00\x02\x08\x05" + struct.pack(">I", MAX_MESSAGE_SIZE + 1))
        error = await ours.end()
    assert isinstance(error, RemoteProtocolError)
    assert "over the cap" in str(error)


async def test_an_index_arrives_as_it_was_sent() -> None:
    raw = file("a", sequence=1).raw + b"\xfa\x7c\x01z"
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        message = theirs.transport.bep.index("f", [raw], update=False, prev_sequence=0, last_sequence=1, now=now())
        for byte in message:
            theirs.transport.write(bytes([byte]))
        assert (await ours.hear(events.IndexReceived)).files == (raw,)


@paused_time
async def test_a_trickle_does_not_put_the_end_of_the_handshake_off() -> None:
    ours, peer = Recorder(OURS, dialed=False), RawPeer()
    async with connected(ours.transport, peer):
        # The start of a TLS record of 16 KiB, then one byte after the other
        peer.transport.write(b"\x16\x03\x01\x40\x00")
        for second in range(round(DEFAULTS.handshake_timeout)):
            assert not ours.ends
            peer.transport.write(b"\x01")
            await until(lambda: ours.transport.bytes_received == 6 + second)  # noqa: B023
            await advance(1)
        assert "no Hello within" in str(await ours.end())


@paused_time
async def test_who_stops_to_read_is_given_up() -> None:
    async with a_pair(settings=ConnectionSettings(receive_timeout=1e9)) as (ours, theirs):
        await in_conversation(ours, theirs)
        theirs.transport.pause_reading()
        ours.transport.write(bytes(32 << 20))
        await advance(0.9 * DEFAULTS.stall_timeout)
        assert ours.ends == []
        await advance(1e6)  # beyond the time that a slow peer would need for what the system has taken
        assert "reads too slowly" in str(await ours.end())


async def test_what_the_handler_hears_of_a_message_that_is_not_complete() -> None:
    async with a_pair() as (ours, theirs):
        await in_conversation(ours, theirs)
        theirs.transport.write(b"\x00\x02\x08\x06\x00\x00\x10\x00" + bytes(4000))
        await until(lambda: ours.is_buffered == 4000)
        theirs.transport.write(bytes(96))
        await until(lambda: ours.is_buffered == 0)


async def test_a_connection_is_unadmitted_until_it_is_admitted_and_again_while_it_closes() -> None:
    table = UnadmittedConnections(10, log_interval=1000)
    ours = Recorder(OURS, dialed=False, polite=False, unadmitted=table)
    theirs = Recorder(THEIRS, dialed=True)
    async with connected(ours.transport, theirs.transport):
        await ours.hear(events.HelloReceived)
        assert len(table) == 1
        ours.transport.admit()
        assert len(table) == 0
        ours.transport.close("bye")
        assert len(table) == 1
        await ours.end()
        assert len(table) == 0


async def test_one_that_is_cut() -> None:
    error = TooManyConnections("too many")
    async with a_pair(theirs_polite=False) as (ours, _):
        await until(lambda: ours.is_secured)
        ours.transport.evict(error)
        assert await ours.end() is error
