"""What a session needs of the connection to its peer; `untrusted_s3.connections` provides it."""

from __future__ import annotations

from typing import Protocol

from untrusted_s3.bep.connection import Connection
from untrusted_s3.bep.device_id import DeviceID


class PausableConnection(Protocol):
    """A connection that a queue of its messages can hold back or end."""

    def pause_reading(self) -> None:
        """Read nothing more from the peer until `resume_reading`."""
        ...

    def resume_reading(self) -> None:
        """Read from the peer again."""
        ...

    def fail(self, error: Exception) -> None:
        """Tell the peer `error` in a Close and end the connection."""
        ...

    def abort(self) -> None:
        """End the connection at once."""
        ...


class PeerConnection(PausableConnection, Protocol):
    """An authenticated BEP connection to a peer.

    Attributes:
        bep: Makes the messages that `write` sends.
        address: The peer's address as a URL.
        dialed: Whether we opened the connection.
        opened: When the connection was begun, by the monotonic clock.
        bytes_received: Bytes received from the peer, those of incomplete messages included.
    """

    bep: Connection
    address: str
    dialed: bool
    opened: float
    bytes_received: int

    @property
    def peer_device_id(self) -> DeviceID:
        """The peer's device ID; known once the handler's `secured` was called."""
        ...

    @property
    def is_open(self) -> bool:
        """Whether anything can still be sent."""
        ...

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        """Send bytes that `bep` made; nothing is sent while the connection closes."""
        ...

    async def drained(self) -> None:
        """Wait until most of what was written has been sent."""
        ...

    def admit(self) -> None:
        """Accept the peer: read what it sends after its Hello."""
        ...

    def close(self, reason: str) -> None:
        """Send a Close and end the connection in order."""
        ...

    def say_close(self, reason: str) -> None:
        """Send a Close and let the peer end the connection."""
        ...
