"""Hello and message frames in any pieces, and their limits."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable

import lz4.block
import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import constants
from untrusted_s3.bep.framing import (
    Frame,
    FrameDecoder,
    HelloDecoder,
    decompress,
    encode_frame,
    encode_hello,
    frame_head,
    lz4_start,
)
from untrusted_s3.errors import LocalProtocolError, RemoteProtocolError
from untrusted_s3.units import MIB

MAGIC = bytes.fromhex("2EA7D90B")


def compress(body: bytes) -> bytes:
    size: bytes = len(body).to_bytes(4, "big")
    block: bytes = lz4.block.compress(body, store_size=False)
    return size + block


def unpack(data: bytes | bytearray) -> bytes:
    return decompress(data, constants.MAX_INDEX_SIZE)


def frame_bytes(header: bytes, message: bytes) -> bytes:
    return len(header).to_bytes(2, "big") + header + len(message).to_bytes(4, "big") + message


def header(message_type: int, compression: int = pb.NONE) -> bytes:
    # An open enum: the stubs name only the values that we know.
    return b"\x08" + bytes([message_type]) + b"\x10" + bytes([compression])


def memory_of(action: Callable[[], object]) -> int:
    """The most bytes that were held at once during `action`."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


# Hello


def test_hello_layout() -> None:
    hello = pb.Hello(device_name="nas", client_name="c", client_version="v1", num_connections=1, timestamp=5)
    data = encode_hello(hello)
    assert data[:4] == MAGIC
    assert int.from_bytes(data[4:6], "big") == len(data) - 6
    assert pb.Hello.FromString(data[6:]) == hello


@given(name=st.text(max_size=50), trailing=st.binary(max_size=40), cuts=st.lists(st.integers(0, 10_000), max_size=8))
def test_hello_in_any_pieces(name: str, trailing: bytes, cuts: list[int]) -> None:
    hello = pb.Hello(device_name=name, timestamp=1)
    encoded = encode_hello(hello)
    decoder = HelloDecoder()
    assert decoder.empty
    pieces = split(encoded, cuts)
    for piece in pieces[:-1]:
        received = decoder.receive_data(piece)
        if received is not None:  # the last piece is empty
            assert received == (hello, b"")
            return
    assert decoder.receive_data(pieces[-1] + trailing) == (hello, trailing)


def test_hello_byte_by_byte() -> None:
    encoded = encode_hello(pb.Hello(device_name="x", timestamp=1))
    decoder = HelloDecoder()
    for byte in encoded[:-1]:
        assert decoder.receive_data(bytes([byte])) is None
        assert not decoder.empty
    assert decoder.receive_data(encoded[-1:]) == (pb.Hello(device_name="x", timestamp=1), b"")


def test_hello_may_be_empty() -> None:
    assert HelloDecoder().receive_data(MAGIC + b"\0\0rest") == (pb.Hello(), b"rest")


def hello_of_size(size: int) -> pb.Hello:
    hello = pb.Hello(device_name="n" * (size - 4))
    assert len(hello.SerializeToString()) == size
    return hello


def test_hello_cap_when_receiving() -> None:
    largest = hello_of_size(constants.MAX_HELLO_SIZE)
    assert HelloDecoder().receive_data(encode_hello(largest)) == (largest, b"")
    with pytest.raises(RemoteProtocolError, match="32768 bytes is over the cap"):
        HelloDecoder().receive_data(MAGIC + b"\x80\x00")


def test_hello_cap_when_sending() -> None:
    with pytest.raises(LocalProtocolError, match="too long"):
        encode_hello(hello_of_size(constants.MAX_HELLO_SIZE + 1))


@pytest.mark.parametrize("magic", ["00010001", "00010000", "9F79BC40"])
def test_hello_of_old_versions(magic: str) -> None:
    with pytest.raises(RemoteProtocolError, match=r"older than Syncthing 0\.14"):
        HelloDecoder().receive_data(bytes.fromhex(magic))


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-OpenSSH_9.2\r\n", bytes(4), bytes.fromhex("2EA7D90C0000")]
)
def test_hello_with_another_magic(garbage: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match=f"first bytes {garbage[:4].hex()}"):
        HelloDecoder().receive_data(garbage)


def test_hello_that_is_no_protobuf() -> None:
    with pytest.raises(RemoteProtocolError, match="invalid Hello"):
        HelloDecoder().receive_data(MAGIC + b"\0\x02\x0a\x7f")


# Frames

