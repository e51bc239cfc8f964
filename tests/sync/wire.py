"""A connection to a peer without TLS and without a socket."""

from __future__ import annotations

import time

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.connection import Connection
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.framing import FrameDecoder


class Wire:
    """Keeps what is written and what was done. Implements `sync.connection.PeerConnection`."""

    def __init__(self, peer_device_id: DeviceID) -> None:
        self.peer_device_id = peer_device_id
        self.bep = Connection(time.monotonic())
        self.opened = time.monotonic()
        self.dialed = False
        self.bytes_received = 0
        self.address = "tcp://192.0.2.1:1"
        self.is_open = True
        self.reading = True
        self.written: list[bytes] = []
        self.error: Exception | None = None

    def write(self, *pieces: bytes | bytearray | memoryview) -> None:
        self.written += map(bytes, pieces)

    async def drained(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def admit(self) -> None:
        pass

    def close(self, reason: str) -> None:
        self.is_open = False

    def say_close(self, reason: str) -> None:
        self.is_open = False

    def fail(self, error: Exception) -> None:
        self.error = self.error or error
        self.is_open = False

    def abort(self) -> None:
        self.is_open = False

    def begin(self) -> None:
        """Say Hello and send a cluster config, so that requests may follow."""
        self.bep.hello("us", "untrusted-s3", "v1", 1, time.monotonic())
        self.bep.cluster_config([], time.monotonic())

    def requests(self) -> list[pb.Request]:
        """Return the requests that were written."""
        decoder = FrameDecoder()
        frames = decoder.receive_data(b"".join(self.written))
        return [pb.Request.FromString(bytes(frame.body)) for frame in frames if frame.type == pb.REQUEST]
