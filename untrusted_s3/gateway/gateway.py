"""The gateway as a whole: it owns the folders, the sessions and everything that runs beside them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog

from untrusted_s3 import __version__, limits
from untrusted_s3.bep.cluster_config import FolderOffer, check_token
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.connections.admission import UnadmittedConnections, raise_file_limit, unadmitted_capacity
from untrusted_s3.connections.dialer import Dialer
from untrusted_s3.connections.factory import TransportFactory
from untrusted_s3.connections.listener import Listener
from untrusted_s3.connections.tls import make_context
from untrusted_s3.connections.transport import BEPTransport
from untrusted_s3.counters import Counters
from untrusted_s3.errors import DataError, FolderRefused, StateDamaged, StoreError
from untrusted_s3.gateway.dialing import Dialing
from untrusted_s3.gateway.heartbeat import Heartbeat
from untrusted_s3.gateway.http.server import HTTPServer
from untrusted_s3.gateway.peers import Peers
from untrusted_s3.gateway.status import folder_status, peer_status, unknown_status
from untrusted_s3.gateway.upkeep import Maintenance
from untrusted_s3.identity.certificate import Identity
from untrusted_s3.settings import Settings
from untrusted_s3.store import layout
from untrusted_s3.store.records import (
    FolderRecord,
    PeerRecord,
    StoreRecord,
    create_or_read,
    open_store,
    read_folders,
    read_record,
    removal_unfinished,
)
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.memory import SyncMemory
from untrusted_s3.sync.requests_in import Responder
from untrusted_s3.sync.session import Refusal, Session

_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What the operator decides: addresses to listen on (tcp://HOST:PORT), the HTTP address (HOST:PORT or None), the
    device name that peers see, the folder of the local cache, bytes of memory for blocks on their way, and seconds for
    which the history of folders is kept."""

    listen: tuple[str, ...]
    http: str | None
    name: str
    state_directory: Path
    buffer_memory: int = limits.DEFAULT_BUFFER_MEMORY
    history: float = limits.HISTORY_RETENTION
    tuning: Settings = field(default_factory=Settings)


