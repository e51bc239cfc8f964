"""A scripted peer, for behaviour that real peers do not show on demand."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from typing import Protocol
from urllib.parse import urlsplit

from bench.patience import PATIENCE
from untrusted_s3.bep import events
from untrusted_s3.bep.connection import Connection
from untrusted_s3.connections.tls import TLSConnection, TLSRole, make_context
from untrusted_s3.errors import TLSFailed
from untrusted_s3.identity.certificate import Identity


class Listener(Protocol):
    """A device that can be dialed: a gateway or a real Syncthing."""

    listen_address: str


class RawPeer:
    """A device that sends a correct Hello and then any bytes."""

    def __init__(self, device: Listener, identity: Identity) -> None:
        """Raises ConnectionError if the device closes the connection before the end of the handshake."""
        self._socket = open_socket(device)
        self._tls = TLSConnection(make_context(identity), TLSRole.CLIENT)
        self._bep = Connection(time.monotonic())
        self._bep.skip_unasked = False
        self._events: list[events.Event] = []
        while not self._tls.handshake_complete:
            if not self._exchange():
                self.vanish()
                raise ConnectionAbortedError("the device closed the connection during the handshake")
        self.send(self._bep.hello("raw", "raw", "v0", 1, time.monotonic()))

    def send(self, data: bytes) -> None:
        self._tls.send_data(data)
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(self._tls.data_to_send())

    def wait_accepted(self) -> None:
        """Wait for the gateway's first cluster config."""
        while not any(isinstance(event, events.ClusterConfigReceived) for event in self._events):
            assert self._exchange(), "the gateway closed the connection"

    def closing_reason(self) -> str:
        """Wait until the gateway closes the connection, and return the reason it gives."""
        with contextlib.suppress(ConnectionError, TLSFailed):
            while self._exchange():
                pass
        self.vanish()
        reasons = [event.reason for event in self._events if isinstance(event, events.CloseReceived)]
        assert reasons, "the gateway gave no reason"
        return reasons[0]

    def receive_for(self, seconds: float) -> bool:
        """Receive once, if anything comes within so many seconds. Return whether anything came.

        What is sent has all the time that it needs: a part of a TLS record would break the connection.
        """
        readable = select.poll()
        readable.register(self._socket, select.POLLIN)
        if not readable.poll(seconds * 1000):
            return False
        with contextlib.suppress(ConnectionError, TLSFailed):
            self._exchange()
        return True

    def vanish(self) -> None:
        """Break the connection."""
        self._socket.close()

    def _exchange(self) -> bool:
        if data := self._tls.data_to_send():
            with contextlib.suppress(ConnectionError):  # what has come before the end can still be read
                self._socket.sendall(data)
        data = self._socket.recv(65_536)
        for piece in self._tls.receive_data(data):
            self._events += self._bep.receive_data(piece, time.monotonic())
        return bool(data) and not self._tls.closed


def open_socket(device: Listener) -> socket.socket:
    """Return a TCP connection to the device."""
    address = urlsplit(device.listen_address)
    return socket.create_connection((address.hostname, address.port), timeout=PATIENCE)
