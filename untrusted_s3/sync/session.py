"""A connected peer: which folders it shares with us, its index in and ours out, its requests and our own.

Responses are matched to requests as they arrive; all other messages are handled one after the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from untrusted_s3 import __version__, limits
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.cluster_config import FolderOffer, IndexState, folder_message, index_start, read_offer
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import with_sequence
from untrusted_s3.byte_budget import ByteBudget
from untrusted_s3.counters import Counters
from untrusted_s3.errors import (
    BlockUnavailable,
    DataError,
    FolderRefused,
    ProtocolError,
    RemoteProtocolError,
    StateDamaged,
    StoreError,
)
from untrusted_s3.store.records import PeerRecord
from untrusted_s3.structured_logging import printable
from untrusted_s3.sync.connection import PeerConnection
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.index_in import take_index
from untrusted_s3.sync.message_queue import MessageMemory, MessageQueue
from untrusted_s3.sync.responder import Responder, matches

CLIENT_NAME = "untrusted-s3"
_LONGEST_REASON = 200
_logger = structlog.get_logger()


class Host(Protocol):
    """What a session needs of the gateway."""

    device_id: DeviceID
    device_name: str
    counters: Counters
    responder: Responder
    message_memory: MessageMemory

    async def admit(self, session: Session) -> PeerRecord | None:
        """The record of the session's device if it is an accepted one; None makes the session end."""
        ...

    async def folder_for(self, offer: FolderOffer) -> Folder:
        """The folder of an offer, created where it is new. Raises FolderRefused, StoreError or DataError."""
        ...

    def folder(self, folder_id: str) -> Folder | None:
        """An open folder."""
        ...

    def confirm(self, session: Session) -> PeerRecord | None:
        """The peer has sent its first cluster config: it means this connection to be the one. The device's record, or
        None where the session has to end, and was ended."""
        ...

    def refused(self, device_id: DeviceID, refusals: Mapping[str, Refusal]) -> None:
        """Which of a peer's folders are refused, by folder ID; in place of what was said before."""
        ...

    def ended(self, session: Session, error: Exception | None) -> None:
        """The session is over."""
        ...


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a folder of a peer is refused, and the peer's label for it."""

    label: str
    reason: str


@dataclass(slots=True)
class _Share:
    """A folder that both sides share: the task sends our index, `peer_index_id` names the peer's."""

    folder: Folder
    peer_index_id: int
    sender: asyncio.Task[None]