class Gateway:
    """One running gateway. Implements `session.Host`."""

    def __init__(self, bucket: S3Bucket, identity: Identity, settings: GatewaySettings) -> None:
        self.device_id = identity.device_id
        self.device_name = settings.name
        self.bucket = bucket
        self.settings = settings
        self.counters = Counters()
        self.folders: dict[str, Folder] = {}
        self.peers = Peers(bucket, identity.device_id)
        self.ready = False
        self.sync_settings = settings.tuning.sync
        self.memory = SyncMemory.of(
            blocks=settings.buffer_memory,
            messages=settings.tuning.upkeep.message_memory,
            parsed=settings.tuning.sync.parsed_file_infos,
        )
        self.responder = Responder(bucket, self.counters, settings.tuning.sync, settings.tuning.objects)
        self._uploads = asyncio.Semaphore(limits.CONCURRENT_UPLOADS)
        tuning = settings.tuning.connections
        capacity = unadmitted_capacity(raise_file_limit(tuning), tuning)
        transports = TransportFactory(
            make_context(identity),
            self._new_session,
            tuning,
            UnadmittedConnections(capacity, tuning.eviction_log_interval),
        )
        self._listener = Listener(settings.listen, transports)
        self._heart = Heartbeat(bucket, self.device_id, settings.name)
        self._maintenance = Maintenance(bucket, self.folders.keys, settings.history, self.counters)
        self._dialing = Dialing(self.peers, Dialer(transports, tuning).dial, tuning)
        self._http = HTTPServer(self, settings.http) if settings.http else None
        self._sessions: set[Session] = set()
        self._session_ended = asyncio.Event()
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
        await self.peers.load()
        for record in await read_folders(self.bucket):
            if record.removed:
                _logger.warning("folder not opened", folder=record.folder_id, reason=removal_unfinished(record))
            else:
                await self._open_folder(record)
        await self._listener.start()
        self._run(self._dialing.run())
        self._run(self._heartbeat())
        self._run(self._maintenance.run())
        self.ready = True
        _logger.info("ready", device_id=str(self.device_id), store=str(self.bucket.location), folders=len(self.folders))

    async def stop(self) -> None:
        """Takes no more work, lets what is under way come to an end, writes it down, and says Close to every peer.

        All within limits.DRAIN_TIMEOUT. What does not come to an end by then, peers send again; parts of large files
        that are in the store by then are not needed again.
        """
        deadline = asyncio.get_running_loop().time() + limits.DRAIN_TIMEOUT
        self.ready = False
        await self._listener.stop()
        try:
            async with asyncio.timeout_at(deadline - limits.DRAIN_CLOSE_TIMEOUT):
                # Peers stay connected meanwhile, for blocks are still to come from them.
                await asyncio.gather(*(folder.drain() for folder in self.folders.values()))
                await self._cancel_tasks()
                for folder in self.folders.values():
                    await folder.flush()
                await self._heart.end()
        except (TimeoutError, StoreError, StateDamaged) as error:
            _logger.warning(
                "could not write everything down before the stop; peers will send it again", error=str(error)
            )
        finally:
            await self._cancel_tasks()
        for session in list(self._sessions):
            session.say_close("shutting down")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(deadline), asyncio.timeout(limits.DRAIN_CLOSE_TIMEOUT):
                await self._sessions_ended()
        for session in list(self._sessions):
            session.transport.abort()
        await self.responder.stop()
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
        return {
            "device_id": str(self.device_id),
            "version": __version__,
            "store": str(self.bucket.location),
            "folders": [folder_status(folder) for _, folder in sorted(self.folders.items())],
            "peers": [peer_status(device_id, peer) for device_id, peer in sorted(self.peers.accepted.items())],
            "unknown_devices": [
                unknown_status(device_id, unknown) for device_id, unknown in self.peers.unknown.items()
            ],
        }

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _sessions_ended(self) -> None:
        """Waits until every peer has ended its connection."""
        while self._sessions:
            self._session_ended.clear()
            await self._session_ended.wait()

    def _run(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _logger.critical("a fault of our own", exc_info=task.exception())

    async def _heartbeat(self) -> None:
        """Tells the store that we are alive, and looks whether the operator has accepted or removed devices."""
        while True:
            try:
                await self._heart.beat()
                await self.peers.load()
            except (StoreError, DataError) as error:
                _logger.warning("cannot write the heartbeat or read the accepted devices", error=str(error))
            await asyncio.sleep(limits.HEARTBEAT_INTERVAL)

    # Folders

    async def _open_folder(self, record: FolderRecord) -> Folder:
        try:
            folder = await self._load_folder(record)
        except StateDamaged as error:
            _logger.error("making the local state anew", folder=record.folder_id, error=str(error))
            folder = await self._load_folder(record)
        self.folders[record.folder_id] = folder
        self._run(self._run_folder(folder))
        for session in list(self._sessions):
            session.folder_opened()
        return folder

    async def _load_folder(self, record: FolderRecord) -> Folder:
        folder = Folder(
            record,
            self.bucket,
            self.device_id,
            self._state_directory,
            self.memory,
            self._uploads,
            self.counters,
            self.settings.tuning,
        )
        try:
            await folder.open()
        except BaseException:
            folder.close()
            if folder.damaged:
                folder.discard()
            raise
        return folder

    async def _run_folder(self, folder: Folder) -> None:
        while True:
            try:
                await folder.run()
            except Exception as error:
                if folder.damaged:
                    await self._renew_folder(folder)
                    return
                # One folder's trouble must not end the others; peers keep what is not in the log.
                _logger.critical("a fault of our own", folder=folder.record.folder_id, exc_info=error)
                folder.error = f"a fault of this program, see its log: {error}"
            await asyncio.sleep(limits.FOLDER_RESTART_DELAY)

    async def _renew_folder(self, folder: Folder) -> None:
        """Opens a folder anew whose local state is damaged. All sessions end, and the peers come back."""
        folder_id = folder.record.folder_id
        folder.error = "the local state is damaged and is made anew"
        while True:
            _logger.error("the local state is damaged, making it anew from the store", folder=folder_id)
            async with self._folder_lock:
                for session in list(self._sessions):
                    session.end("a folder is opened anew")
                folder.discard()
                try:
                    await self._open_folder(folder.record)
                    return
                except (StoreError, DataError) as error:
                    folder.error = f"the local state is damaged, and cannot be made anew: {error}"
            await asyncio.sleep(limits.FOLDER_RESTART_DELAY)

    def folder(self, folder_id: str) -> Folder | None:
        """An open folder."""
        return self.folders.get(folder_id)

    async def folder_for(self, offer: FolderOffer) -> Folder:
        """The folder of an offer, created where it is new. Raises FolderRefused for another password or a folder
        that is being removed, StoreError or DataError where the store does not serve."""
        async with self._folder_lock:
            folder = self.folders.get(offer.folder_id) or await self._create_folder(offer)
        check_token(offer.token, folder.record.token)
        return folder

    async def _create_folder(self, offer: FolderOffer) -> Folder:
        if len(self.folders) >= limits.MAX_FOLDERS:
            raise FolderRefused(f"this store has {len(self.folders)} folders already, and takes no more")
        fresh = FolderRecord(offer.folder_id, offer.label, offer.token)
        key = layout.FolderKeys.of(offer.folder_id).record
        record = await create_or_read(self.bucket, key, fresh.to_json(), FolderRecord.from_json)
        if record.removed:
            raise FolderRefused(removal_unfinished(record))
        _logger.info("folder opened", folder=record.folder_id, label=record.label)
        return await self._open_folder(record)

    # Peers

    def _new_session(self, transport: BEPTransport) -> Session:
        session = Session(self, transport)
        self._sessions.add(session)
        return session

    async def admit(self, session: Session) -> PeerRecord | None:
        """The record of the session's device if it is accepted."""
        return await self.peers.admit(session)

    async def accept_device(self, device_id: DeviceID, name: str) -> None:
        """Accepts a device from now on. Raises StoreError."""
        await self.peers.accept(device_id, name)

    def confirm(self, session: Session) -> PeerRecord | None:
        """The record of the session's device if the session may go on."""
        return self.peers.confirm(session)

    def refused(self, device_id: DeviceID, refusals: Mapping[str, Refusal]) -> None:
        """Notes which of a peer's folders are refused."""
        self.peers.refused(device_id, refusals)

    def ended(self, session: Session, error: Exception | None) -> None:
        """A session is over."""
        self._sessions.discard(session)
        self._session_ended.set()
        self.peers.ended(session, error)

    async def check_store(self) -> None:
        """Raises StoreError unless the store answers."""
        with contextlib.suppress(DataError):
            await read_record(self.bucket, layout.STORE, StoreRecord.from_json)
