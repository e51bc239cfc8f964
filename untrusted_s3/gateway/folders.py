"""The folders that are open: opens, creates and renews them, and has their background tasks run."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import structlog

from untrusted_s3.bep.cluster_config import FolderOffer, check_token
from untrusted_s3.bep.constants import MAX_FOLDERS
from untrusted_s3.errors import DataError, FolderRefused, FolderRemovalUnfinished, StateDamaged, StoreError
from untrusted_s3.gateway.sessions import Sessions
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.records import FolderRecord, create_or_read, read_folders
from untrusted_s3.supervisor import Supervisor, Work
from untrusted_s3.sync.folder import Folder

_logger = structlog.get_logger()

_LOCAL_STATE = "watch the local state"
_RENEW = "renew the local state"


class Folders:
    """The folders of a store, by ID. Iterating gives them in the order of their IDs.

    `new_folder` makes a folder that is not open yet. `retry_delay` is the pause in seconds before a folder that could
    not be opened again is tried again.
    """

    def __init__(
        self,
        bucket: Bucket,
        new_folder: Callable[[FolderRecord], Folder],
        supervisor: Supervisor,
        sessions: Sessions,
        retry_delay: float,
        max_folders: int = MAX_FOLDERS,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._bucket = bucket
        self._new_folder = new_folder
        self._supervisor = supervisor
        self._sessions = sessions
        self._retry_delay = retry_delay
        self._max_folders = max_folders
        self._sleep = sleep
        self._folders: dict[str, Folder] = {}
        # One folder at a time is created or renewed.
        self._lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._folders)

    def __iter__(self) -> Iterator[Folder]:
        return iter([folder for _, folder in sorted(self._folders.items())])

    def get(self, folder_id: str) -> Folder | None:
        """Return an open folder."""
        return self._folders.get(folder_id)

    @property
    def ids(self) -> list[str]:
        """The IDs of all open folders."""
        return sorted(self._folders)

    async def open_all(self) -> None:
        """Open all folders of the store, except those that are being removed. Raises StoreError or DataError."""
        found = await read_folders(self._bucket)
        for problem in found.unreadable:
            _logger.error("folder not readable", key=problem.path, reason=problem.reason)
        for record in found:
            if record.removed:
                _logger.warning(
                    "folder not opened", folder=record.folder_id, reason=str(FolderRemovalUnfinished(record.folder_id))
                )
            else:
                await self._open(record)

    async def for_offer(self, offer: FolderOffer) -> Folder:
        """Return the folder of an offer, which is created if it is new.

        Raises FolderRefused for another password, a folder that is being removed, or too many folders. Raises
        StoreError or DataError if the store cannot be used.
        """
        async with self._lock:
            folder = self._folders.get(offer.folder_id) or await self._create(offer)
        check_token(offer.token, folder.record.token)
        return folder

    async def drain(self) -> None:
        """Before a stop: begin no more pulls, and wait a while for those under way."""
        await asyncio.gather(*(folder.drain() for folder in self))

    async def flush(self) -> None:
        """Write to the logs what is ready. Raises StoreError, DataError or StateDamaged."""
        for folder in self:
            await folder.flush()

    def close(self) -> None:
        """Close the local files of all folders."""
        for folder in self:
            folder.close()

    def failures(self) -> dict[str, str]:
        """Return why background tasks fail, by folder ID; folders without failing tasks are left out."""
        failing = {task.name: task.error for task in self._supervisor.status() if task.failing}
        return {
            folder.record.folder_id: f"internal error, see the log: {failing[name]}"
            for folder in (self if failing else ())
            for name in self._task_names(folder)
            if name in failing
        }

    async def _create(self, offer: FolderOffer) -> Folder:
        if len(self._folders) >= self._max_folders:
            raise FolderRefused(f"this store already has {len(self._folders)} folders and takes no more")
        fresh = FolderRecord(offer.folder_id, offer.label, offer.token)
        key = layout.FolderKeys.of(offer.folder_id).record
        record = await create_or_read(self._bucket, key, fresh.to_json(), FolderRecord.from_json)
        if record.removed:
            raise FolderRefused(str(FolderRemovalUnfinished(record.folder_id)))
        _logger.info("folder opened", folder=record.folder_id, label=record.label)
        return await self._open(record)

    async def _open(self, record: FolderRecord) -> Folder:
        try:
            folder = await self._load(record)
        except StateDamaged as error:
            _logger.error("local state damaged, loading it from the store", folder=record.folder_id, error=str(error))
            folder = await self._load(record)
        self._folders[record.folder_id] = folder
        for name, work in folder.tasks().items():
            self._supervisor.start(_task_name(record.folder_id, name), partial(self._run, folder, work))
        self._supervisor.start(_task_name(record.folder_id, _LOCAL_STATE), partial(self._watch_local_state, folder))
        self._sessions.folder_opened()
        return folder

    async def _load(self, record: FolderRecord) -> Folder:
        folder = self._new_folder(record)
        try:
            await folder.open()
        except BaseException:
            folder.close()
            if folder.damaged:
                folder.discard()
            raise
        return folder

    @staticmethod
    async def _run(folder: Folder, work: Work) -> None:
        """Do a background task of a folder, which ends if the local state is damaged: the folder is then renewed."""
        try:
            await work()
        except Exception:
            if not folder.damaged:
                raise

    async def _watch_local_state(self, folder: Folder) -> None:
        try:
            await folder.until_damaged()
        except StateDamaged:
            name = _task_name(folder.record.folder_id, _RENEW)
            self._supervisor.start(name, partial(self._renew, folder))

    async def _renew(self, folder: Folder) -> None:
        """Open a folder again whose local state is damaged. All sessions end, and the peers come back."""
        folder_id = folder.record.folder_id
        await self._supervisor.cancel(*self._task_names(folder))
        folder.error = "the local state is damaged and is loaded from the store"
        while True:
            _logger.error("local state damaged, loading it from the store", folder=folder_id)
            async with self._lock:
                self._sessions.end("a folder is opened again")
                folder.discard()
                try:
                    await self._open(folder.record)
                    return
                except (StoreError, DataError) as error:
                    folder.error = f"the local state is damaged and cannot be loaded from the store: {error}"
            await self._sleep(self._retry_delay)

    @staticmethod
    def _task_names(folder: Folder) -> list[str]:
        return [_task_name(folder.record.folder_id, name) for name in (*folder.tasks(), _LOCAL_STATE)]


def _task_name(folder_id: str, task: str) -> str:
    return f"folder {folder_id}: {task}"
