"""The gateway as a whole: it owns the folders, the sessions and everything that runs beside them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from OpenSSL import SSL

from untrusted_s3 import limits
from untrusted_s3.bep.cluster_config import FolderOffer, check_token
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, FolderRefused, StoreError
from untrusted_s3.node.byte_budget import ByteBudget
from untrusted_s3.node.counters import Counters
from untrusted_s3.node.dialer import Dialer
from untrusted_s3.node.folder import Folder
from untrusted_s3.node.http import HTTPServer
from untrusted_s3.node.identity import Identity
from untrusted_s3.node.listener import Listener
from untrusted_s3.node.responder import Responder
from untrusted_s3.node.session import Session
from untrusted_s3.node.status import UnknownDevice, gateway_status
from untrusted_s3.node.tls import make_context
from untrusted_s3.node.transport import BEPTransport
from untrusted_s3.store import layout
from untrusted_s3.store.records import (
    FolderRecord,
    PeerRecord,
    create_or_read,
    open_store,
    read_folders,
    read_peers,
    read_record,
    write_record,
)
from untrusted_s3.store.s3 import S3Bucket

_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the operator decides: addresses to listen on (tcp://HOST:PORT), the HTTP address (HOST:PORT or None), the
    device name that peers see, the folder of the local cache, and bytes of memory for blocks on their way."""

    listen: tuple[str, ...]
    http: str | None
    name: str
    state_directory: Path
    buffer_memory: int = limits.DEFAULT_BUFFER_MEMORY


@dataclass(slots=True)
class PeerStatus:
    """An accepted device: its record, its connection if there is one, and what went wrong last."""

    record: PeerRecord
    session: Session | None = None
    client: str = ""
    error: str | None = None
    refused: dict[str, str] = field(default_factory=dict)


