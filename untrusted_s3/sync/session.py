"""The conversation with a connected peer: which folders are shared over the connection.

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

from untrusted_s3 import __version__
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.cluster_config import FolderOffer, IndexState, index_start, read_offer
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import (
    DataError,
    FolderNotAllowed,
    FolderRefused,
    FolderUnavailable,
    LocalDiskFailed,
    ProtocolError,
    RemoteProtocolError,
    StateDamaged,
    StoreError,
)
from untrusted_s3.store.records import PeerRecord
from untrusted_s3.structured_logging import printable
from untrusted_s3.supervisor import TaskSet
from untrusted_s3.sync.channels import Channels, Resources
from untrusted_s3.sync.cluster_configs_out import ClusterConfigsOut, Refusal
from untrusted_s3.sync.connection import PeerConnection
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.index_out import send_index
from untrusted_s3.sync.message_queue import MessageQueue
from untrusted_s3.sync.refused_index import RefusedIndex, is_refusal

CLIENT_NAME = "untrusted-s3"
_LONGEST_REASON = 200
# They need no answer, so they do not wait behind others either.
_MEANINGLESS = (
    events.PingReceived | events.DownloadProgressReceived | events.UnknownMessageSkipped | events.UnaskedResponseSkipped
)
_logger = structlog.get_logger()


class Host(Resources, Protocol):
    """What a session needs of the gateway.

    Attributes:
        device_id: Our device ID.
        device_name: Our name, which peers see.
    """

    device_id: DeviceID
    device_name: str

    async def admit(self, session: Session) -> PeerRecord | None:
        """Return the record of the session's device, or None when the device is not accepted; the session then ends."""
        ...

    async def folder_for(self, offer: FolderOffer, by: DeviceID, *, create: bool) -> Folder:
        """Return the folder of an offer by a device. With `create`, one that the store does not have is created.

        Raises FolderRefused, StoreError or DataError.
        """
        ...

    def folder(self, folder_id: str) -> Folder | None:
        """Return an open folder."""
        ...

    def confirm(self, session: Session) -> PeerRecord | None:
        """Note that the peer has sent its first cluster config, and so means to use this connection.

        Return the device's record, or None when the session was ended.
        """
        ...

    def refused(self, device_id: DeviceID, refusals: Mapping[str, Refusal]) -> None:
        """Note the peer's refused folders by folder ID; they replace those noted before."""
        ...

    def index_refused(self, device_id: DeviceID, folder_id: str, refused: RefusedIndex) -> None:
        """Note that a peer cannot decrypt our index of a folder."""
        ...

    def ended(self, session: Session, error: Exception | None) -> None:
        """Note the end of the session."""
        ...


@dataclass(slots=True)
class _Share:
    """A folder that both sides share.

    Attributes:
        folder: The folder.
        peer_index: The peer's index as it announced it.
        trusted: Whether the peer encrypts for us.
        index_from: The sequence number after which our index is sent to it.
        sender: The task that sends our index.
    """

    folder: Folder
    peer_index: IndexState
    trusted: bool
    index_from: int
    sender: asyncio.Task[None]


