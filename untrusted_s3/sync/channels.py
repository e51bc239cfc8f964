"""What flows over a connection beside the conversation: queued messages, and requests both ways."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.counters import Counters
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.connection import PeerConnection
from untrusted_s3.sync.memory import SyncMemory
from untrusted_s3.sync.message_queue import MessageQueue
from untrusted_s3.sync.requests_in import RequestsIn
from untrusted_s3.sync.requests_out import RequestsOut
from untrusted_s3.sync.responder import Responder


class Resources(Protocol):
    """What all connections of a gateway share.

    Attributes:
        counters: The gateway's counters.
        responder: Reads the blocks that peers request.
        memory: Accounts of what peers make us keep in memory.
        sync_settings: How folders are synchronized.
    """

    counters: Counters
    responder: Responder
    memory: SyncMemory
    sync_settings: SyncSettings


@dataclass(frozen=True, slots=True)
class Channels:
    """The channels of one connection.

    Attributes:
        messages: The messages that wait for the conversation.
        requests_in: The peer's requests.
        requests_out: Our requests.
    """

    messages: MessageQueue
    requests_in: RequestsIn
    requests_out: RequestsOut

    @classmethod
    def of(cls, resources: Resources, device_id: DeviceID, transport: PeerConnection) -> Channels:
        """Return the channels of a new connection with a device."""
        settings, memory = resources.sync_settings, resources.memory
        messages = MessageQueue(memory.messages, device_id, transport, settings.queued_message_memory)
        return cls(
            messages=messages,
            requests_in=RequestsIn(
                transport,
                memory.blocks_out.share(device_id, settings.request_window),
                resources.responder,
                resources.counters,
            ),
            requests_out=RequestsOut(
                transport,
                memory.requested.share(device_id, settings.request_window),
                resources.counters,
                settings,
                paused_seconds=lambda: messages.paused_seconds,
            ),
        )

    def stop(self) -> None:
        """Stop them: the connection ends."""
        self.messages.close()
        self.requests_in.stop()
        self.requests_out.stop()