frames = st.lists(
    st.tuples(st.integers(0, 127), st.booleans(), st.binary(max_size=200) | st.integers(0, 70_000).map(bytes)),
    max_size=6,
)


@given(messages=frames, trailing=st.binary(max_size=1), cuts=st.lists(st.integers(0, 10_000_000), max_size=12))
def test_frames_in_any_pieces(messages: list[tuple[int, bool, bytes]], trailing: bytes, cuts: list[int]) -> None:
    stream = b""
    for message_type, compressed, body in messages:
        if compressed:
            stream += frame_bytes(header(message_type, pb.LZ4), compress(body))
        else:
            stream += encode_frame(message_type, body)
    expected = [Frame(message_type, body) for message_type, _, body in messages]
    decoder = FrameDecoder()
    decoded = [frame for piece in split(stream, cuts) for frame in decoder.receive_data(piece)]
    assert decoded == expected
    assert not decoder.in_message
    assert list(decoder.receive_data(trailing)) == []
    assert decoder.in_message == bool(trailing)


@pytest.mark.parametrize("body", [b"", b"x", bytes(300)])
def test_frames_byte_by_byte(body: bytes) -> None:
    stream = encode_frame(pb.REQUEST, body) + encode_frame(pb.CLUSTER_CONFIG, body)
    decoder = FrameDecoder()
    decoded = []
    for position, byte in enumerate(stream, 1):
        for frame in decoder.receive_data(bytes([byte])):
            decoded.append((position, frame))
    first_end = len(encode_frame(pb.REQUEST, body))
    assert decoded == [(first_end, Frame(pb.REQUEST, body)), (len(stream), Frame(pb.CLUSTER_CONFIG, body))]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_frames_do_not_share_the_memory_they_came_in(kind: Callable[[bytearray], bytes]) -> None:
    source = bytearray(encode_frame(pb.PING, b"body"))
    (frame,) = FrameDecoder().receive_data(kind(source))
    source[:] = bytes(len(source))
    assert frame.body == b"body"


def test_in_message_at_every_position() -> None:
    stream = encode_frame(pb.PING, b"abc")
    for length in range(len(stream) + 1):
        decoder = FrameDecoder()
        list(decoder.receive_data(stream[:length]))
        assert decoder.in_message == (0 < length < len(stream)), length


@given(message_type=st.sampled_from(pb.MessageType.values()), size=st.integers(0, 5000))
def test_frame_head_is_what_protobuf_writes(message_type: pb.MessageType, size: int) -> None:
    expected = pb.Header(type=message_type).SerializeToString()
    head = len(expected).to_bytes(2, "big") + expected + size.to_bytes(4, "big")
    assert frame_head(message_type, size) == head
    assert encode_frame(message_type, bytes(size)) == head + bytes(size)


def test_frame_cap_when_sending() -> None:
    assert frame_head(pb.RESPONSE, 500_000_000).endswith((500_000_000).to_bytes(4, "big"))
    with pytest.raises(LocalProtocolError, match="500000001 bytes is over the cap"):
        frame_head(pb.RESPONSE, 500_000_001)


def test_header_length_cap() -> None:
    largest = pb.Header(type=pb.PING).SerializeToString()
    largest += b"\x1a\xf9\xff\x01" + bytes(0x7FF9)  # an unknown field fills it up
    assert len(largest) == constants.MAX_HEADER_SIZE
    assert list(FrameDecoder().receive_data(frame_bytes(largest, b""))) == [Frame(pb.PING, b"")]
    with pytest.raises(RemoteProtocolError, match="header of 32768 bytes is over the cap"):
        list(FrameDecoder().receive_data(b"\x80\x00"))


