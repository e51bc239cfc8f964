"""What an untrusted device is to the model. It has no key: of `Announced` it must not look at `real`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tests.claims.version import Announced, EncryptedEntry, Seen


class Peer(Protocol):
    """The other end of a connection."""

    @property
    def number(self) -> int:
        """The device's number. It stays the same, like a device ID."""

    @property
    def untrusted(self) -> bool:
        """Whether the other device is untrusted too."""

    @property
    def relays(self) -> bool:
        """Whether it is untrusted and one of our gateways, which speaks for the devices behind it."""

    def fetch(self, announced: Announced) -> bool:
        """Ask for the blocks of a version of a file. Return whether they came.

        A trusted device sends what is now in the file, whatever it announces. An untrusted one sends what it has
        stored under that name and content.
        """


class Greeting(NamedTuple):
    """What a device says when it connects (ClusterConfig): its index, and what it has of the other's index.

    Attributes:
        known_index_id: The other's index id when its index was last received, or 0.
        known_sequence: The highest sequence number received of it.
    """

    index_id: int
    known_index_id: int
    known_sequence: int


class Batch(NamedTuple):
    """An index message.

    Attributes:
        full: Whether it replaces all that was sent before (Index), or adds to it (IndexUpdate).
    """

    entries: Sequence[EncryptedEntry]
    full: bool


class UntrustedDevice(Protocol):
    """An untrusted device on the level of BEP. Between any two calls it may be cut off or crash."""

    @property
    def number(self) -> int:
        """The device's number."""

    def connect(self, peer: Peer, greeting: Greeting) -> Greeting:
        """A device connects and says what it is and knows. Return the same of this side, for that device.

        If the device's index id is another than before, all that it said before is void. It sends entries above
        `known_sequence` if `known_index_id` is its index id and it has that many, else all, as a full index.
        """

    def receive(self, device: int, entries: Sequence[EncryptedEntry], full: bool) -> None:
        """A connected device sends index entries, in order of their sequence numbers."""

    def to_send(self, device: int) -> Batch | None:
        """Return what is to be sent to a connected device next, or None. It arrives."""

    def step(self) -> bool:
        """Do one piece of work, like pulling one file. Return whether anything was done."""

    def disconnect(self, device: int) -> None:
        """The connection ended."""

    def serve(self, announced: Announced) -> bool:
        """A connected device asks for the blocks of a version. Return whether this content is stored."""

    def pass_time(self, seconds: int) -> None:
        """Time passes."""

    def crash(self, lose_state: bool) -> None:
        """The process ends and starts again, with no connections, perhaps without its local disk."""

    def stored(self) -> set[tuple[str, Seen]]:
        """Return the versions that are stored now, current ones and others."""