class Session:
    """One connection to a peer, from TLS on. Implements `transport.TransportHandler` and `puller.Source`."""

    def __init__(self, host: Host, transport: PeerConnection) -> None:
        self.device_id: DeviceID | None = None
        self.hello: events.HelloReceived | None = None
        self.peer: PeerRecord | None = None
        self.transport = transport
        self._host = host
        self._messages = MessageQueue(host.message_memory, transport)
        self._shares: dict[str, _Share] = {}
        self._refusals: dict[str, Refusal] = {}
        self._confirmed = False
        self._ended = False
        self._requests: dict[int, asyncio.Future[events.ResponseReceived]] = {}
        self._answered_at = float("-inf")
        self._window = ByteBudget(limits.REQUEST_WINDOW)
        self._outgoing = host.responder.budget.share()
        self._sending = asyncio.Lock()
        self._announced: dict[str, int] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def shared_folders(self) -> list[str]:
        """The IDs of the folders that are shared over this connection."""
        return sorted(self._shares)

    # TransportHandler

    def secured(self) -> None:
        self.device_id = self.transport.peer_device_id
        if self.device_id == self._host.device_id:
            raise RemoteProtocolError("the peer is ourselves")
        hello = self.transport.bep.hello(
            self._host.device_name, CLIENT_NAME, f"v{__version__}", time.time_ns(), time.monotonic()
        )
        self.transport.write(hello)
        self._task = asyncio.create_task(self._guarded(self._converse))

    def received(self, event: events.Event) -> None:
        if isinstance(event, events.ResponseReceived):
            future = self._requests.pop(event.id, None)
            if future is not None and not future.done():
                self._answered_at = time.monotonic()
                future.set_result(event)
            return
        self._messages.put(event)

    def buffered(self, size: int) -> None:
        self._messages.buffered(size)

    def closed(self, error: Exception | None) -> None:
        self._stop()
        self._host.ended(self, error)

    def end(self, reason: str) -> None:
        """Says Close and takes part in nothing any more, though it may be a while until the connection is gone."""
        self.transport.close(reason)
        self._stop()

    def say_close(self, reason: str) -> None:
        """Says Close and takes part in nothing any more, and lets the peer end the connection."""
        self.transport.say_close(reason)
        self._stop()

    def _stop(self) -> None:
        self._ended = True
        self._messages.drop()
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        for future in self._requests.values():
            if not future.done():
                future.set_exception(BlockUnavailable("the connection to the peer is gone"))
        for folder_id in list(self._shares):
            self._unshare(folder_id)

    # The conversation

    async def _guarded(self, conversation: Callable[[], Awaitable[None]]) -> None:
        """Lets an error in a part of the conversation end the connection."""
        try:
            await conversation()
        except (ProtocolError, StoreError, DataError, StateDamaged) as error:
            # Store trouble too: the peer comes back, and then the store may serve again.
            self.transport.fail(error)
        except Exception as error:
            _logger.exception("a fault of our own in a session", device=str(self.device_id))
            self.transport.fail(error)

    async def _converse(self) -> None:
        hello = await self._messages.get()
        assert isinstance(hello, events.HelloReceived)
        self.hello = hello
        self.peer = await self._host.admit(self)
        if self.peer is None:
            self.transport.close("unknown device")
            return
        self.transport.admit()
        self._send_cluster_config()
        while not self._ended:
            await self._handle(await self._messages.get())
            # What a peer makes us say must not pile up where it does not listen.
            await self.transport.drained()

    async def _handle(self, event: events.Event) -> None:
        match event:
            case events.RequestReceived():
                await self._answer(event)
            case events.IndexReceived():
                await self._take_index(event)
            case events.ClusterConfigReceived(folders):
                await self._take_cluster_config(folders)
            case events.CloseReceived(reason):
                raise RemoteProtocolError(f"closed by the peer: {printable(reason[:_LONGEST_REASON])}")
            case _:
                pass

    # Cluster config

    async def _take_cluster_config(self, folders: Sequence[pb.Folder]) -> None:
        if not self._confirmed:
            self.peer = self._host.confirm(self)
            if self.peer is None:
                return
            self._confirmed = True
        self._refusals = {}
        offers: dict[str, tuple[FolderOffer, Folder]] = {}
        for message in folders:
            accepted = await self._consider(message)
            if accepted is not None:
                offers[message.id] = accepted
        self._host.refused(self._device_id, self._refusals)
        for folder_id in list(self._shares):
            self._unshare(folder_id)
        for offer, folder in offers.values():
            self._share(offer, folder)
        self._offer_again({message.id for message in folders})
        self._send_cluster_config()

    def _offer_again(self, listed: set[str]) -> None:
        """Forgets what was announced to a peer that does not list all that we offer.

        Its user may have added the folder only now. Where it is to receive encrypted data it cannot say so, for it
        learns the token from our offer. A gateway takes an offer at once or never, and might offer something to us.
        """
        assert self.hello is not None and self.peer is not None
        if set(self.peer.share) - listed and self.hello.client_name != CLIENT_NAME:
            self._announced = None

    async def _consider(self, message: pb.Folder) -> tuple[FolderOffer, Folder] | None:
        try:
            offer = read_offer(message, self._host.device_id, self._device_id)
            folder = await self._host.folder_for(offer)
        except FolderRefused as error:
            self._refusals[message.id] = Refusal(message.label, str(error))
            return None
        return None if offer.paused else (offer, folder)

    def folder_opened(self) -> None:
        """There is a new folder, which may be one to offer."""
        if self._confirmed:
            self._send_cluster_config()

    def _send_cluster_config(self) -> None:
        """Tells the peer the folders that are shared, with what we know of its index, and, once it has spoken, those
        that the operator wants offered to it.

        None that we refuse: the peer would close the connection over the same trouble. Says nothing that it said
        before: two gateways would answer each other for ever.
        """
        assert self.peer is not None
        offered = set(self.peer.share) - self._refusals.keys() if self._confirmed else set()
        peer_indexes = {
            folder_id: folder.pending.received(self._device_id) if folder_id in self._shares else IndexState()
            for folder_id in sorted(offered | self._shares.keys())
            if (folder := self._host.folder(folder_id)) is not None
        }
        content = {folder_id: state.index_id for folder_id, state in peer_indexes.items()}
        if content == self._announced:
            return
        self._announced = content
        messages = []
        for folder_id, peer_index in peer_indexes.items():
            folder = self._host.folder(folder_id)
            assert folder is not None
            record = folder.record
            messages.append(
                folder_message(
                    folder_id,
                    record.label,
                    record.token,
                    self._host.device_id,
                    folder.own_index,
                    self._device_id,
                    peer_index,
                )
            )
        self.transport.write(self.transport.bep.cluster_config(messages, time.monotonic()))

    def _share(self, offer: FolderOffer, folder: Folder) -> None:
        folder.peer_index(self._device_id, offer.peer)
        start = index_start(offer.known, folder.own_index)
        sender = asyncio.create_task(self._guarded(partial(self._send_index, folder, start)))
        self._shares[offer.folder_id] = _Share(folder, offer.peer.index_id, sender)
        folder.puller.add_source(self._device_id, self)
        _logger.info("folder shared", folder=offer.folder_id, device=str(self._device_id), index_from=start)

    def _unshare(self, folder_id: str) -> None:
        share = self._shares.pop(folder_id)
        share.sender.cancel()
        share.folder.puller.remove_source(self._device_id, self)

    # Indexes

    async def _take_index(self, event: events.IndexReceived) -> None:
        share = self._shares.get(event.folder)
        if share is None:
            # On its way while we refused or dropped the folder, or a peer that does not care: nothing to store.
            return
        try:
            await take_index(share.folder, self._device_id, share.peer_index_id, event)
            self._host.counters.index_entries_received.inc(len(event.files))
        except FolderRefused as error:
            self._refusals[event.folder] = Refusal(share.folder.record.label, str(error))
            self._host.refused(self._device_id, self._refusals)
            self._unshare(event.folder)
        share.folder.puller.wake()

    async def _send_index(self, folder: Folder, start: int) -> None:
        """Sends our index from a sequence number on, and then every change, until cancelled."""
        update, sent = start > 0, start
        while True:
            batch: list[bytes] = []
            size, last = 0, sent
            for sequence, raw in folder.state.file_infos_after(sent, limits.INDEX_BATCH_FILES):
                batch.append(with_sequence(raw, sequence))
                last = sequence
                size += len(raw)
                if size > limits.INDEX_BATCH_SIZE:
                    break
            if not batch:
                await folder.changed_since(max(sent, folder.state.sequence))
                continue
            message = self.transport.bep.index(
                folder.record.folder_id,
                batch,
                update=update,
                prev_sequence=sent,
                last_sequence=last,
                now=time.monotonic(),
            )
            self.transport.write(message)
            self._host.counters.index_entries_sent.inc(len(batch))
            update, sent = True, last
            await self.transport.drained()

    # Blocks that the peer wants

    async def _answer(self, request: events.RequestReceived) -> None:
        share = self._shares.get(request.folder)
        entry = share.folder.state.entry(request.name) if share else None
        if share is None or entry is None or request.from_temporary or not matches(request, entry):
            self._host.counters.requests_refused.inc()
            await self._send_response(request.id, memoryview(b""), pb.NO_SUCH_FILE)
            return
        # A peer that reads slowly waits here with its own requests, not in everybody's memory.
        await self._outgoing.acquire(request.size)

        async def answer(data: memoryview, code: int) -> None:
            try:
                await self._send_response(request.id, data, code)
            finally:
                self._outgoing.release(request.size)

        self._host.responder.submit(share.folder.object_key(entry), request.offset, request.size, answer)

    async def _send_response(self, request_id: int, data: memoryview, code: int) -> None:
        # One at a time: what is encrypted for a peer that does not read is a second copy.
        async with self._sending:
            if not self.transport.is_open:
                return
            self.transport.write(*self.transport.bep.response(request_id, data, code, time.monotonic()))
            await self.transport.drained()
        if len(data):
            self._host.counters.blocks_sent.inc()
            self._host.counters.block_bytes_sent.inc(len(data))

    # Blocks that we want

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        await self._window.acquire(block.size)
        try:
            if not self.transport.is_open:
                raise BlockUnavailable("the connection to the peer is gone")
            request_id, message = self.transport.bep.request(folder_id, name, number, block, time.monotonic())
            future: asyncio.Future[events.ResponseReceived] = asyncio.get_running_loop().create_future()
            self._requests[request_id] = future
            self.transport.write(message)
            try:
                response = await self._answer_to(future, block.size)
            finally:
                self._requests.pop(request_id, None)
        finally:
            self._window.release(block.size)
        if response.code != pb.NO_ERROR:
            raise BlockUnavailable(f"the peer answers {_error_name(response.code)}")
        if len(response.data) != block.size:
            raise BlockUnavailable(f"the peer sends {len(response.data)} bytes instead of {block.size}")
        self._host.counters.blocks_received.inc()
        self._host.counters.block_bytes_received.inc(block.size)
        return response.data

    async def _answer_to(self, future: asyncio.Future[events.ResponseReceived], size: int) -> events.ResponseReceived:
        """Waits for a block of `size` bytes while others that were asked for before it come in, for lines are slow."""
        asked = time.monotonic()
        last = asked + limits.REQUEST_TIMEOUT + self._window.used / limits.SLOWEST_UPLOAD
        while not future.done():
            next_one = max(asked, self._answered_at) + limits.REQUEST_TIMEOUT + size / limits.SLOWEST_UPLOAD
            now = time.monotonic()
            if now >= min(next_one, last):
                raise BlockUnavailable(f"no answer within {now - asked:.0f} s")
            await asyncio.wait([future], timeout=min(next_one, last) - now)
        return future.result()

    @property
    def _device_id(self) -> DeviceID:
        assert self.device_id is not None
        return self.device_id


def _error_name(code: int) -> str:
    return pb.ErrorCode.Name(code) if code in pb.ErrorCode.values() else f"error {code}"
