"""Detects peers that stop reading."""

from __future__ import annotations

from untrusted_s3.errors import RemoteProtocolError
from untrusted_s3.settings import ConnectionSettings


class StallTimer:
    """How long data has been waiting for a peer to read. Times and byte counts are arguments."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._timeout = settings.stall_timeout
        self._slowest = settings.slowest_peer
        self._began: tuple[float, int] | None = None

    @property
    def running(self) -> bool:
        """Whether data waits for the peer."""
        return self._began is not None

    def start(self, now: float, sent: int) -> None:
        """Data waits from now on, after `sent` bytes have left in all."""
        self._began = now, sent

    def stop(self) -> None:
        """No data waits any longer."""
        self._began = None

    def check(self, now: float, sent: int) -> None:
        """Raise RemoteProtocolError if the peer has made data wait too long and has read too slowly meanwhile."""
        if self._began is None:
            return
        began, sent_before = self._began
        read = sent - sent_before
        if now >= began + max(self._timeout, read / self._slowest):
            raise RemoteProtocolError(f"the peer reads too slowly: {read} bytes in {now - began:.0f} s")
