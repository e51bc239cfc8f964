"""The folders of the store: opens, creates and renews them, and has their background tasks run.

A folder that cannot be opened stops no other one: it is listed with its error, offers of it are refused, and it is
tried again with growing pauses. A folder that is removed from the store is dropped. A folder whose log the store has
lost a part of is closed, healed (gateway/healer.py) and opened again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

import structlog

from untrusted_s3.bep.cluster_config import FolderOffer
from untrusted_s3.bep.constants import MAX_FOLDERS
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import (
    DataError,
    FolderRefused,
    FolderRemovalUnfinished,
    FolderUnavailable,
    StateDamaged,
    StoreError,
    StoreUnreachable,
    UntrustedS3Error,
)
from untrusted_s3.gateway.closed_folders import NOT_OPEN, ClosedFolder, ClosedFolders
from untrusted_s3.gateway.folder_records import FolderRecords, check_password
from untrusted_s3.gateway.healer import Healer
from untrusted_s3.gateway.losses import Losses
from untrusted_s3.gateway.pauses import Pauses, is_due
from untrusted_s3.gateway.sessions import Sessions
from untrusted_s3.problem import Problem
from untrusted_s3.settings import UpkeepSettings
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.records import FolderRecord, read_folders
from untrusted_s3.supervisor import Supervisor, Work
from untrusted_s3.sync.folder import Folder

_logger = structlog.get_logger()

_LOCAL_STATE = "watch the local state"
_RENEW = "renew the local state"
_HEAL = "heal the log"
_OPENED_AGAIN = "a folder is opened again"
_OPEN = "open"
_CONCURRENT_READS = 8
_LOSSES_TIMEOUT = 10.0


class Folders:
    """The folders of a store, by ID. Iterating gives those that are open, in the order of their IDs.

    `new_folder` makes a folder that is not open yet. `retry_delay` is the pause in seconds before a folder that could
    not be opened is tried again; it doubles up to `max_retry_delay`. `close_timeout` is how long the peers of a removed
    folder have to end their connections. `in_doubt` says that the store may have lost any object: each folder is
    compared with the store before it is shared.

    Attributes:
        on_change: Called when other folders are open than before.
    """

    def __init__(
        self,
        bucket: Bucket,
        new_folder: Callable[[FolderRecord], Folder],
        supervisor: Supervisor,
        sessions: Sessions,
        retry_delay: float,
        max_retry_delay: float = 300.0,
        close_timeout: float = 10.0,
        max_folders: int = MAX_FOLDERS,
        folders_of_device: int = MAX_FOLDERS,
        heal_pauses: Pauses | None = None,
        claim_pauses: Pauses | None = None,
        renewal_pauses: Pauses | None = None,
        losses: Losses | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        *,
        in_doubt: bool = False,
    ) -> None:
        self.on_change: Callable[[], object] = lambda: None
        self._bucket = bucket
        self._new_folder = new_folder
        self._supervisor = supervisor
        self._sessions = sessions
        self._retry_delay = retry_delay
        self._max_retry_delay = max_retry_delay
        self._close_timeout = close_timeout
        self._records = FolderRecords(bucket, max_folders, folders_of_device)
        self._sleep = sleep
        settings = UpkeepSettings()
        self._losses = losses or Losses(bucket, settings.losses_interval, settings.max_losses_interval)
        self._healer = Healer(
            heal_pauses or Pauses(settings.heal_pause, settings.max_heal_pause),
            claim_pauses or Pauses(settings.claim_pause, settings.max_claim_pause),
            self._losses,
        )
        self._renewal_pauses = renewal_pauses or Pauses(retry_delay, max_retry_delay)
        # The folders whose local state was damaged in this run. Perhaps a checkpoint has what cannot be read.
        self._damaged: set[str] = set()
        self._in_doubt = in_doubt
        self._compared: set[str] = set()
        self._folders: dict[str, Folder] = {}
        self._by_base: dict[str, Folder] = {}  # perhaps of before; for the folders of blocks
        self._closed = ClosedFolders()
        self._look_pause, self._look_again = retry_delay, 0.0
        # One folder at a time is created or renewed.
        self._lock = asyncio.Lock()

    def __len__(self) -> int:
        return len(self._folders)

    def __iter__(self) -> Iterator[Folder]:
        return iter([folder for _, folder in sorted(self._folders.items())])

    def get(self, folder_id: str) -> Folder | None:
        """Return an open folder."""
        return self._folders.get(folder_id)

    def by_id(self) -> list[tuple[str, Folder]]:
        """Return the open folders with their IDs, in order."""
        return sorted(self._folders.items())

    @property
    def ids(self) -> list[str]:
        """The IDs of all open folders."""
        return sorted(self._folders)

    def positions(self) -> dict[str, int]:
        """Return how far the logs of all open folders are known, by folder ID."""
        return {folder_id: folder.position for folder_id, folder in self.by_id()}

    def checkpoints_written(self) -> dict[str, int]:
        """Return how many checkpoints of each open folder were written here since it was opened."""
        return {folder_id: folder.checkpoints_written for folder_id, folder in self.by_id()}

    def want_checkpoint(self, folder_id: str, older_than: float) -> None:
        """Have a checkpoint of a folder written if the newest is older than so many seconds and its log has gone on."""
        folder = self.get(folder_id)
        if folder is not None:
            folder.want_checkpoint(older_than)

    @property
    def closed(self) -> Sequence[ClosedFolder]:
        """The folders that are not open: those whose IDs are known, and those whose records cannot be read."""
        return list(self._closed)

    async def open_all(self) -> None:
        """Open all folders of the store, except those that are being removed.

        Those that cannot be opened are tried again in the background. Raises StoreError if the store cannot be listed.
        """
        found = await read_folders(self._bucket)
        for problem in found.unreadable:
            self._closed.add_unreadable(problem)
        for record in found:
            if record.removed:
                self._closed.add_removed(record)
                continue
            try:
                await self._open(record)
            except Exception as error:
                self._try_again(record, error)

    async def watch(self, interval: float, idle_interval: float = 0.0) -> None:
        """Look for removed folders until cancelled: every `interval` seconds for those that devices share.

        The others are looked for every `idle_interval` seconds.
        """
        loop = asyncio.get_running_loop()
        looked = loop.time()
        while True:
            await self._sleep(interval)
            everywhere = is_due(looked, idle_interval, interval)
            looked = loop.time() if everywhere else looked
            try:
                await self.look(attended_only=not everywhere)
            except StoreError as error:
                _logger.warning("records of folders not read", error=str(error))

    async def look(self, *, attended_only: bool = False) -> None:
        """Drop the folders that were removed from the store, and open those whose records were mended.

        With `attended_only`, look only for those open ones that devices share. Raises StoreError.
        """
        folders = [folder for folder in self if not attended_only or folder.attended]
        errors: dict[str, BaseException] = {}
        for start in range(0, len(folders), _CONCURRENT_READS):
            group = folders[start : start + _CONCURRENT_READS]
            positions = [folder.position for folder in group]
            answers = await asyncio.gather(
                *(self._records.read_again(folder.record) for folder in group), return_exceptions=True
            )
            for folder, position, answer in zip(group, positions, answers, strict=True):
                if isinstance(answer, BaseException):
                    errors[folder.record.folder_id] = answer
                elif not answer[1]:
                    self._records.was_there(folder.record.folder_id, position)
                elif answer[0] is not None or not await self._records.write_again(folder):
                    await self._drop(folder, answer[0])
        if errors:
            for folder_id, error in errors.items() if len(errors) < len(folders) else ():
                self._records.note_unreadable(folder_id, error)
            raise next(iter(errors.values()))
        now = asyncio.get_running_loop().time()
        if self._closed.has_unreadable and now >= self._look_again:
            self._look_pause = min(2 * self._look_pause, self._max_retry_delay)
            self._look_again = now + self._look_pause
            await self._look_at_unreadable()

    async def _look_at_unreadable(self) -> None:
        """Open the folders whose records were not readable and are now."""
        found = await read_folders(self._bucket)
        unreadable = {problem.path for problem in found.unreadable}
        self._closed.keep_unreadable(unreadable | {_record_key(record.folder_id) for record in found})
        for problem in found.unreadable:
            self._closed.add_unreadable(problem)
        for record in found:
            if not self._closed.is_unreadable(record.folder_id):
                continue
            if record.removed:
                self._closed.add_removed(record)
                continue
            async with self._lock:
                try:
                    await self._open(record)
                except Exception as error:
                    self._try_again(record, error)

    async def _drop(self, folder: Folder, found: FolderRecord | None) -> None:
        """Stop the work on a folder that is removed, and close its files. Peers that share it have to come again."""
        folder_id = folder.record.folder_id
        await self._supervisor.cancel(*self._task_names(folder))
        async with self._lock:
            if self._folders.get(folder_id) is not folder:
                return
            self._forget(folder_id)
            error = "the folder was removed from the store" if found is None or not found.removed else None
            error = error or str(FolderRemovalUnfinished(folder_id))
            self._closed.add(folder.record, error, damaged=False)
            self._losses.forget(folder_id)
        _logger.warning("folder dropped", folder=folder_id, reason=error)
        await self._sessions.end_sharing(folder_id, "a folder was removed", self._close_timeout)
        folder.close()
        folder.discard()

    async def for_offer(self, offer: FolderOffer, by: DeviceID, *, create: bool = True) -> Folder:
        """Return the folder of an offer by a device. With `create`, one that the store does not have is created.

        Raises FolderRefused for another password, a folder that is being removed or cannot be opened, one that may not
        be created, or too many folders. Raises StoreError if the store cannot be used.
        """
        folder = self._folders.get(offer.folder_id)
        if folder is None:
            self._closed.refuse(offer)  # opening one may take long, and needs the lock
            async with self._lock:
                folder = self._folders.get(offer.folder_id) or await self._open_offered(offer, by, create=create)
        check_password(offer, by, folder.record)
        return folder

    async def drain(self) -> None:
        """Before a stop: begin no more pulls, and wait a while for those under way."""
        await asyncio.gather(*(folder.drain() for folder in self))

    async def flush(self) -> None:
        """Write to the logs what is ready, of every folder that can. Raises the first error of those that cannot."""
        results = await asyncio.gather(*(folder.flush() for folder in self), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

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

    def lost(self, folder_id: str) -> Sequence[str]:
        """Return what healings of the folder's log have found lost, as texts, the newest last."""
        return self._losses.texts(folder_id)

    async def watch_losses(self, interval: float) -> None:
        """Look every `interval` seconds whether what folders have lost is to be read again, until cancelled."""
        while True:
            await self._sleep(interval)
            await self._losses.read(self.ids)

    def read_failed(self, key: str, start: int, size: int) -> None:
        """Note that an object of some folder is missing or lacks a range."""
        for folder in self._folders.values():
            if folder.read_failed(key, start, size):
                return

    def block_read(self, key: str, offset: int, block: memoryview) -> None:
        """Note that a block of an object of some folder was read for a peer."""
        base = layout.folder_base(key)
        folder = self._by_base.get(base)
        if folder is None or self._folders.get(folder.record.folder_id) is not folder:
            self._by_base = {layout.FolderKeys.of(folder_id).base: one for folder_id, one in self._folders.items()}
            folder = self._by_base.get(base)
        if folder is not None:
            folder.block_read(key, offset, block)

    def problems(self) -> dict[str, str]:
        """Return what is wrong with folders that should be open, by their names for /readyz."""
        found = self._closed.problems() | self._losses.problems() | self._records.problems(self.ids)
        for folder_id, folder in self.by_id():
            if folder.missing_files:
                text = f"the objects of {folder.missing_files} files are missing or damaged"
                found[f"folder {folder_id}: files missing"] = text
            if folder.damaged_log:
                found[f"folder {folder_id}: log damaged"] = "; ".join(folder.damaged_log)
            if folder.error is not None:
                found[f"folder {folder_id}: no progress"] = folder.error
        return found

    async def _open_offered(self, offer: FolderOffer, by: DeviceID, *, create: bool) -> Folder:
        self._closed.refuse(offer)
        key = _record_key(offer.folder_id)
        try:
            others = [folder.record for folder in self]
            record = await self._records.find_or_create(offer, by, others, create=create)
        except DataError as error:
            self._closed.add_unreadable(Problem(key, str(error)), offered=True)
            raise FolderUnavailable(NOT_OPEN) from error
        if record.removed:
            self._closed.add_removed(record)
            raise FolderRefused(str(FolderRemovalUnfinished(record.folder_id)))
        _logger.info("folder opened", folder=record.folder_id, label=record.label)
        try:
            return await self._open(record)
        except StoreUnreachable:
            raise
        except Exception as error:
            self._try_again(record, error, offered=True)
            raise FolderUnavailable(NOT_OPEN) from error

    def _try_again(self, record: FolderRecord, error: Exception, *, offered: bool = False) -> None:
        """Note that a folder could not be opened, and have it tried again."""
        folder_id = record.folder_id
        _logger.error("folder cannot be opened", folder=folder_id, error=_text(error))
        self._closed.add(record, _text(error), offered=offered)
        self._supervisor.start(_task_name(folder_id, _OPEN), partial(self._open_later, record, "{}"))

    async def _open_later(self, record: FolderRecord, message: str, first_pause: float | None = None) -> None:
        """Try to open a folder with growing pauses. `message` is for its error, and has {} for what went wrong."""
        folder_id = record.folder_id
        pause = self._retry_delay if first_pause is None else first_pause
        while True:
            await self._sleep(pause)
            pause = min(max(2 * pause, self._retry_delay), self._max_retry_delay)
            async with self._lock:
                closed = self._closed.get(folder_id)
                if closed is None or folder_id in self._folders:
                    return
                try:
                    found, is_gone = await self._records.read_again(record)
                    if is_gone:
                        self._closed.discard(folder_id)
                        if found is not None and found.removed:
                            self._closed.add_removed(found)
                        return
                    await self._open(record)
                except Exception as error:
                    closed.error = message.format(_text(error))
                    _logger.error("folder cannot be opened", folder=folder_id, error=_text(error))
                    continue
            return

    async def _open(self, record: FolderRecord) -> Folder:
        """Open a folder and start its tasks. Peers that offered it before come again. Raises what is wrong with it."""
        self._losses.renewed(record.folder_id)  # it may be opened again because another gateway has healed the log
        await self._losses.read([record.folder_id], timeout=_LOSSES_TIMEOUT)
        try:
            folder = await self._load(record)
        except StateDamaged as error:
            _logger.error("local state damaged, loading it from the store", folder=record.folder_id, error=str(error))
            self._damaged.add(record.folder_id)
            folder = await self._load(record)
        self._folders[record.folder_id] = folder
        self.on_change()
        self._records.was_there(record.folder_id, folder.position)
        was_refused = self._closed.discard(record.folder_id)
        for name, work in folder.tasks().items():
            self._supervisor.start(_task_name(record.folder_id, name), partial(self._run, folder, work))
        self._supervisor.start(_task_name(record.folder_id, _LOCAL_STATE), partial(self._watch_local_state, folder))
        if was_refused:
            self._sessions.end(_OPENED_AGAIN)
        self._sessions.folder_opened()
        return folder

    def _forget(self, folder_id: str) -> bool:
        """Take a folder off those that are open. Return whether it was one."""
        was_open = self._folders.pop(folder_id, None) is not None
        self.on_change()
        return was_open

    async def _load(self, record: FolderRecord) -> Folder:
        folder = self._new_folder(record)
        if record.folder_id in self._damaged:
            folder.distrust_checkpoints()
        folder.on_renewed = partial(self._renewed, record.folder_id)
        folder.heeds_claims = partial(self._healer.heeds_claims, record.folder_id)
        try:
            await self._healer.open(folder)
            if self._in_doubt and record.folder_id not in self._compared:
                await folder.look_for_missing()
                self._compared.add(record.folder_id)
        except BaseException:
            folder.close()
            if folder.damaged:
                folder.discard()
            raise
        return folder

    def _renewed(self, folder_id: str) -> None:
        self._losses.renewed(folder_id)
        self._sessions.end_those_sharing(folder_id, "the folder's index is renewed")

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
        except DataError as error:
            name = _task_name(folder.record.folder_id, _HEAL)
            self._supervisor.start(name, partial(self._open_healed, folder, error))

    async def _renew(self, folder: Folder) -> None:
        """Open a folder again whose local state is damaged, but not too often. All sessions end, and the peers come
        back."""
        folder_id = folder.record.folder_id
        self._damaged.add(folder_id)
        pause = None
        await self._supervisor.cancel(*self._task_names(folder))
        message = "the local state is damaged and cannot be loaded from the store: {}"
        async with self._lock:
            if self._forget(folder_id):
                _logger.error("local state damaged, loading it from the store", folder=folder_id)
                closed = self._closed.add(folder.record, "the local state is damaged and is loaded from the store")
                self._sessions.end(_OPENED_AGAIN)
                try:
                    folder.discard()
                    pause = self._renewal_pauses.left(folder_id) or None
                    self._renewal_pauses.note(folder_id)
                    if pause is None:
                        await self._open(folder.record)
                        return
                    closed.error = f"the local state is damaged again, and is loaded from the store in {pause:.0f} s"
                except Exception as error:
                    _logger.error("folder cannot be opened", folder=folder_id, error=_text(error))
                    closed.error = message.format(_text(error))
        await self._open_later(folder.record, message, pause)

    async def _open_healed(self, folder: Folder, reason: DataError) -> None:
        """Close a folder whose log the store has lost a part of, and open it again, which heals it."""
        folder_id = folder.record.folder_id
        with contextlib.suppress(StoreError):
            await self.look()  # a folder that is being removed loses its log too
        await self._supervisor.cancel(*self._task_names(folder))
        async with self._lock:
            if self._folders.get(folder_id) is not folder:
                return
            self._forget(folder_id)
            self._healer.want(folder_id, reason)
            self._closed.add(folder.record, f"{reason}. It is being healed")
        await self._sessions.end_sharing(folder_id, _OPENED_AGAIN, self._close_timeout)
        folder.close()
        await self._open_later(folder.record, f"{reason}. It cannot be healed now: {{}}", first_pause=0)

    @staticmethod
    def _task_names(folder: Folder) -> list[str]:
        return [_task_name(folder.record.folder_id, name) for name in (*folder.tasks(), _LOCAL_STATE)]


def _record_key(folder_id: str) -> str:
    return layout.FolderKeys.of(folder_id).record


def _text(error: Exception) -> str:
    """Return the text of an error for the operator; one that is not ours says its class too."""
    return str(error) if isinstance(error, UntrustedS3Error) else f"{type(error).__name__}: {error}"


def _task_name(folder_id: str, task: str) -> str:
    return f"folder {folder_id}: {task}"
