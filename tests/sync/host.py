"""A fake of the gateway for sessions, and a folder as a peer offers it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from tests.connections.loopback import OURS, THEIRS
from tests.simulated import SimulatedBucket
from tests.sync.fakes import new_folder, run, sync_memory
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import FolderOffer, IndexState, check_token
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.counters import Counters
from untrusted_s3.errors import FolderNotAllowed
from untrusted_s3.identity.certificate import Identity
from untrusted_s3.settings import LogSettings, Settings
from untrusted_s3.store.records import FolderRecord, PeerRecord
from untrusted_s3.sync.cluster_configs_out import Refusal
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.refused_index import RefusedIndex
from untrusted_s3.sync.responder import Responder
from untrusted_s3.sync.session import Session

TOKEN = bytes(range(40))
THEIR_INDEX = 0xFEDC_BA98_7654_3210
# What is pulled goes to the log at once.
SETTINGS = Settings(log=LogSettings(segment_interval=0.0))


class FakeHost:
    """Implements `sync.session.Host`."""

    def __init__(
        self, identity: Identity, bucket: SimulatedBucket, state_directory: Path, settings: Settings = SETTINGS
    ) -> None:
        self.device_id = identity.device_id
        self.device_name = "gateway"
        self.counters = Counters()
        self.bucket = bucket
        self.sync_settings = settings.sync
        self.memory = sync_memory()
        self.responder = Responder(bucket, self.counters, settings.sync, self.memory.recent_ranges)
        self.folders: dict[str, Folder] = {}
        self.accepts: PeerRecord | None = None
        self.refusals: dict[str, str] = {}
        self.refused_indexes: dict[str, RefusedIndex] = {}
        self.ends: list[Exception | None] = []
        self.store_error: Exception | None = None
        self.tasks: list[asyncio.Task[None]] = []
        self._directory, self._settings = state_directory, settings

    async def admit(self, session: Session) -> PeerRecord | None:
        return self.accepts

    async def folder_for(self, offer: FolderOffer, by: DeviceID, *, create: bool) -> Folder:
        if self.store_error is not None:
            raise self.store_error
        if offer.folder_id not in self.folders:
            if not create:
                raise FolderNotAllowed("may only read")
            await self.open(FolderRecord(offer.folder_id, offer.label, offer.token, 0x1234))
        check_token(offer.token, self.folders[offer.folder_id].record.token)
        return self.folders[offer.folder_id]

    async def open(self, record: FolderRecord) -> Folder:
        folder = new_folder(
            record,
            self.bucket,
            self._directory,
            own_id=self.device_id,
            memory=self.memory,
            counters=self.counters,
            settings=self._settings,
        )
        await folder.open()
        self.folders[record.folder_id] = folder
        self.tasks.append(asyncio.ensure_future(run(folder)))
        return folder

    def folder(self, folder_id: str) -> Folder | None:
        return self.folders.get(folder_id)

    def confirm(self, session: Session) -> PeerRecord | None:
        return self.accepts

    def refused(self, device_id: DeviceID, refusals: Mapping[str, Refusal]) -> None:
        self.refusals = {folder_id: refusal.reason for folder_id, refusal in refusals.items()}

    def index_refused(self, device_id: DeviceID, folder_id: str, refused: RefusedIndex) -> None:
        self.refused_indexes[folder_id] = refused

    def ended(self, session: Session, error: Exception | None) -> None:
        self.ends.append(error)

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for folder in self.folders.values():
            folder.close()


def offered(
    folder_id: str = "f",
    *,
    token: bytes = TOKEN,
    on_peer: bytes = b"",
    known: IndexState = IndexState(),  # noqa: B008
    paused: bool = False,
) -> pb.Folder:
    """Return a folder in the peer's cluster config."""
    own = pb.Device(
        id=OURS.device_id.raw,
        encryption_password_token=token,
        index_id=known.index_id,
        max_sequence=known.max_sequence,
    )
    theirs = pb.Device(id=THEIRS.device_id.raw, index_id=THEIR_INDEX, encryption_password_token=on_peer)
    stop_reason = pb.PAUSED if paused else pb.RUNNING
    return pb.Folder(id=folder_id, label="Label", devices=[own, theirs], stop_reason=stop_reason)
