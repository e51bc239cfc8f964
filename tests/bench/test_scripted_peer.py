"""The scripted peer of tests and benches."""

from __future__ import annotations

import socket
import threading
from dataclasses import dataclass

import pytest

from bench.scripted_peer import RawPeer
from untrusted_s3.identity.certificate import generate


@dataclass
class Device:
    listen_address: str


def test_a_connection_that_is_closed_at_once_ends_the_handshake() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closing = threading.Thread(target=lambda: server.accept()[0].close())
        closing.start()
        with pytest.raises(ConnectionError):
            RawPeer(Device(f"tcp://127.0.0.1:{server.getsockname()[1]}"), generate())
        closing.join()