class Gateway:
    """One running gateway. Implements `session.Host`."""

    def __init__(self, bucket: S3Bucket, identity: Identity, settings: GatewaySettings) -> None:
        self.device_id = identity.device_id
        self.device_name = settings.name
        self.bucket = bucket
        self.settings = settings
        self.counters = Counters()
        self.folders: dict[str, Folder] = {}
        self.peers: dict[DeviceID, PeerStatus] = {}
        self.unknown_devices: OrderedDict[DeviceID, UnknownDevice] = OrderedDict()
        self.ready = False
        self._context: SSL.Context = make_context(identity)
        # Half for what comes in and half for what goes out, so that neither can starve the other.
        self._incoming = ByteBudget(settings.buffer_memory // 2)
        self.responder = Responder(bucket, ByteBudget(settings.buffer_memory // 2), self.counters)
        self._uploads = asyncio.Semaphore(limits.CONCURRENT_UPLOADS)
        self._listener = Listener(settings.listen, self._new_transport)
        self._dialer = Dialer(self, self._new_transport)
        self._http = HTTPServer(self, settings.http) if settings.http else None
        self._sessions: set[Session] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._folder_lock = asyncio.Lock()
        self._state_directory = settings.state_directory

    # Life

    async def start(self) -> None:
        """Opens every folder of the store, then listens and dials.

        Raises UsageError where a port is in use, StoreError or DataError where the store cannot be read.
        """
        # Before the folders, so that /healthz answers while a large log is read.
        if self._http is not None:
            await self._http.start()
        store = await open_store(self.bucket)
        self._state_directory = self.settings.state_directory / store.store_id
        for peer in await read_peers(self.bucket):
            self.peers[peer.device_id] = PeerStatus(peer)
        for record in await read_folders(self.bucket):
            await self._open_folder(record)
        await self._listener.start()
        self._run(self._dialer.run())
        self._run(self._heartbeat())
        self.ready = True
        _logger.info("ready", device_id=str(self.device_id), store=str(self.bucket.location), folders=len(self.folders))

    async def stop(self) -> None:
        """Stops taking work, writes down what is ready, says Close to every peer; within limits.DRAIN_TIMEOUT."""
        self.ready = False
        await self._listener.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for session in list(self._sessions):
            session.transport.close("shutting down")
        try:
            async with asyncio.timeout(limits.DRAIN_TIMEOUT):
                for folder in self.folders.values():
                    await folder.drain()
                await self.bucket.delete(layout.node_key(self.device_id))
        except (TimeoutError, StoreError) as error:
            _logger.warning(
                "could not write everything down before the stop; peers will send it again", error=str(error)
            )
        for folder in self.folders.values():
            folder.close()
        if self._http is not None:
            await self._http.stop()
        _logger.info("stopped")

    @property
    def listen_addresses(self) -> list[str]:
        """Where we listen, with the real ports."""
        return self._listener.addresses

    def status(self) -> dict[str, Any]:
        """The JSON of /api/status."""
        return gateway_status(self)

    def _run(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _logger.critical("a fault of our own", exc_info=task.exception())

    async def _heartbeat(self) -> None:
        while True:
            value = {"device_id": str(self.device_id), "name": self.device_name, "time": int(time.time())}
            try:
                await write_record(self.bucket, layout.node_key(self.device_id), value)
            except StoreError as error:
                _logger.warning("cannot write the heartbeat", error=str(error))
            await asyncio.sleep(limits.HEARTBEAT_INTERVAL)

    # Folders

    async def _open_folder(self, record: FolderRecord) -> Folder:
        folder = Folder(
            record,
            self.bucket,
            self.device_id,
            self._state_directory,
            self._incoming,
            self._uploads,
            self.counters,
        )
        try:
            await folder.open()
        except BaseException:
            folder.close()
            raise
        self.folders[record.folder_id] = folder
        self._run(self._run_folder(folder))
        return folder

    async def _run_folder(self, folder: Folder) -> None:
        while True:
            try:
                await folder.run()
            except Exception as error:
                # One folder's trouble must not end the others; peers keep what is not in the log.
                _logger.critical("a fault of our own", folder=folder.record.folder_id, exc_info=error)
                folder.error = f"a fault of this program, see its log: {error}"
            await asyncio.sleep(limits.FOLDER_RESTART_DELAY)

    def folder(self, folder_id: str) -> Folder | None:
        """An open folder."""
        return self.folders.get(folder_id)

    async def folder_for(self, offer: FolderOffer) -> Folder:
        """The folder of an offer, created where it is new. Raises FolderRefused for another password, or a store that
        does not answer."""
        async with self._folder_lock:
            folder = self.folders.get(offer.folder_id)
            if folder is None:
                try:
                    folder = await self._create_folder(offer)
                except (StoreError, DataError) as error:
                    raise FolderRefused(f"the store: {error}") from error
        check_token(offer.token, folder.record.token)
        return folder

    async def _create_folder(self, offer: FolderOffer) -> Folder:
        fresh = FolderRecord(offer.folder_id, offer.label, offer.token)
        key = layout.FolderKeys.of(offer.folder_id).record
        record = await create_or_read(self.bucket, key, fresh.to_json(), FolderRecord.from_json)
        _logger.info("folder opened", folder=record.folder_id, label=record.label)
        return await self._open_folder(record)

    # Peers

    def _new_transport(self, server_side: bool) -> BEPTransport:
        transport = BEPTransport(self._context, server_side=server_side)
        self._sessions.add(Session(self, transport))
        return transport

    def peer_records(self) -> list[PeerRecord]:
        """All accepted devices."""
        return [status.record for status in self.peers.values()]

    def is_connected(self, device_id: DeviceID) -> bool:
        """Whether there is a session with this device."""
        status = self.peers.get(device_id)
        return status is not None and status.session is not None

    async def admit(self, session: Session) -> PeerRecord | None:
        """The record of the session's device if it is accepted. Its earlier session, if any, ends."""
        device_id = session.device_id
        assert device_id is not None and session.hello is not None
        status = self.peers.get(device_id) or await self._look_up(device_id)
        if status is None:
            self._note_unknown(session)
            return None
        self.unknown_devices.pop(device_id, None)
        if status.session is not None:
            status.session.transport.close("replaced by a newer connection")
        status.session = session
        status.client = f"{session.hello.client_name} {session.hello.client_version}"
        status.error = None
        _logger.info("peer connected", device=str(device_id), address=session.transport.address, client=status.client)
        return status.record

    async def _look_up(self, device_id: DeviceID) -> PeerStatus | None:
        """Reads the record of a device that we do not know; not again for some seconds after a vain try."""
        unknown = self.unknown_devices.get(device_id)
        now = time.monotonic()
        if unknown is not None and now - unknown.looked_up < limits.UNKNOWN_DEVICE_LOOKUP_INTERVAL:
            return None
        try:
            record = await read_record(self.bucket, layout.peer_key(device_id), PeerRecord.from_json)
        except (StoreError, DataError) as error:
            _logger.warning("cannot look up a device", device=str(device_id), error=str(error))
            return None
        if record is None:
            if unknown is not None:
                unknown.looked_up = now
            return None
        return self.peers.setdefault(device_id, PeerStatus(record))

    def _note_unknown(self, session: Session) -> None:
        device_id = session.device_id
        assert device_id is not None and session.hello is not None
        unknown = self.unknown_devices.pop(device_id, None) or UnknownDevice(looked_up=time.monotonic())
        unknown.name = session.hello.device_name
        unknown.address = session.transport.address
        unknown.last_seen = time.time()
        self.unknown_devices[device_id] = unknown
        while len(self.unknown_devices) > limits.UNKNOWN_DEVICES_SHOWN:
            self.unknown_devices.popitem(last=False)
        _logger.debug("unknown device refused", device=str(device_id), name=unknown.name, address=unknown.address)

    async def accept_device(self, device_id: DeviceID, name: str) -> None:
        """Accepts a device from now on."""
        record = PeerRecord(device_id, name)
        await write_record(self.bucket, layout.peer_key(device_id), record.to_json())
        self.peers[device_id] = PeerStatus(record)
        self.unknown_devices.pop(device_id, None)

    def refused(self, device_id: DeviceID, folder_id: str, label: str, reason: str | None) -> None:
        """Notes why a peer's folder is refused; None where it is fine now."""
        status = self.peers.get(device_id)
        if status is None:
            return
        status.refused.pop(folder_id, None)
        if reason is not None:
            status.refused[folder_id] = f"folder {label or folder_id!r}: {reason}"

    def ended(self, session: Session, error: Exception | None) -> None:
        """A session is over."""
        self._sessions.discard(session)
        device_id = session.device_id
        status = self.peers.get(device_id) if device_id is not None else None
        if status is not None and status.session is session:
            status.session = None
            status.error = str(error) if error is not None else None
        _logger.info(
            "connection ended",
            device=str(device_id) if device_id else None,
            address=session.transport.address,
            reason=str(error) if error else "closed",
        )

    async def check_store(self) -> None:
        """Raises StoreError unless the store answers."""
        with contextlib.suppress(DataError):
            await open_store(self.bucket)