@pytest.mark.parametrize("size", [500_000_001, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_message_over_the_cap_is_refused_from_the_length_word_alone(size: int) -> None:
    start = b"\0\x02\x08\x01" + size.to_bytes(4, "big")

    def receive() -> None:
        decoder = FrameDecoder()
        assert list(decoder.receive_data(start[:-1])) == []
        with pytest.raises(RemoteProtocolError, match=f"message of {size} bytes is over the cap"):
            list(decoder.receive_data(start[-1:]))

    assert memory_of(receive) < 1 * MIB


def test_message_at_the_cap_holds_only_what_has_come() -> None:
    decoder = FrameDecoder()
    start = b"\0\x02\x08\x01" + constants.MAX_INDEX_SIZE.to_bytes(4, "big") + bytes(1000)
    assert memory_of(lambda: list(decoder.receive_data(start))) < 1 * MIB
    assert decoder.in_message


def test_messages_before_a_fault_still_come() -> None:
    stream = encode_frame(pb.PING, b"") + encode_frame(pb.CLOSE, b"bye") + b"\xff\xff"
    decoded = []
    with pytest.raises(RemoteProtocolError):
        for frame in FrameDecoder().receive_data(stream):
            decoded.append(frame)
    assert decoded == [Frame(pb.PING, b""), Frame(pb.CLOSE, b"bye")]


def test_header_that_is_no_protobuf() -> None:
    with pytest.raises(RemoteProtocolError, match="invalid Header"):
        list(FrameDecoder().receive_data(b"\0\x01\xff"))


def test_unknown_compression() -> None:
    with pytest.raises(RemoteProtocolError, match="unknown message compression 2"):
        list(FrameDecoder().receive_data(frame_bytes(header(pb.PING, 2), b"")))


# LZ4


@given(body=st.binary(max_size=2000) | st.integers(0, 1_000_000).map(bytes))
def test_lz4_round_trip(body: bytes) -> None:
    assert unpack(compress(body)) == body
    assert unpack(bytearray(compress(body))) == body


@given(st.binary(max_size=64))
def test_lz4_garbage_is_the_peers_fault(data: bytes) -> None:
    try:
        body = unpack(data)
    except RemoteProtocolError:
        return
    assert len(body) == int.from_bytes(data[:4], "big")


@pytest.mark.parametrize("data", [b"", b"\0", b"\0\0\0"])
def test_lz4_without_its_size(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="without its size"):
        unpack(data)


@pytest.mark.parametrize("size", [(64 << 20) + 1, 500_000_000, 0xFFFFFFFF])
def test_lz4_size_over_the_cap(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"LZ4 message of {size} bytes is over the cap"):
        unpack(size.to_bytes(4, "big") + bytes(1000))


@pytest.mark.parametrize("length", [0, 1, 1000, 260_000])
def test_lz4_size_that_cannot_be_is_refused_before_memory_is_taken(length: int) -> None:
    data = constants.MAX_INDEX_SIZE.to_bytes(4, "big") + bytes(length)

    def attempt() -> None:
        with pytest.raises(RemoteProtocolError, match="cannot hold the 67108864"):
            unpack(data)

    assert memory_of(attempt) < 1 * MIB


def test_lz4_at_its_highest_ratio_is_accepted() -> None:
    body = bytes(20_000_000)
    compressed = compress(body)
    assert len(body) / len(compressed) > 254
    assert unpack(compressed) == body


@pytest.mark.parametrize("body", [b"x", b"x" * 1000, bytes(range(256)) * 4])
@pytest.mark.parametrize("lie", [-1, 1, 5, 100])
def test_lz4_that_lies_about_its_size(body: bytes, lie: int) -> None:
    size = len(body) + lie
    with pytest.raises(RemoteProtocolError, match="LZ4"):
        unpack(size.to_bytes(4, "big") + compress(body)[4:])


def test_lz4_of_nothing() -> None:
    assert unpack(bytes(4) + b"\0") == b""
    for block in (b"", compress(b"something")[4:], b"\0\0"):
        with pytest.raises(RemoteProtocolError, match="does not decompress"):
            unpack(bytes(4) + block)


def test_lz4_truncated() -> None:
    data = compress(bytes(range(256)) * 8)
    for length in range(4, len(data)):
        with pytest.raises(RemoteProtocolError, match="LZ4"):
            unpack(data[:length])


def test_lz4_fault_in_a_frame() -> None:
    with pytest.raises(RemoteProtocolError, match="does not decompress"):
        list(FrameDecoder().receive_data(frame_bytes(header(pb.INDEX, pb.LZ4), b"\0\0\0\x0a\xff\xff")))


@given(
    st.binary(max_size=300)
    | st.builds(lambda one, times: one * times, st.binary(min_size=1, max_size=9), st.integers(0, 99))
)
def test_the_start_of_an_lz4_message_is_found_without_the_rest(body: bytes) -> None:
    packed = len(body).to_bytes(4, "big") + lz4.block.compress(body, store_size=False)
    for count in (0, 1, 16, 1000):
        assert lz4_start(packed, count) == body[:count]


@given(st.binary(max_size=64), st.integers(0, 64))
def test_the_start_of_damaged_lz4_is_short(data: bytes, count: int) -> None:
    assert len(lz4_start(data, count)) <= count
