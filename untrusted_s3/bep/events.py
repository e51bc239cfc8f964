"""Events of a connection: one class for each BEP message, made by `connection.Connection.receive_data`."""

from __future__ import annotations

from dataclasses import dataclass

from untrusted_s3.bep import bep_pb2 as pb


@dataclass(frozen=True, slots=True)
class HelloReceived:
    """The peer's Hello."""

    device_name: str
    client_name: str
    client_version: str
    num_connections: int


@dataclass(frozen=True, slots=True)
class ClusterConfigReceived:
    """The folders that the peer shares with us, and how far it knows each device's index."""

    folders: tuple[pb.Folder, ...]


@dataclass(frozen=True, slots=True)
class IndexReceived:
    """File infos of one folder.

    Attributes:
        folder: The folder ID.
        files: Serialized FileInfo messages, each exactly as received.
        update: False for an Index, which replaces the peer's earlier index; true for an IndexUpdate, which adds to it.
        last_sequence: The sequence number of the last file info; 0 from older peers.
        prev_sequence: That of the last file info in the message before; 0 in an Index and from older peers.
    """

    folder: str
    files: tuple[bytes, ...]
    update: bool
    last_sequence: int
    prev_sequence: int


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """A request for `size` bytes at `offset` of the file `name`.

    `hash` is the block token, empty from Syncthing before 1.28.1.
    """

    id: int
    folder: str
    name: str
    offset: int
    size: int
    hash: bytes
    from_temporary: bool


@dataclass(frozen=True, slots=True)
class UnanswerableRequestReceived:
    """A request that no stored block can match; `reason` says why. The answer is that there is no such file."""

    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class ResponseReceived:
    """The answer to our request `id`. `data` is a view of the message and keeps it in memory."""

    id: int
    data: memoryview
    code: int


@dataclass(frozen=True, slots=True)
class UnaskedResponseSkipped:
    """A Response to no request of ours, or to one that nobody waits for any more. It was not decoded."""


@dataclass(frozen=True, slots=True)
class DownloadProgressReceived:
    """News of files that the peer has in part. They need no answer."""


@dataclass(frozen=True, slots=True)
class PingReceived:
    """A sign of life."""


@dataclass(frozen=True, slots=True)
class CloseReceived:
    """The peer closes the connection, for `reason`."""

    reason: str


@dataclass(frozen=True, slots=True)
class UnknownMessageSkipped:
    """A message of an unknown type."""

    type: int


Event = (
    HelloReceived
    | ClusterConfigReceived
    | IndexReceived
    | RequestReceived
    | UnanswerableRequestReceived
    | ResponseReceived
    | UnaskedResponseSkipped
    | DownloadProgressReceived
    | PingReceived
    | CloseReceived
    | UnknownMessageSkipped
)