class Session:
    """The conversation over one connection. Handles the connection's events and is a `sources.Source`.

    Attributes:
        transport: The connection.
        device_id: The peer's device ID, or None before it is authenticated.
        hello: The peer's Hello, or None before it came.
        peer: The record of the peer, or None before it is admitted.
    """

    def __init__(self, host: Host, transport: PeerConnection) -> None:
        self.transport = transport
        self.device_id: DeviceID | None = None
        self.hello: events.HelloReceived | None = None
        self.peer: PeerRecord | None = None
        self._host = host
        self._channels: Channels | None = None
        self._shares: dict[str, _Share] = {}
        self._refusals: dict[str, Refusal] = {}
        self._unavailable: list[FolderOffer] = []
        self._received_before = 0  # the bytes that had come with the index message before
        # The folders of whose indexes nothing more is taken over this connection.
        self._held_back: set[str] = set()
        self._confirmed = False
        self._ended = False
        self._cluster_configs = ClusterConfigsOut(host.device_id, transport)
        self._conversation: asyncio.Task[None] | None = None
        self._tasks = TaskSet()

    @property
    def shared_folders(self) -> list[str]:
        """The IDs of the folders that are shared over this connection."""
        return sorted(self._shares)

    @property
    def requests_under_way(self) -> int:
        """The number of our requests that wait for a response."""
        return len(self._channels.requests_out) if self._channels is not None else 0

    # The connection's events

    def secured(self) -> None:
        """Begin the conversation: the peer is authenticated."""
        self.device_id = self.transport.peer_device_id
        if self.device_id == self._host.device_id:
            raise RemoteProtocolError("the peer is ourselves")
        self._channels = Channels.of(self._host, self.device_id, self.transport)
        hello = self.transport.bep.hello(
            self._host.device_name, CLIENT_NAME, f"v{__version__}", time.time_ns(), asyncio.get_running_loop().time()
        )
        self.transport.write(hello)
        self._conversation = self._start(partial(self._converse, self._channels.messages))

    def received(self, event: events.Event) -> None:
        """Take a message of the peer."""
        assert self._channels is not None
        if isinstance(event, events.ResponseReceived):
            self._channels.requests_out.received(event)
        elif not isinstance(event, _MEANINGLESS):
            self._channels.messages.put(event)

    def buffered(self, size: int) -> None:
        """Note that `size` bytes of an incomplete message are in memory."""
        if self._channels is not None:
            self._channels.messages.buffered(size)

    def closed(self, error: Exception | None) -> None:
        """Note the end of the connection."""
        self._stop()
        self._host.ended(self, error)

    # What the gateway calls

    def end(self, reason: str) -> None:
        """Send a Close and end the connection; the session shares nothing from now on."""
        self.transport.close(reason)
        self._stop()

    def say_close(self, reason: str) -> None:
        """Send a Close and let the peer end the connection; the session shares nothing from now on."""
        self.transport.say_close(reason)
        self._stop()

    def folder_opened(self) -> None:
        """Note that a folder was opened, which may be one to offer."""
        if self._confirmed and not self._ended:
            self._send_cluster_config()

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        """Return one encrypted block of the peer. Raises BlockUnavailable."""
        assert self._channels is not None
        return await self._channels.requests_out.request_block(folder_id, name, number, block)

    # The conversation

    def _start(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return self._tasks.start(self._guarded(work))

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        """Let an error in a part of the conversation end the connection."""
        try:
            await work()
        except (ProtocolError, StoreError, DataError, StateDamaged, LocalDiskFailed) as error:
            # Trouble of the store or the disk too: the peer comes back, and then they may serve again.
            self.transport.fail(error)
        except Exception as error:
            _logger.exception("internal error in a session", device=str(self.device_id))
            self.transport.fail(error)

    def _stop(self) -> None:
        self._ended = True
        if self._channels is not None:
            self._channels.stop()
        if self._conversation is not None and self._conversation is not asyncio.current_task():
            self._conversation.cancel()
        for folder_id in list(self._shares):
            self._unshare(folder_id)

    async def _converse(self, messages: MessageQueue) -> None:
        hello = await messages.get()
        assert isinstance(hello, events.HelloReceived)
        self.hello = hello
        self.peer = await self._host.admit(self)
        if self.peer is None:
            self.transport.close("unknown device")
            return
        self.transport.admit()
        self._send_cluster_config()
        while not self._ended:
            await self._handle(await messages.get())
            # Many messages of one peer must not hold up the others: neither call has to wait.
            await asyncio.sleep(0)
            # What a peer makes us send must not pile up when the peer does not read.
            await self.transport.drained()

    async def _handle(self, event: events.Event) -> None:
        match event:
            case events.RequestReceived():
                await self._answer(event)
            case events.UnanswerableRequestReceived():
                assert self._channels is not None
                await self._channels.requests_in.refuse(event.id)
            case events.IndexReceived():
                await self._take_index(event)
            case events.ClusterConfigReceived(folders):
                await self._take_cluster_config(folders)
            case events.CloseReceived(reason):
                self._note_refused_index(reason)
                raise RemoteProtocolError(f"closed by the peer: {printable(reason[:_LONGEST_REASON])}")
            case _:
                pass

    def _note_refused_index(self, reason: str) -> None:
        for folder_id, share in self._shares.items():
            if share.trusted and is_refusal(reason, folder_id):
                text = printable(reason[:_LONGEST_REASON])
                suspects = share.folder.suspects(self._device_id, share.index_from)
                self._host.index_refused(self._device_id, folder_id, RefusedIndex(text, suspects))

    async def _answer(self, request: events.RequestReceived) -> None:
        assert self._channels is not None
        share = self._shares.get(request.folder)
        block = None
        if share is not None and not request.from_temporary:
            block = await share.folder.requested_block(request, self._device_id)
        if block is None:
            await self._channels.requests_in.refuse(request.id)
        else:
            await self._channels.requests_in.answer(request.id, block)

    async def _take_index(self, event: events.IndexReceived) -> None:
        await self._keep_pace(event)  # to unpack it cost something, whatever it is for
        share = self._shares.get(event.folder)
        if share is None or self._only_reads:
            # It was on its way when we refused the folder, or the peer ignores the refusal; or nothing of it is taken.
            return
        skipped = event.folder in self._held_back and event.update
        if not skipped:
            self._held_back.discard(event.folder)
        try:
            if skipped:
                await share.folder.skip_index(self._device_id, event)
            elif not await share.folder.take_index(self._device_id, share.peer_index.index_id, event):
                self._hold_back(event.folder, share.folder)
            self._host.counters.index_entries_received.inc(len(event.files))
        except FolderRefused as error:
            self._refusals[event.folder] = Refusal(share.folder.record.label, str(error), error.kind)
            self._host.refused(self._device_id, self._refusals)
            self._unshare(event.folder)

    async def _keep_pace(self, event: events.IndexReceived) -> None:
        """Wait where the peer sends more file infos than its bytes can honestly hold."""
        received, self._received_before = self._received_before, self.transport.bytes_received
        delay = self._host.memory.index_paces.delay(
            self._device_id,
            sum(map(len, event.files)),
            self.transport.bytes_received - received,
            asyncio.get_running_loop().time(),
        )
        if delay > 0:
            await asyncio.sleep(delay)

    def _hold_back(self, folder_id: str, folder: Folder) -> None:
        """Take nothing more of an index for which there is no room. When there is some, the peer has to come again."""
        self._held_back.add(folder_id)
        device = str(self._device_id)
        _logger.warning("index held back", folder=folder_id, device=device, bytes=folder.held_back[self._device_id])

        async def wait() -> None:
            await folder.index_room(self._device_id)
            if folder_id in self._shares and folder_id in self._held_back:
                _logger.info("index asked for again", folder=folder_id, device=device)
                self.end("the index is asked for again")

        self._start(wait)

    # Cluster configs

    async def _take_cluster_config(self, folders: Sequence[pb.Folder]) -> None:
        if not self._confirmed:
            self.peer = self._host.confirm(self)
            if self.peer is None:
                return
            self._confirmed = True
        delay = self._host.memory.share_paces.delay(
            self._device_id, 1 + len(folders), asyncio.get_running_loop().time()
        )
        if delay > 0:
            # Sharing a folder again costs a look at it, an index sent from its beginning, and a line in the log.
            await asyncio.sleep(delay)
        self._refusals, self._unavailable = {}, []
        offers: dict[str, tuple[FolderOffer, Folder]] = {}
        for message in folders:
            accepted = await self._consider(message)
            if accepted is not None:
                offers[message.id] = accepted
                await accepted[1].prepare_index(self._device_id, accepted[0].peer)
                if not self._only_reads:
                    await accepted[1].begin_index(self._device_id, accepted[0].peer)
        if self._ended:
            return
        self._host.refused(self._device_id, self._refusals)
        for folder_id in list(self._shares):
            self._unshare(folder_id)
        if any(self._host.folder(folder_id) is not folder for folder_id, (_, folder) in offers.items()):
            self.end("a folder is opened again")
            return
        for offer, folder in offers.values():
            self._share(offer, folder)
        assert self.hello is not None and self.peer is not None
        if set(self.peer.share) - {message.id for message in folders} and self.hello.client_name != CLIENT_NAME:
            self._cluster_configs.forget()
        self._send_cluster_config()

    async def _consider(self, message: pb.Folder) -> tuple[FolderOffer, Folder] | None:
        assert self.peer is not None
        try:
            offer = read_offer(message, self._host.device_id, self._device_id)
            if not self.peer.may_share(offer.folder_id):
                raise FolderNotAllowed("the gateway's operator lets this device share other folders only")
            if self.peer.untrusted and offer.trusted:
                raise FolderNotAllowed("the device claims to encrypt, and the gateway's operator says it is untrusted")
            try:
                folder = await self._host.folder_for(offer, self._device_id, create=not self._only_reads)
            except FolderUnavailable:
                self._unavailable.append(offer)
                raise
        except FolderRefused as error:
            self._refusals[message.id] = Refusal(message.label, str(error), error.kind)
            return None
        return None if offer.paused else (offer, folder)

    def _share(self, offer: FolderOffer, folder: Folder) -> None:
        if self._only_reads:
            folder.drop_index(self._device_id)
        else:
            folder.start_index(self._device_id, offer.peer)
        folder.note_known(offer.known)
        start = index_start(offer.known, folder.own_index)
        sender = self._start(partial(send_index, folder, self._device_id, start, self.transport, self._host.counters))
        self._shares[offer.folder_id] = _Share(folder, offer.peer, offer.trusted, start, sender)
        if not self._only_reads:
            assert self.hello is not None
            gateway = not offer.trusted and self.hello.client_name == CLIENT_NAME
            folder.add_source(self._device_id, self, trusted=offer.trusted, gateway=gateway)
        _logger.info("folder shared", folder=offer.folder_id, device=str(self._device_id), index_from=start)

    def _unshare(self, folder_id: str) -> None:
        share = self._shares.pop(folder_id)
        share.sender.cancel()
        share.folder.remove_source(self._device_id, self)

    def _send_cluster_config(self) -> None:
        assert self.peer is not None
        offered = set(filter(self.peer.may_share, self.peer.share)) if self._confirmed else set()
        offered -= self._refusals.keys()
        folders = [self._host.folder(folder_id) for folder_id in sorted(offered | self._shares.keys())]
        self._cluster_configs.send(
            [(folder, self._peer_index(folder)) for folder in folders if folder is not None],
            self._device_id,
            self._unavailable,
        )

    def _peer_index(self, folder: Folder) -> IndexState:
        """Return how much of its index the peer need not send."""
        share = self._shares.get(folder.record.folder_id)
        if share is None:
            return IndexState()
        return share.peer_index if self._only_reads else folder.received(self._device_id)

    @property
    def _only_reads(self) -> bool:
        """Whether the operator lets the peer announce nothing."""
        assert self.peer is not None
        return self.peer.read_only

    @property
    def _device_id(self) -> DeviceID:
        assert self.device_id is not None
        return self.device_id
