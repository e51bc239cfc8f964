"""Readers of what peers send. Each takes any bytes, and fails if they cause anything but a refusal.

Each returns what became of the bytes: "taken", or a short form of the reason why they were refused.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator

from google.protobuf.message import DecodeError

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.cluster_config import read_offer
from untrusted_s3.bep.connection import Connection, TheirState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import parse_file_info, with_sequence
from untrusted_s3.bep.framing import encode_frame, encode_hello
from untrusted_s3.bep.index_message import decode_index
from untrusted_s3.bep.response import decode_response
from untrusted_s3.errors import FileInfoRefused, FolderRefused, RemoteProtocolError
from untrusted_s3.index.entry import read_file_info
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.sync.message_queue import held_size

OWN, PEER = DeviceID(b"\x01" * 32), DeviceID(b"\x02" * 32)
OPENING = encode_hello(pb.Hello(timestamp=1)) + encode_frame(pb.CLUSTER_CONFIG, b"")


_DETAILS = re.compile(r"""'.*'|".*"|[0-9-]+|\\\\x..""")
_CUT_SHARE = 1024


def short(error: Exception | str) -> str:
    """Return an error's text without what differs from input to input."""
    return _DETAILS.sub("#", str(error))[:100]


def connection(data: bytes) -> str:
    """Read a stream from its first byte. The result must not depend on how the stream is cut into pieces."""
    return _conversation(b"", data)


def messages(data: bytes) -> str:
    """Read a stream after Hello and the first cluster config."""
    return _conversation(OPENING, data)


def messages_fast(data: bytes) -> str:
    """Read a stream after Hello and the first cluster config. One in 1024 is read in pieces as well."""
    if zlib.crc32(data) % _CUT_SHARE == 0:
        return messages(data)
    return _outcome(_heard([OPENING, data]))


def file_info(data: bytes) -> str:
    """Parse a file info. One that is taken has only blocks that can be stored and requested.

    Only valid ones get into the log, whose reader must take them.
    """
    try:
        info = parse_file_info(data)
    except (RemoteProtocolError, FileInfoRefused, FolderRefused) as error:
        return short(error)
    if info.has_data:
        assert sum(block.size for block in info.message.blocks) == info.message.size > 0
        assert all(block.offset >= 0 and block.size > 0 for block in info.message.blocks)
    if not info.message.invalid:
        assert read_file_info(info.raw).message == info.message
    assert len(content_hash(info)) == 32
    assert encode_trailer(info).startswith(info.raw)
    assert pb.FileInfo.FromString(with_sequence(info.raw, 77)).sequence == 77
    message = info.message
    kind = (message.type, message.deleted, message.invalid, bool(message.blocks), message.no_permissions)
    return f"taken {kind}"


def index(data: bytes) -> str:
    """Decode the body of an Index as a general decoder does, or refuse it."""
    try:
        folder, files, last_sequence, prev_sequence = decode_index(data)
    except RemoteProtocolError as error:
        return short(error)
    try:
        message = pb.Index.FromString(data)
    except DecodeError:
        return "only ours takes it"
    assert (folder, list(files)) == (message.folder, list(message.files))
    assert (last_sequence, prev_sequence) == (message.last_sequence, message.prev_sequence)
    return f"taken {min(len(files), 4)} {bool(last_sequence)} {bool(prev_sequence)}"


def response(data: bytes) -> str:
    """Decode the body of a Response as a general decoder does, or refuse it."""
    try:
        taken = decode_response(data)
    except RemoteProtocolError as error:
        return short(error)
    try:
        message = pb.Response.FromString(data)
    except DecodeError:
        return "only ours takes it"
    assert (taken.id, bytes(taken.data), taken.code) == (message.id, message.data, message.code)
    return f"taken {bool(taken.data)} {min(abs(taken.code), 9)}"


def cluster_config(data: bytes) -> str:
    """Read a folder of a cluster config."""
    try:
        folder = pb.Folder.FromString(data)
    except DecodeError:
        return "only ours takes it"
    try:
        offer = read_offer(folder, OWN, PEER)
    except FolderRefused as error:
        return short(error)
    assert offer.folder_id and offer.token
    return "taken"


def _conversation(opening: bytes, data: bytes) -> str:
    whole = _heard([opening, data])
    assert whole == _heard([opening, *_pieces(data)])
    return _outcome(whole)


def _outcome(whole: list[events.Event | str]) -> str:
    names = set()
    for event in whole:
        names.add(short(event) if isinstance(event, str) else type(event).__name__)
        if isinstance(event, events.IndexReceived):
            for raw in event.files:
                file_info(raw)
    return ", ".join(sorted(names))


def _heard(pieces: list[bytes]) -> list[events.Event | str]:
    """Return the events of a new connection, and at the end the error if the peer made one."""
    fresh, size = Connection(0), sum(map(len, pieces))
    fresh.skip_unasked = False
    heard: list[events.Event | str] = []
    try:
        for piece in pieces:
            for event in fresh.receive_data(piece, 0):
                assert held_size(event) > 0
                heard.append(event)
            assert 0 <= fresh.buffered <= size
        fresh.next_timer()
        fresh.receive_eof()
    except RemoteProtocolError as error:
        heard.append(str(error))
    assert fresh.their_state is TheirState.CLOSED
    return heard


def _pieces(data: bytes) -> Iterator[bytes]:
    """Cut `data` into pieces whose lengths come from its own bytes."""
    position = 0
    while position < len(data):
        size = 1 + data[position] % 23
        yield data[position : position + size]
        position += size
