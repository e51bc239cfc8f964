"""A connection: its states, events, messages and timers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import lz4.block
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import constants, events
from untrusted_s3.bep.connection import Connection, OurState, TheirState
from untrusted_s3.bep.framing import encode_frame, encode_hello
from untrusted_s3.errors import LocalProtocolError, RemoteProtocolError

HELLO = encode_hello(pb.Hello(device_name="nas", client_name="syncthing", client_version="v1.29.5", num_connections=1))
HELLO_EVENT = events.HelloReceived("nas", "syncthing", "v1.29.5", 1)
FOLDER = pb.Folder(id="docs", label="Documents", devices=[pb.Device(id=bytes(32), max_sequence=3, index_id=4)])
CLUSTER_CONFIG = encode_frame(pb.CLUSTER_CONFIG, pb.ClusterConfig(folders=[FOLDER]).SerializeToString())
CLUSTER_CONFIG_EVENT = events.ClusterConfigReceived((FOLDER,))
# A file info with a field 18 and a field 2000 that we do not declare.
FILE = b"\x0a\x01n\x92\x01\x03abc\x82\x7d\x04what\x50\x07"

REQUEST_MESSAGE = pb.Request(
    id=9, folder="docs", name="a/b", offset=40, size=1064, hash=b"h" * 48, from_temporary=True, block_no=1
)
INDEX_MESSAGE = pb.Index(folder="docs", files=[FILE, b"", FILE], last_sequence=7, prev_sequence=5)
INDEX_UPDATE_MESSAGE = pb.Index(folder="docs", files=[FILE], last_sequence=9, prev_sequence=7)

# One message of each type that may come after the cluster config, with what it means.
MESSAGES: dict[str, tuple[bytes, events.Event]] = {
    "cluster config": (CLUSTER_CONFIG, CLUSTER_CONFIG_EVENT),
    "index": (
        encode_frame(pb.INDEX, INDEX_MESSAGE.SerializeToString()),
        events.IndexReceived("docs", (FILE, b"", FILE), False, 7, 0),
    ),
    "index update": (
        encode_frame(pb.INDEX_UPDATE, INDEX_UPDATE_MESSAGE.SerializeToString()),
        events.IndexReceived("docs", (FILE,), True, 9, 7),
    ),
    "request": (
        encode_frame(pb.REQUEST, REQUEST_MESSAGE.SerializeToString()),
        events.RequestReceived(9, "docs", "a/b", 40, 1064, b"h" * 48, True),
    ),
    "response": (
        encode_frame(pb.RESPONSE, pb.Response(id=3, data=b"block", code=pb.GENERIC).SerializeToString()),
        events.UnaskedResponseSkipped(),
    ),
    "download progress": (encode_frame(pb.DOWNLOAD_PROGRESS, b"\x0a\x01f"), events.DownloadProgressReceived()),
    "ping": (encode_frame(pb.PING, b""), events.PingReceived()),
    "unknown": (encode_frame(8, b"from the future"), events.UnknownMessageSkipped(8)),
    "close": (encode_frame(pb.CLOSE, pb.Close(reason="bye").SerializeToString()), events.CloseReceived("bye")),
}
NOT_CLOSE = sorted(MESSAGES.keys() - {"close"})


def receive(connection: Connection, data: bytes, now: float = 0.0) -> list[events.Event]:
    return list(connection.receive_data(data, now))


def said(pieces: Iterable[bytes], eof: bool = False) -> tuple[list[events.Event], str]:
    """What a new connection makes of the pieces: its events, and the fault of the peer if there is one."""
    connection = Connection(0.0)
    received: list[events.Event] = []
    try:
        for piece in pieces:
            for event in connection.receive_data(piece, 0.0):
                received.append(event)
        if eof:
            connection.receive_eof()
    except RemoteProtocolError as error:
        assert connection.their_state is TheirState.CLOSED
        return received, str(error)
    return received, ""


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    bounds = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


def ready(now: float = 0.0, connection: Connection | None = None) -> Connection:
    """A connection on which both sides have said Hello and a cluster config."""
    connection = connection or Connection(now)
    connection.hello("us", "untrusted-s3", "v1", 1, now)
    connection.cluster_config([], now)
    assert receive(connection, HELLO + CLUSTER_CONFIG, now) == [HELLO_EVENT, CLUSTER_CONFIG_EVENT]
    assert (connection.their_state, connection.our_state) == (TheirState.READY, OurState.READY)
    return connection


def frame_of(data: bytes) -> tuple[int, bytes]:
    """The type and the body of the one uncompressed message in `data`."""
    header_size = int.from_bytes(data[:2], "big")
    header = pb.Header.FromString(data[2 : 2 + header_size])
    assert header.compression == pb.NONE
    body = data[2 + header_size + 4 :]
    assert int.from_bytes(data[2 + header_size : 2 + header_size + 4], "big") == len(body)
    return header.type, body


# Receiving: pieces


messages = st.lists(st.sampled_from(sorted(MESSAGES)), max_size=6)
cuts = st.lists(st.integers(0, 100_000), max_size=12)


@given(names=st.lists(st.sampled_from(NOT_CLOSE), max_size=8), cuts=cuts)
def test_any_pieces_give_the_same_events(names: list[str], cuts: list[int]) -> None:
    stream = HELLO + CLUSTER_CONFIG + b"".join(MESSAGES[name][0] for name in names)
    expected = [HELLO_EVENT, CLUSTER_CONFIG_EVENT, *(MESSAGES[name][1] for name in names)]
    assert said(split(stream, cuts)) == (expected, "")


@given(names=messages, config=st.booleans(), garbage=st.binary(max_size=30), cuts=cuts, eof=st.booleans())
@example(names=["close"], config=True, garbage=b"\xff\xff", cuts=[], eof=True)
@example(names=["request"], config=False, garbage=b"", cuts=[], eof=False)
def test_any_pieces_give_the_same_events_and_fault(
    names: list[str], config: bool, garbage: bytes, cuts: list[int], eof: bool
) -> None:
    stream = HELLO + CLUSTER_CONFIG * config + b"".join(MESSAGES[name][0] for name in names) + garbage
    whole = said([stream], eof)
    assert said(split(stream, cuts), eof) == whole
    assert said((bytes([byte]) for byte in stream), eof) == whole


def test_byte_by_byte_each_event_comes_with_its_last_byte() -> None:
    connection = Connection(0.0)
    ends = []
    stream = HELLO + CLUSTER_CONFIG + b"".join(MESSAGES[name][0] for name in NOT_CLOSE)
    for position, byte in enumerate(stream, 1):
        ends += [position for _ in receive(connection, bytes([byte]))]
    sizes = [len(HELLO), len(CLUSTER_CONFIG), *(len(MESSAGES[name][0]) for name in NOT_CLOSE)]
    assert ends == list(itertools.accumulate(sizes))


@pytest.mark.parametrize("name", MESSAGES)
def test_trailing_data_waits_for_its_rest(name: str) -> None:
    message, event = MESSAGES[name]
    connection = ready()
    ping, ping_event = MESSAGES["ping"]
    assert receive(connection, ping + message[:-1]) == [ping_event]
    assert receive(connection, message[-1:] + ping[:3]) == [event]
    assert receive(connection, ping[3:]) == ([] if name == "close" else [ping_event])


def test_lz4_messages() -> None:
    body = pb.Index(folder="docs", files=[FILE] * 50).SerializeToString()
    compressed = len(body).to_bytes(4, "big") + lz4.block.compress(body, store_size=False)
    frame = b"\0\x04\x08\x01\x10\x01" + len(compressed).to_bytes(4, "big") + compressed
    assert receive(ready(), frame) == [events.IndexReceived("docs", (FILE,) * 50, False, 0, 0)]


@given(fields=st.lists(st.binary(max_size=60), max_size=8))
def test_file_infos_stay_byte_for_byte(fields: list[bytes]) -> None:
    # Written by hand, as submessages are: tag 2, length, content.
    body = b"\x0a\x01f" + b"".join(b"\x12" + bytes([len(field)]) + field for field in fields)
    (event,) = receive(ready(), encode_frame(pb.INDEX_UPDATE, body))
    assert event == events.IndexReceived("f", tuple(fields), True, 0, 0)


@pytest.mark.parametrize("number", [8, 9, 127])
def test_unknown_message_types_are_skipped(number: int) -> None:
    connection = ready()
    stream = encode_frame(number, b"\xff" * 1000) + MESSAGES["ping"][0]
    assert receive(connection, stream) == [events.UnknownMessageSkipped(number), events.PingReceived()]


# Receiving: faults


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n", b"\x16\x03\x01\x02\x00\x01", b"\x9f\x79\xbc\x40"])
def test_no_hello(data: bytes) -> None:
    connection = Connection(0.0)
    with pytest.raises(RemoteProtocolError):
        receive(connection, data)
    assert connection.their_state is TheirState.CLOSED


FAULTS = {
    "header over the cap": (b"\x80\x00", "header of 32768 bytes"),
    "message over the cap": (b"\0\x02\x08\x06" + (500_000_001).to_bytes(4, "big"), "message of 500000001 bytes"),
    "LZ4 over the cap": (b"\0\x04\x08\x07\x10\x01\0\0\0\x05" + (500_000_001).to_bytes(4, "big") + b"\0", "LZ4 message"),
    "LZ4 that lies": (b"\0\x04\x08\x07\x10\x01\0\0\0\x05\0\0\0\x09\0", "LZ4 message"),
    "no header": (b"\0\x01\xff", "invalid Header"),
    **{
        f"no {name}": (encode_frame(number, b"\x0a\x7f"), f"invalid {name}")
        for number, name in [
            (pb.CLUSTER_CONFIG, "ClusterConfig"),
            (pb.INDEX, "Index"),
            (pb.INDEX_UPDATE, "Index"),
            (pb.REQUEST, "Request"),
            (pb.CLOSE, "Close"),
        ]
    },
}


@pytest.mark.parametrize(("data", "match"), FAULTS.values(), ids=FAULTS.keys())
def test_faults_close_the_connection(data: bytes, match: str) -> None:
    connection = ready()
    received = []
    with pytest.raises(RemoteProtocolError, match=match):
        for event in connection.receive_data(MESSAGES["request"][0] + data, 0.0):
            received.append(event)
    assert received == [MESSAGES["request"][1]]
    assert connection.their_state is TheirState.CLOSED
    assert receive(connection, MESSAGES["ping"][0]) == []
    connection.receive_eof()


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../b", "a//b", "a/", "a\0b", "a" * 100_000])
def test_requests_for_unclean_names(name: str) -> None:
    request = pb.Request(id=7, folder="docs", name=name, size=1064)
    (event,) = receive(ready(), encode_frame(pb.REQUEST, request.SerializeToString()))
    assert isinstance(event, events.UnanswerableRequestReceived)
    assert event.id == 7


@pytest.mark.parametrize("request_id", [0, 1, -1, 2**31 - 1, -(2**31)])
def test_requests_for_names_that_are_no_utf8(request_id: int) -> None:
    body = pb.Request(id=request_id, folder="docs", name="name", size=1064).SerializeToString()
    (event,) = receive(ready(), encode_frame(pb.REQUEST, body.replace(b"name", b"n\xff\xfee")))
    assert isinstance(event, events.UnanswerableRequestReceived)
    assert event.id == request_id


def test_requests_that_are_no_messages() -> None:
    with pytest.raises(RemoteProtocolError, match="invalid Request"):
        receive(ready(), encode_frame(pb.REQUEST, b"\x08"))


@pytest.mark.parametrize("size", [0, 1, constants.MAX_REQUEST_SIZE])
def test_requests_may_lack_the_hash(size: int) -> None:
    request = pb.Request(folder="docs", name="n", size=size)
    (event,) = receive(ready(), encode_frame(pb.REQUEST, request.SerializeToString()))
    assert event == events.RequestReceived(0, "docs", "n", 0, size, b"", False)


@pytest.mark.parametrize("size", [-1, -(2**31), constants.MAX_REQUEST_SIZE + 1, 2**31 - 1])
def test_requests_of_impossible_size(size: int) -> None:
    request = pb.Request(id=7, folder="docs", name="n", size=size)
    (event,) = receive(ready(), encode_frame(pb.REQUEST, request.SerializeToString()))
    assert event == events.UnanswerableRequestReceived(7, f"a request for {size} bytes")


# Receiving: states


def test_their_states_in_order() -> None:
    connection = Connection(0.0)
    states = [connection.their_state]
    for data in (HELLO, CLUSTER_CONFIG, MESSAGES["index"][0], CLUSTER_CONFIG, MESSAGES["close"][0]):
        receive(connection, data)
        states.append(connection.their_state)
    assert states == [
        TheirState.EXPECT_HELLO,
        TheirState.EXPECT_CLUSTER_CONFIG,
        TheirState.READY,
        TheirState.READY,
        TheirState.READY,
        TheirState.CLOSED,
    ]
    assert connection.our_state is OurState.SEND_HELLO


BEFORE_CLUSTER_CONFIG = {
    "cluster config": TheirState.READY,
    "ping": TheirState.EXPECT_CLUSTER_CONFIG,
    "unknown": TheirState.EXPECT_CLUSTER_CONFIG,
    "close": TheirState.CLOSED,
}


@pytest.mark.parametrize("name", MESSAGES)
def test_what_may_come_before_the_cluster_config(name: str) -> None:
    connection = Connection(0.0)
    assert receive(connection, HELLO) == [HELLO_EVENT]
    message, event = MESSAGES[name]
    if name in BEFORE_CLUSTER_CONFIG:
        assert receive(connection, message) == [event]
        assert connection.their_state is BEFORE_CLUSTER_CONFIG[name]
    else:
        with pytest.raises(RemoteProtocolError, match="before the first cluster config"):
            receive(connection, message)
        assert connection.their_state is TheirState.CLOSED


@pytest.mark.parametrize("name", MESSAGES)
def test_no_message_may_come_before_hello(name: str) -> None:
    connection = Connection(0.0)
    with pytest.raises(RemoteProtocolError, match="does not say Hello"):
        receive(connection, MESSAGES[name][0] + bytes(4))


@pytest.mark.parametrize("name", NOT_CLOSE)
def test_what_may_come_when_ready(name: str) -> None:
    connection = ready()
    message, event = MESSAGES[name]
    assert receive(connection, message * 2) == [event, event]
    assert connection.their_state is TheirState.READY


def test_a_second_hello_is_a_fault() -> None:
    # Its magic reads as a header of 0x2EA7 bytes.
    with pytest.raises(RemoteProtocolError, match="invalid Header"):
        receive(ready(), HELLO + bytes(0x2EA7))


@pytest.mark.parametrize("after", [MESSAGES["ping"][0], b"\xff" * 100])
@pytest.mark.parametrize("together", [True, False])
def test_nothing_counts_after_close(after: bytes, together: bool) -> None:
    connection = ready()
    close, close_event = MESSAGES["close"]
    if together:
        assert receive(connection, close + after) == [close_event]
    else:
        assert receive(connection, close) == [close_event]
        assert receive(connection, after) == []
    connection.receive_eof()


# End of stream


def test_end_of_stream_before_hello() -> None:
    with pytest.raises(RemoteProtocolError, match="before its Hello"):
        Connection(0.0).receive_eof()


def test_end_of_stream_at_every_position() -> None:
    stream = HELLO + CLUSTER_CONFIG + MESSAGES["request"][0]
    boundaries = {len(HELLO), len(HELLO + CLUSTER_CONFIG), len(stream)}
    for length in range(1, len(stream) + 1):
        connection = Connection(0.0)
        receive(connection, stream[:length])
        if length in boundaries:
            connection.receive_eof()
        else:
            where = "in the middle of its Hello" if length < len(HELLO) else "in the middle of a message"
            with pytest.raises(RemoteProtocolError, match=where):
                connection.receive_eof()
        assert connection.their_state is TheirState.CLOSED
        connection.receive_eof()


# Sending: states

BLOCK = pb.BlockInfo(offset=0, size=constants.MIN_ENCRYPTED_BLOCK_SIZE, hash=b"t" * constants.TOKEN_SIZE)

SENDERS: dict[str, Callable[[Connection], object]] = {
    "hello": lambda connection: connection.hello("us", "untrusted-s3", "v1", 1, 1000.0),
    "cluster config": lambda connection: connection.cluster_config([FOLDER], 1000.0),
    "index": lambda connection: connection.index(
        "docs", [], update=False, prev_sequence=0, last_sequence=0, now=1000.0
    ),
    "request": lambda connection: connection.request("docs", "name", 0, BLOCK, 1000.0),
    "response": lambda connection: connection.response(1, b"data", 0, 1000.0),
}


def in_our_state(state: OurState) -> Connection:
    connection = Connection(1000.0)
    if state is not OurState.SEND_HELLO:
        connection.hello("us", "untrusted-s3", "v1", 1, 1000.0)
    if state in (OurState.READY, OurState.CLOSED):
        connection.cluster_config([], 1000.0)
    if state is OurState.CLOSED:
        connection.close("done", 1000.0)
    assert connection.our_state is state
    return connection


OUR_TABLE = {
    (OurState.SEND_HELLO, "hello"): OurState.SEND_CLUSTER_CONFIG,
    (OurState.SEND_CLUSTER_CONFIG, "cluster config"): OurState.READY,
    (OurState.READY, "cluster config"): OurState.READY,
    (OurState.READY, "index"): OurState.READY,
    (OurState.READY, "request"): OurState.READY,
    (OurState.READY, "response"): OurState.READY,
}


@pytest.mark.parametrize("name", SENDERS)
@pytest.mark.parametrize("state", OurState, ids=lambda state: state.name)
def test_what_we_may_send(state: OurState, name: str) -> None:
    connection = in_our_state(state)
    if (state, name) in OUR_TABLE:
        assert SENDERS[name](connection)
        assert connection.our_state is OUR_TABLE[state, name]
    else:
        with pytest.raises(LocalProtocolError, match=f"not in the state {state.name}"):
            SENDERS[name](connection)
        assert connection.our_state is state


@pytest.mark.parametrize("state", OurState, ids=lambda state: state.name)
def test_close_is_said_once_and_only_when_it_is_understood(state: OurState) -> None:
    connection = in_our_state(state)
    first = connection.close("maintenance", 1000.0)
    if state is OurState.READY:
        assert frame_of(first) == (pb.CLOSE, pb.Close(reason="maintenance").SerializeToString())
    else:
        assert first == b""
    assert connection.our_state is OurState.CLOSED
    assert connection.close("maintenance", 1000.0) == b""
    assert connection.our_state is OurState.CLOSED


def test_we_may_answer_and_close_after_they_have_closed() -> None:
    connection = ready()
    receive(connection, MESSAGES["close"][0])
    assert connection.response(1, b"", pb.GENERIC, 0.0)
    assert connection.close("bye", 0.0)


# Sending: contents


def test_two_connections_understand_each_other() -> None:
    one, other = Connection(0.0), Connection(0.0)
    assert receive(other, one.hello("nas", "untrusted-s3", "v1", 1_700_000_000_000_000_000, 0.0)) == [
        events.HelloReceived("nas", "untrusted-s3", "v1", 1)
    ]
    assert receive(other, one.cluster_config([FOLDER], 0.0)) == [CLUSTER_CONFIG_EVENT]
    index = one.index("docs", [FILE, FILE], update=False, prev_sequence=5, last_sequence=7, now=0.0)
    assert receive(other, index) == [events.IndexReceived("docs", (FILE, FILE), False, 7, 0)]
    update = one.index("docs", [FILE], update=True, prev_sequence=7, last_sequence=8, now=0.0)
    assert receive(other, update) == [events.IndexReceived("docs", (FILE,), True, 8, 7)]
    request_id, request = one.request("docs", "name", 0, BLOCK, 0.0)
    assert receive(other, request) == [
        events.RequestReceived(request_id, "docs", "name", 0, 1064, b"t" * constants.TOKEN_SIZE, False)
    ]
    response = b"".join(one.response(4, b"data", pb.NO_SUCH_FILE, 0.0))
    assert receive(other, response) == [events.UnaskedResponseSkipped()]
    other.skip_unasked = False
    assert receive(other, response) == [events.ResponseReceived(4, memoryview(b"data"), pb.NO_SUCH_FILE)]
    assert receive(other, one.handle_timer(90.0)) == [events.PingReceived()]
    assert receive(other, one.close("bye", 0.0)) == [events.CloseReceived("bye")]
    other.receive_eof()


def test_hello_contents() -> None:
    data = Connection(0.0).hello("nas", "untrusted-s3", "v1", 77, 0.0)
    assert pb.Hello.FromString(data[6:]) == pb.Hello(
        device_name="nas", client_name="untrusted-s3", client_version="v1", num_connections=1, timestamp=77
    )


@pytest.mark.parametrize("timestamp", [0, -1])
def test_hello_needs_a_timestamp(timestamp: int) -> None:
    connection = Connection(0.0)
    with pytest.raises(LocalProtocolError, match="timestamp"):
        connection.hello("nas", "untrusted-s3", "v1", timestamp, 0.0)
    assert connection.our_state is OurState.SEND_HELLO


def test_hello_that_is_too_long_leaves_the_state() -> None:
    connection = Connection(0.0)
    with pytest.raises(LocalProtocolError, match="too long"):
        connection.hello("n" * 40_000, "untrusted-s3", "v1", 1, 0.0)
    assert connection.our_state is OurState.SEND_HELLO


def test_index_has_no_previous_sequence() -> None:
    connection = ready()
    data = connection.index("docs", [FILE], update=False, prev_sequence=3, last_sequence=7, now=0.0)
    assert frame_of(data) == (pb.INDEX, pb.Index(folder="docs", files=[FILE], last_sequence=7).SerializeToString())


def test_request_contents() -> None:
    connection = ready()
    block = pb.BlockInfo(offset=3 * (131_072 + 40), size=131_072 + 40, hash=b"t" * constants.TOKEN_SIZE)
    ids = []
    for _ in range(3):
        request_id, data = connection.request("docs", "name", 3, block, 0.0)
        ids.append(request_id)
        kind, body = frame_of(data)
        assert kind == pb.REQUEST
        assert pb.Request.FromString(body) == pb.Request(
            id=request_id,
            folder="docs",
            name="name",
            offset=block.offset,
            size=block.size,
            hash=block.hash,
            block_no=3,
        )
    assert len(set(ids)) == 3


def test_request_ids_stay_in_31_bits() -> None:
    connection = ready(connection=Connection(0.0, first_request_id=2**31 - 1))
    assert [connection.request("f", "n", 0, BLOCK, 0.0)[0] for _ in range(2)] == [2**31 - 1, 0]


def block(offset: int = 0, size: int = 1064, hash: bytes = b"t" * constants.TOKEN_SIZE) -> pb.BlockInfo:
    return pb.BlockInfo(offset=offset, size=size, hash=hash)


FORBIDDEN_REQUESTS = {
    "no hash": (0, block(hash=b""), "token of 0 bytes"),
    "plain hash": (0, block(hash=bytes(32)), "token of 32 bytes"),
    "hash too long": (0, block(hash=bytes(49)), "token of 49 bytes"),
    "offset below the overhead": (1, block(offset=39), "block 1 cannot be at offset 39"),
    "offset 0 of a later block": (1, block(offset=0), "block 1 cannot be at offset 0"),
    "negative offset": (0, block(offset=-1), "block 0 cannot be at offset -1"),
    "negative block": (-1, block(offset=5000), "block -1 cannot be"),
    "block number too high": (2**31 - 1, block(offset=40 * (2**31 - 1) - 1), "cannot be at offset"),
    "short block": (0, block(size=1063), "encrypted block of 1063 bytes"),
    "empty block": (0, block(size=0), "encrypted block of 0 bytes"),
    "negative size": (0, block(size=-1), "encrypted block of -1 bytes"),
}


@pytest.mark.parametrize(("block_no", "wanted", "match"), FORBIDDEN_REQUESTS.values(), ids=FORBIDDEN_REQUESTS.keys())
def test_forbidden_requests_are_never_sent(block_no: int, wanted: pb.BlockInfo, match: str) -> None:
    connection = ready(0.0)
    with pytest.raises(LocalProtocolError, match=match):
        connection.request("docs", "name", block_no, wanted, 50.0)
    # Nothing was sent: no id is used up, and the next ping is due as if nothing had happened.
    assert connection.next_timer() == 90.0
    assert connection.request("docs", "name", 0, BLOCK, 50.0)[0] == 0


@given(
    block_no=st.integers(-2, 3), offset=st.integers(-1, 150), size=st.integers(1060, 1070), token=st.integers(46, 50)
)
def test_requests_keep_the_invariants(block_no: int, offset: int, size: int, token: int) -> None:
    wanted = block(offset, size, bytes(token))
    allowed = block_no >= 0 and offset - 40 * block_no >= 0 and size >= 1064 and token == 48
    connection = ready()
    if allowed:
        connection.request("docs", "name", block_no, wanted, 0.0)
    else:
        with pytest.raises(LocalProtocolError):
            connection.request("docs", "name", block_no, wanted, 0.0)


@pytest.mark.parametrize("request_id", [0, 2**31 - 1, -1, -(2**31)])
def test_any_request_can_be_answered(request_id: int) -> None:
    connection = ready()
    message = pb.Request(id=request_id, folder="docs", name="n", size=1064).SerializeToString()
    (event,) = receive(connection, encode_frame(pb.REQUEST, message))
    assert isinstance(event, events.RequestReceived)
    kind, body = frame_of(b"".join(connection.response(event.id, b"data", pb.NO_ERROR, 0.0)))
    assert kind == pb.RESPONSE
    assert pb.Response.FromString(body) == pb.Response(id=request_id, data=b"data")


# Time


def test_ping_after_90_seconds_of_our_silence() -> None:
    connection = ready(1000.0)
    assert connection.next_timer() == 1090.0
    assert connection.handle_timer(1089.9) == b""
    assert connection.handle_timer(1090.0) == encode_frame(pb.PING, b"")
    assert connection.handle_timer(1090.0) == b""
    assert connection.next_timer() == 1180.0


@pytest.mark.parametrize("name", sorted(SENDERS.keys() - {"hello"}))
def test_whatever_we_send_puts_the_ping_off(name: str) -> None:
    connection = ready(920.0)
    assert connection.next_timer() == 1010.0
    assert SENDERS[name](connection)  # at 1000.0
    assert connection.next_timer() == 1090.0


def test_no_ping_before_our_cluster_config_or_after_our_close() -> None:
    for state in (OurState.SEND_HELLO, OurState.SEND_CLUSTER_CONFIG, OurState.CLOSED):
        connection = in_our_state(state)
        assert connection.next_timer() == 1300.0
        assert connection.handle_timer(1299.9) == b""


@pytest.mark.parametrize("state", OurState, ids=lambda state: state.name)
def test_give_up_after_300_seconds_of_their_silence(state: OurState) -> None:
    connection = in_our_state(state)
    connection.handle_timer(1299.9)
    with pytest.raises(RemoteProtocolError, match="nothing received for 300 s"):
        connection.handle_timer(1300.0)
    assert connection.their_state is TheirState.CLOSED
    assert receive(connection, HELLO) == []


def test_anything_received_puts_giving_up_off() -> None:
    connection = ready(0.0)
    for number in range(1, 10):
        receive(connection, encode_frame(pb.PING, b""), 299.0 * number)
        connection.handle_timer(299.0 * number)
    with pytest.raises(RemoteProtocolError, match="nothing received"):
        connection.handle_timer(299.0 * 9 + 300.0)


LARGE = encode_frame(pb.INDEX, pb.Index(folder="f" * 1_000_000).SerializeToString())


def test_a_message_that_comes_byte_by_byte_is_given_up() -> None:
    connection = ready(0.0)
    for second in range(1, 120):
        receive(connection, LARGE[second - 1 : second], float(second))
        connection.handle_timer(float(second))
    assert connection.next_timer() == 121.0
    with pytest.raises(RemoteProtocolError, match="too slowly: 111 bytes in 120 s"):
        connection.handle_timer(121.0)
    assert receive(connection, LARGE, 122.0) == []


def test_a_message_over_a_slow_line_is_waited_for() -> None:
    connection = ready(0.0)
    for second in range(len(LARGE) // 1100):
        receive(connection, LARGE[second * 1100 : second * 1100 + 1100], float(second))
        connection.handle_timer(float(second))
    assert connection.buffered > 900_000


def test_while_we_do_not_read_the_peer_is_not_slow() -> None:
    connection = ready(0.0)
    receive(connection, LARGE[:100], 1.0)
    connection.pause_receiving(2.0)
    connection.pause_receiving(100.0)
    for now in (90.0, 1000.0):
        assert connection.handle_timer(now), "our pings go on"
    connection.resume_receiving(1000.0)
    connection.resume_receiving(1001.0)
    connection.handle_timer(1118.0)
    with pytest.raises(RemoteProtocolError, match="too slowly"):
        connection.handle_timer(1119.0)


def test_what_is_buffered_of_messages_that_nobody_asked_for() -> None:
    connection = ready(0.0)
    receive(connection, LARGE[:1000], 1.0)
    assert connection.buffered == 992
    receive(connection, LARGE[1000:], 1.0)
    assert connection.buffered == 0
    response = encode_frame(pb.RESPONSE, bytes(1_000_000))
    receive(connection, response[:500_008], 1.0)
    assert connection.buffered == 500_000, "nothing was asked for"


def ask(connection: Connection, size: int = 100_000, now: float = 0.0) -> int:
    block = pb.BlockInfo(offset=0, size=size, hash=bytes(constants.TOKEN_SIZE))
    return connection.request("docs", "n", 0, block, now)[0]


def response_to(request_id: int, size: int, *, compressed: bool = False) -> bytes:
    body = pb.Response(id=request_id, data=bytes(size)).SerializeToString()
    if not compressed:
        return encode_frame(pb.RESPONSE, body)
    packed: bytes = len(body).to_bytes(4, "big") + lz4.block.compress(body, store_size=False)
    header = pb.Header(type=pb.RESPONSE, compression=pb.LZ4).SerializeToString()
    return len(header).to_bytes(2, "big") + header + len(packed).to_bytes(4, "big") + packed


def test_of_a_response_only_what_exceeds_our_requests_counts_as_buffered() -> None:
    connection = ready(0.0)
    ask(connection)
    response = encode_frame(pb.RESPONSE, bytes(1_000_000))
    receive(connection, response[:100_000])
    assert connection.buffered == 0
    receive(connection, response[100_000:600_000])
    assert 498_000 < connection.buffered < 500_000


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("first", [0, 1, 200, 2**31 - 1])
def test_a_response_counts_once(first: int, compressed: bool) -> None:
    connection = ready(0.0, Connection(0.0, first_request_id=first))
    other = first ^ 1
    assert receive(connection, response_to(first, 1064, compressed=compressed)) == [events.UnaskedResponseSkipped()]
    assert ask(connection, 1064) == first
    assert receive(connection, response_to(other, 1064, compressed=compressed)) == [events.UnaskedResponseSkipped()]
    (event,) = receive(connection, response_to(first, 1064, compressed=compressed))
    assert event == events.ResponseReceived(first, memoryview(bytes(1064)), pb.NO_ERROR)
    assert receive(connection, response_to(first, 1064, compressed=compressed)) == [events.UnaskedResponseSkipped()]


def test_a_response_that_cannot_be_decoded() -> None:
    connection = ready()
    ask(connection)
    with pytest.raises(RemoteProtocolError, match="invalid Response"):
        receive(connection, encode_frame(pb.RESPONSE, b"\x08\x00\x0a\x7f"))


def test_a_response_that_nobody_waits_for_any_more() -> None:
    connection = ready(0.0)
    request_id = ask(connection)
    connection.request_ended(request_id)
    assert receive(connection, response_to(request_id, 10)) == [events.UnaskedResponseSkipped()]


@pytest.mark.parametrize("compressed", [False, True])
def test_unasked_responses_are_not_decoded(compressed: bool) -> None:
    connection = ready(0.0)
    frame = bytearray(response_to(5, 2000, compressed=compressed))
    frame[-1000 if not compressed else -2 :] = b"\xff" * (1000 if not compressed else 2)
    assert receive(connection, bytes(frame)) == [events.UnaskedResponseSkipped()]


def test_our_pings_do_not_put_giving_up_off() -> None:
    connection = ready(0.0)
    for now in (90.0, 180.0, 270.0):
        assert connection.next_timer() == now
        assert connection.handle_timer(now)
    assert connection.next_timer() == 300.0
    with pytest.raises(RemoteProtocolError):
        connection.handle_timer(300.0)


@given(st.floats(0, 1e9))
@example(422.3)  # 422.3 + 300 - 422.3 is less than 300
def test_the_timer_never_comes_for_nothing(start: float) -> None:
    connection = ready(start)
    for _ in range(3):
        assert connection.handle_timer(connection.next_timer())
    with pytest.raises(RemoteProtocolError):
        connection.handle_timer(connection.next_timer())


def test_a_cluster_config_of_thousands_of_folders() -> None:
    config = pb.ClusterConfig(folders=[pb.Folder()] * (constants.MAX_FOLDERS + 1))
    with pytest.raises(RemoteProtocolError, match="more than 1000 folders"):
        receive(ready(), encode_frame(pb.CLUSTER_CONFIG, config.SerializeToString()))


@pytest.mark.parametrize("kind", [pb.PING, pb.DOWNLOAD_PROGRESS])
def test_what_has_no_use_is_not_unpacked(kind: int) -> None:
    """A few kilobytes may unpack to 17 MiB."""
    connection = ready()
    impossible = b"\0\0\0\x09\0"  # LZ4 data that do not have their stated size
    header = pb.Header(type=kind, compression=pb.LZ4).SerializeToString()  # type: ignore[arg-type]
    frame = len(header).to_bytes(2, "big") + header + len(impossible).to_bytes(4, "big") + impossible
    (event,) = receive(connection, frame)
    assert isinstance(event, events.PingReceived | events.DownloadProgressReceived)
