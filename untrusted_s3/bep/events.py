"""What a peer said: one frozen class a BEP message, made by `connection.Connection.receive_data`."""

from __future__ import annotations

from dataclasses import dataclass

from untrusted_s3.bep import bep_pb2 as pb


@dataclass(frozen=True, slots=True)
class HelloReceived:
    """The peer's Hello, which comes before authentication and may be shown to the operator."""

    device_name: str
    client_name: str
    client_version: str
    num_connections: int


@dataclass(frozen=True, slots=True)
class ClusterConfigReceived:
    """The folders the peer shares with us and what it knows of each device's index."""

    folders: tuple[pb.Folder, ...]


@dataclass(frozen=True, slots=True)
class IndexReceived:
    """File infos of one folder.

    `files` are serialized FileInfo messages, each exactly as received. `update` is false for an Index, which
    replaces all that we know of the peer's index, and true for an IndexUpdate, which adds to it. `last_sequence`
    and `prev_sequence` are 0 where an older peer does not send them.
    """

    folder: str
    files: tuple[bytes, ...]
    update: bool
    last_sequence: int
    prev_sequence: int


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """The peer wants `size` bytes at `offset` of file `name`. `hash` is the block token, empty before 1.28.1."""

    id: int
    folder: str
    name: str
    offset: int
    size: int
    hash: bytes
    from_temporary: bool


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """The answer to our request `id`: `data` is a view of the message (keep it as long as you need the bytes)."""

    id: int
    data: memoryview
    code: int


@dataclass(frozen=True, slots=True)
class DownloadProgressReceived:
    """The peer has parts of files that we do not ask it for; nothing to do."""


@dataclass(frozen=True, slots=True)
class PingReceived:
    """The peer is alive."""


@dataclass(frozen=True, slots=True)
class CloseReceived:
    """The peer is about to close the connection, for `reason`."""

    reason: str


@dataclass(frozen=True, slots=True)
class UnknownMessageSkipped:
    """A message of a type that this version of the protocol does not have."""

    type: int


Event = (
    HelloReceived
    | ClusterConfigReceived
    | IndexReceived
    | RequestReceived
    | ResponseReceived
    | DownloadProgressReceived
    | PingReceived
    | CloseReceived
    | UnknownMessageSkipped
)
