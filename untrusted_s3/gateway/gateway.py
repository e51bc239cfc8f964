"""The gateway as a whole: makes its parts, starts them in order, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from untrusted_s3 import __version__
from untrusted_s3.bep.cluster_config import FolderOffer
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.connections.admission import UnadmittedConnections, raise_file_limit, unadmitted_capacity
from untrusted_s3.connections.dialer import Dialer
from untrusted_s3.connections.factory import TransportFactory
from untrusted_s3.connections.listener import Listener
from untrusted_s3.connections.tls import make_context
from untrusted_s3.connections.transport import BEPTransport
from untrusted_s3.counters import Counters
from untrusted_s3.errors import DataError
from untrusted_s3.gateway.dialing import Dialing
from untrusted_s3.gateway.folders import Folders
from untrusted_s3.gateway.forgetting import Forgetting
from untrusted_s3.gateway.heartbeat import Heartbeat
from untrusted_s3.gateway.http.server import HTTPServer
from untrusted_s3.gateway.local_disk import LocalDisk
from untrusted_s3.gateway.loop_lag import measure_lag
from untrusted_s3.gateway.losses import Losses
from untrusted_s3.gateway.pauses import Pauses
from untrusted_s3.gateway.peers import Peers
from untrusted_s3.gateway.present_lists import PresentLists
from untrusted_s3.gateway.quotas import QuotaKeeper
from untrusted_s3.gateway.scrub import Scrub
from untrusted_s3.gateway.sessions import Sessions
from untrusted_s3.gateway.settings import GatewaySettings
from untrusted_s3.gateway.status import (
    Steps,
    any_folder_status,
    any_peer_status,
    at_once,
    closed_folder_status,
    in_steps,
    peer_name,
    redacted,
    task_status,
    unknown_status,
)
from untrusted_s3.gateway.troubles import Troubles
from untrusted_s3.gateway.upkeep import Maintenance
from untrusted_s3.gateway.usage import CountingBucket, Usage
from untrusted_s3.identity.certificate import Identity
from untrusted_s3.index.local_files import store_directory
from untrusted_s3.objects.upload_limits import UploadLimits
from untrusted_s3.store import layout
from untrusted_s3.store.format import PART_GRID, PartGrid
from untrusted_s3.store.records import FolderRecord, PeerRecord, StoreRecord, open_store, read_record
from untrusted_s3.supervisor import Supervisor, TaskStatus
from untrusted_s3.sync.cluster_configs_out import Refusal
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.memory import SyncMemory
from untrusted_s3.sync.refused_index import RefusedIndex
from untrusted_s3.sync.responder import Responder
from untrusted_s3.sync.session import Session

_logger = structlog.get_logger()


class GatewayBucket(CountingBucket, Protocol):
    """A bucket that says where it is and counts its requests."""

    @property
    def location(self) -> object:
        """Where the store is; its text is for the operator."""
        ...


class Gateway:
    """One running gateway. Implements `sync.session.Host` and `http.served.ServedGateway`.

    Attributes:
        device_id: Its device ID.
        device_name: The name that peers see.
        bucket: Its store.
        counters: What it counts.
        supervisor: Runs its background tasks.
        peers: The devices that it knows.
        folders: The folders that are open.
        sessions: The sessions of all open connections.
        ready: Whether it listens and takes part in synchronizing.
        responder: Reads the blocks that peers request.
        memory: Accounts of what peers make it keep in memory.
        sync_settings: How folders are synchronized.
    """

    def __init__(
        self,
        bucket: GatewayBucket,
        identity: Identity,
        settings: GatewaySettings,
        grid: PartGrid = PART_GRID,
        *,
        in_doubt: bool = False,
    ) -> None:
        """Make a gateway that does nothing yet. Raises UsageError for an address that cannot be parsed.

        All gateways on a bucket must use the same `grid`. `in_doubt` says that the store may have lost any object.
        """
        tuning = settings.tuning
        open_files = raise_file_limit(tuning.connections)  # before what is bounded by it
        self.device_id = identity.device_id
        self.device_name = settings.name
        self.bucket = bucket
        self.counters = Counters()
        self.supervisor = Supervisor(
            tuning.upkeep.restart_delay, tuning.upkeep.max_restart_delay, on_failure=self.counters.task_failed
        )
        self.peers = Peers(bucket, self.device_id, tuning)
        self.ready = False
        self.sync_settings = tuning.sync
        self.memory = SyncMemory.of(
            blocks=settings.buffer_memory,
            messages=tuning.upkeep.message_memory,
            parsed=tuning.sync.parsed_file_infos,
            in_work=tuning.sync.file_infos_in_work,
            pending=tuning.sync.pending_disk,
            large_entries=tuning.sync.large_entries,
            settings=tuning.sync,
        )
        self.responder = Responder(
            bucket,
            self.counters,
            tuning.sync,
            self.memory.recent_ranges,
            on_failure=lambda key, start, size: self.folders.read_failed(key, start, size),
            on_block=lambda key, offset, block: self.folders.block_read(key, offset, block),
        )
        self._stopped = False
        self._settings = settings
        self._grid = grid
        self._uploads = UploadLimits.of(tuning.objects)
        self._state_directory = settings.state_directory
        self.sessions = Sessions()
        self.folders = Folders(
            bucket,
            self._new_folder,
            self.supervisor,
            self.sessions,
            retry_delay=tuning.upkeep.restart_delay,
            max_retry_delay=tuning.upkeep.max_restart_delay,
            close_timeout=tuning.upkeep.close_timeout,
            heal_pauses=Pauses(tuning.upkeep.heal_pause, tuning.upkeep.max_heal_pause),
            claim_pauses=Pauses(tuning.upkeep.claim_pause, tuning.upkeep.max_claim_pause),
            folders_of_device=tuning.upkeep.folders_of_device,
            losses=Losses(bucket, tuning.upkeep.losses_interval, tuning.upkeep.max_losses_interval),
            in_doubt=in_doubt,
        )
        self._quotas = QuotaKeeper(bucket, lambda: self.folders, tuning.upkeep, settings.max_store)
        self.folders.on_change = self._quotas.used.reset
        self._disk = LocalDisk(settings.state_directory, tuning.upkeep.min_free_disk, self._disk_looked_at)
        capacity = unadmitted_capacity(open_files, tuning.connections)
        transports = TransportFactory(
            make_context(identity),
            self._new_session,
            tuning.connections,
            UnadmittedConnections(capacity, tuning.connections.eviction_log_interval),
        )
        self._listener = Listener(settings.listen, transports)
        self._dialing = Dialing(self.peers, Dialer(transports, tuning.connections).dial, tuning.connections)
        self._forgetting = Forgetting(self.folders, lambda: self.peers.accepted)
        self._heartbeat = Heartbeat(bucket, self.device_id, settings.name)
        self._troubles = Troubles()
        self._usage = Usage(bucket, self.device_id, troubles=self._troubles)
        self._maintenance = Maintenance(
            bucket,
            self.folders.positions,
            settings.history_days,
            self.counters,
            tuning.upkeep,
            directory=settings.state_directory,
            history_is_wanted=settings.history_is_wanted,
            collects_garbage=settings.collects_garbage,
            want_checkpoint=self.folders.want_checkpoint,
            checkpoints=self.folders.checkpoints_written,
            troubles=self._troubles,
        )
        self._scrub = Scrub(
            bucket,
            self.folders,
            self.device_id,
            settings.scrub,
            self.counters,
            tuning.scrub,
            tuning.log,
            troubles=self._troubles,
        )
        self._present_lists = PresentLists(bucket, self.folders, tuning.upkeep, troubles=self._troubles)
        self._http = HTTPServer(self, settings.http, settings.http_hosts, tuning.http) if settings.http else None

    # Life

    async def start(self, trial: Awaitable[object] | None = None) -> None:
        """Open every folder of the store, then listen and dial.

        `trial` is a trial of the store: it is waited for, and its error raised, before anybody can connect.

        A folder or a record that cannot be read stops no other one. Raises AddressUnavailable if a port is in use,
        StateFolderUnusable if the local state cannot be written, StoreError or DataError if the store cannot be read.
        """
        # First, so that /healthz answers while a large log is read.
        if self._http is not None:
            await self._http.start()
        await self._disk.open()
        store = await open_store(self.bucket, upgrade=True)
        self._state_directory = store_directory(self._settings.state_directory, store.store_id)
        await self.peers.load()
        await self._quotas.load()
        await self.folders.open_all()
        if trial is not None:
            await trial
        await self._listener.start()
        upkeep = self._settings.tuning.upkeep
        listen_interval = self._settings.tuning.connections.listen_interval
        self.supervisor.start("keep listening", partial(self._listener.keep_listening, listen_interval))
        self.supervisor.start("dial", self._dialing.run)
        self.supervisor.start(
            "heartbeat",
            partial(
                self._heartbeat.run,
                upkeep.heartbeat_interval,
                upkeep.idle_heartbeat_interval,
                lambda: not self.attended,
            ),
        )
        self.supervisor.start("read accepted devices", self.peers.run)
        self.supervisor.start(
            "look for removed folders",
            partial(self.folders.watch, upkeep.removal_interval, upkeep.idle_removal_interval),
        )
        self.supervisor.start("read what is lost", partial(self.folders.watch_losses, upkeep.record_interval))
        self.supervisor.start("watch quotas", self._quotas.run)
        self.supervisor.start("watch the local disk", partial(self._disk.watch, upkeep.disk_interval))
        self.supervisor.start("forget removed devices", partial(self._forgetting.run, upkeep.peers_interval))
        self.supervisor.start(
            "measure the event loop", partial(measure_lag, self.counters.loop_lag, upkeep.lag_interval)
        )
        self.supervisor.start("maintenance", self._maintenance.run)
        self.supervisor.start("trim busy logs", self._maintenance.trim_busy)
        self.supervisor.start("list present objects", self._present_lists.run)
        self.supervisor.start("write down requests", partial(self._usage.run, upkeep.usage_interval))
        if self._settings.scrub:
            self.supervisor.start("scrub", self._scrub.run)
        self.ready = True
        _logger.info("ready", device_id=str(self.device_id), store=str(self.bucket.location), folders=len(self.folders))

    async def stop(self) -> None:
        """Take no more work, finish and write down what is under way, and say Close to every peer.

        Takes at most `stop_timeout` of the settings. What is not finished by then is sent again by peers, except for
        parts of large files that are in the store. A second call does nothing.
        """
        if self._stopped:
            return
        self._stopped = True
        settings = self._settings.tuning.upkeep
        loop = asyncio.get_running_loop()
        deadline = loop.time() + settings.stop_timeout
        ready, self.ready = self.ready, False
        await self._listener.stop()
        try:
            async with asyncio.timeout_at(deadline - settings.close_timeout):
                # Peers stay connected meanwhile, because the pulls under way still need blocks from them.
                await self.folders.drain()
                await self.supervisor.stop()
                await self.folders.flush()
                await self._heartbeat.end()
                if ready:
                    await self._usage.save()
        except Exception as error:
            _logger.warning(
                "stopped before everything was written", error=str(error), hint="peers will send the rest again"
            )
        finally:
            await self.supervisor.stop()
        await self.sessions.close("shutting down", min(settings.close_timeout, deadline - loop.time()))
        await self.responder.stop()
        self.folders.close()
        if self._http is not None:
            await self._http.stop()
        _logger.info("stopped")

    @property
    def attended(self) -> bool:
        """Whether any device is connected that shares a folder."""
        return any(folder.attended for folder in self.folders)

    @property
    def listen_addresses(self) -> list[str]:
        """The addresses on which peers can connect, with the real ports."""
        return self._listener.addresses

    @property
    def http_addresses(self) -> list[str]:
        """HOST:PORT of the HTTP pages, with the real ports; empty while they are not served."""
        return [str(address) for address in self._http.addresses] if self._http is not None else []

    async def accept_device(self, device_id: DeviceID, name: str) -> None:
        """Accept a device from now on. Raises StoreError or DataError."""
        await self.peers.accept(device_id, name)

    # What the pages show

    @property
    def store_requests(self) -> Mapping[str, int]:
        """The number of requests to the store, by operation."""
        return self.bucket.requests

    @property
    def failing_tasks(self) -> Sequence[str]:
        """The names of background tasks that fail."""
        return self.supervisor.failing

    @property
    def problems(self) -> Sequence[str]:
        """What does not work while the gateway serves on, for /readyz."""
        return [*self.failing_tasks, *(problem["name"] for problem in self._problems())]

    def tasks(self) -> Sequence[TaskStatus]:
        """Return the states of all background tasks."""
        return self.supervisor.status()

    def status(self) -> dict[str, Any]:
        """Return the JSON of /api/status. What cannot be read is shown with its error."""
        return at_once(self._status())

    async def status_in_steps(self) -> dict[str, Any]:
        """Return the same, with turns for others between its parts: there may be many folders and devices."""
        return await in_steps(self._status())

    def _status(self) -> Steps[dict[str, Any]]:
        failures = self.folders.failures()
        folders: list[dict[str, Any]] = []
        for folder_id, folder in self.folders.by_id():
            if self.folders.get(folder_id) is not folder:
                continue  # closed since the last step
            shown = any_folder_status(folder, failures.get(folder_id), self.folders.lost(folder_id), self._name_of)
            more = {"scrub": self._scrub.status(folder_id), **self._quotas.of_folder(folder_id)}
            folders.append(redacted(shown | more))
            yield len(shown) + len(shown["remote_sequence"])
        for closed in self.folders.closed:
            closed_status = closed_folder_status(closed, self.folders.lost(closed.folder_id))
            folders.append(redacted(closed_status | {"scrub": None, "quota": None}))
            yield len(closed_status)
        peers: list[dict[str, Any]] = []
        for device_id, peer in sorted(self.peers.accepted.items()):
            peers.append(redacted(any_peer_status(device_id, peer) | self._quotas.of_peer(device_id)))
            yield len(peers[-1]) + len(peers[-1]["folders"])
        status = {
            "device_id": str(self.device_id),
            "version": __version__,
            "store": str(self.bucket.location),
            "folders": [],
            "peers": [],
            "store_limits": {
                "uploads": self._uploads.objects.status(),
                "part_uploads": self._uploads.parts.status(),
                "reads": self.responder.gets.status(),
            },
            "denied": self.bucket.deletions.denied,
            "unknown_devices": [
                unknown_status(device_id, unknown) for device_id, unknown in self.peers.unknown.items()
            ],
            "tasks": [task_status(task) for task in self.tasks()],
            "problems": self._problems(),
            **self._quotas.of_store(),
        }
        answer: dict[str, Any] = redacted(status)
        return answer | {"folders": folders, "peers": peers}

    def _name_of(self, device_id: DeviceID) -> str:
        peer = self.peers.accepted.get(device_id)
        return peer_name(peer) if peer is not None else ""

    def _problems(self) -> list[dict[str, str]]:
        found = self._troubles.problems(self.folders.ids) | self.folders.problems() | self._quotas.problems()
        found |= {f"{problem.path}: not readable": problem.reason for problem in self.peers.unreadable}
        if self._disk.problem is not None:
            found["the local disk"] = self._disk.problem
        return [{"name": name, "error": error} for name, error in found.items()]

    async def check_store(self) -> None:
        """Raise StoreError unless the store answers."""
        with contextlib.suppress(DataError):
            await read_record(self.bucket, layout.STORE, StoreRecord.from_json)

    # What sessions need

    async def admit(self, session: Session) -> PeerRecord | None:
        """Return the record of the session's device, or None if the device is not accepted."""
        return await self.peers.admit(session)

    async def folder_for(self, offer: FolderOffer, by: DeviceID, *, create: bool) -> Folder:
        """Return the folder of an offer, which may be new. Raises FolderRefused, StoreError or DataError."""
        return await self.folders.for_offer(offer, by, create=create)

    def folder(self, folder_id: str) -> Folder | None:
        """Return an open folder."""
        return self.folders.get(folder_id)

    def confirm(self, session: Session) -> PeerRecord | None:
        """Note that the peer uses this connection. Return the device's record, or None if the session was ended."""
        return self.peers.confirm(session)

    def refused(self, device_id: DeviceID, refusals: Mapping[str, Refusal]) -> None:
        """Note which of a peer's folders are refused."""
        self.peers.refused(device_id, refusals)

    def index_refused(self, device_id: DeviceID, folder_id: str, refused: RefusedIndex) -> None:
        """Note that a peer cannot decrypt our index of a folder."""
        self.peers.index_refused(device_id, folder_id, refused)

    def ended(self, session: Session, error: Exception | None) -> None:
        """Note the end of a session."""
        self.sessions.remove(session)
        self.peers.ended(session, error)

    def _disk_looked_at(self, in_order: bool) -> None:
        """Take no more of peers' indexes while the local disk is not in order."""
        self.memory.pending.closed = not in_order

    def _new_session(self, transport: BEPTransport) -> Session:
        session = Session(self, transport)
        self.sessions.add(session)
        return session

    def _new_folder(self, record: FolderRecord) -> Folder:
        folder = Folder(
            record,
            self.bucket,
            self.device_id,
            self._state_directory,
            self.memory,
            self._uploads,
            self.counters,
            self._settings.tuning,
            self._grid,
        )
        folder.limit(partial(self._quotas.limits, folder), self._quotas.are_known)
        folder.on_used = partial(self._quotas.used.changed, folder)
        folder.counts_sources = lambda: bool(self._quotas.quotas.devices)
        return folder
