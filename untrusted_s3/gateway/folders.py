"""The folders of the store: opens, creates and renews them, and has their background tasks run.

A folder that cannot be opened stops no other one: it is listed with its error, offers of it are refused, and it is
tried again with growing pauses. A folder that is removed from the store is dropped. A folder whose log the store has
lost a part of is closed, healed (sync/healing.py) and opened again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import structlog

from untrusted_s3.bep.cluster_config import FolderOffer, check_token
from untrusted_s3.bep.constants import MAX_FOLDERS
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import (
    DataError,
    FolderNotAllowed,
    FolderRefused,
    FolderRemovalUnfinished,
    HealingDelayed,
    IndexClaimed,
    LogWentBack,
    OtherPassword,
    PreconditionFailed,
    SegmentsMissing,
    StateDamaged,
    StoreError,
    StoreUnreachable,
    UntrustedS3Error,
)
from untrusted_s3.gateway.pauses import Pauses
from untrusted_s3.gateway.sessions import Sessions
from untrusted_s3.settings import UpkeepSettings
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.records import FolderRecord, create_folder, read_folders, read_record, write_record
from untrusted_s3.supervisor import Supervisor, Work
from untrusted_s3.sync.folder import Folder

_logger = structlog.get_logger()

_LOCAL_STATE = "watch the local state"
_RENEW = "renew the local state"
_HEAL = "heal the log"
_OPENED_AGAIN = "a folder is opened again"
_OPEN = "open"
_CONCURRENT_READS = 8
_LOST_SHOWN = 20
_NOT_OPEN = "the gateway cannot open the folder now; its status says why"


@dataclass(slots=True)
class ClosedFolder:
    """A folder of the store that is not open.

    Attributes:
        folder_id: Its ID, or the key of its record if that cannot be read.
        label: Its label.
        error: Why it is not open, for the operator.
        damaged: Whether it should be open. It is tried again, and peers that offer it are refused until then.
        offered: Whether a peer was refused because of that.
    """

    folder_id: str
    label: str
    error: str
    damaged: bool = True
    offered: bool = False


class Folders:
    """The folders of a store, by ID. Iterating gives those that are open, in the order of their IDs.

    `new_folder` makes a folder that is not open yet. `retry_delay` is the pause in seconds before a folder that could
    not be opened is tried again; it doubles up to `max_retry_delay`. `close_timeout` is how long the peers of a removed
    folder have to end their connections.
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
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._bucket = bucket
        self._new_folder = new_folder
        self._supervisor = supervisor
        self._sessions = sessions
        self._retry_delay = retry_delay
        self._max_retry_delay = max_retry_delay
        self._close_timeout = close_timeout
        self._max_folders = max_folders
        self._folders_of_device = folders_of_device
        self._sleep = sleep
        settings = UpkeepSettings()
        self._heal_pauses = heal_pauses or Pauses(settings.heal_pause, settings.max_heal_pause)
        self._claim_pauses = claim_pauses or Pauses(settings.claim_pause, settings.max_claim_pause)
        # By folder ID: why the log has to be healed before the folder is opened, and what healing has found lost.
        self._to_heal: dict[str, DataError] = {}
        self._lost: dict[str, list[str]] = {}
        self._folders: dict[str, Folder] = {}
        self._closed: dict[str, ClosedFolder] = {}
        # By folder ID, the position of the log when the record was there last.
        self._positions: dict[str, int] = {}
        # By the keys of records that cannot be read
        self._unreadable: dict[str, ClosedFolder] = {}
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

    @property
    def closed(self) -> Sequence[ClosedFolder]:
        """The folders that are not open: those whose IDs are known, and those whose records cannot be read."""
        return [closed for folders in (self._closed, self._unreadable) for _, closed in sorted(folders.items())]

    async def open_all(self) -> None:
        """Open all folders of the store, except those that are being removed.

        Those that cannot be opened are tried again in the background. Raises StoreError if the store cannot be listed.
        """
        found = await read_folders(self._bucket)
        for problem in found.unreadable:
            self._note_unreadable(problem.path, problem.reason)
        for record in found:
            if record.removed:
                self._note_removal(record)
                continue
            try:
                await self._open(record)
            except Exception as error:
                self._try_again(record, error)

    async def watch(self, interval: float) -> None:
        """Look for removed folders every `interval` seconds, until cancelled."""
        while True:
            await self._sleep(interval)
            try:
                await self.look()
            except StoreError as error:
                _logger.warning("records of folders not read", error=str(error))

    async def look(self) -> None:
        """Drop the folders that were removed from the store, and open those whose records were mended.

        Raises StoreError.
        """
        folders, errors = list(self), []
        for start in range(0, len(folders), _CONCURRENT_READS):
            group = folders[start : start + _CONCURRENT_READS]
            records = (folder.record for folder in group)
            positions = [folder.position for folder in group]
            answers = await asyncio.gather(
                *(self._read_again(record.folder_id, record.index_id) for record in records), return_exceptions=True
            )
            for folder, position, answer in zip(group, positions, answers, strict=True):
                if isinstance(answer, BaseException):
                    errors.append(answer)
                elif not answer[1]:
                    self._positions[folder.record.folder_id] = position
                elif answer[0] is not None or not await self._write_again(folder):
                    await self._drop(folder, answer[0])
        if errors:
            raise errors[0]
        now = asyncio.get_running_loop().time()
        if self._unreadable and now >= self._look_again:
            self._look_pause = min(2 * self._look_pause, self._max_retry_delay)
            self._look_again = now + self._look_pause
            await self._look_at_unreadable()

    async def _look_at_unreadable(self) -> None:
        """Open the folders whose records were not readable and are now."""
        found = await read_folders(self._bucket)
        before, self._unreadable = self._unreadable, {}
        for problem in found.unreadable:
            if problem.path in before:
                self._unreadable[problem.path] = before[problem.path]
            else:
                self._note_unreadable(problem.path, problem.reason)
        for record in found:
            closed = before.get(_record_key(record.folder_id))
            if closed is None or record.folder_id in self._folders:
                continue
            if record.removed:
                self._note_removal(record)
                continue
            async with self._lock:
                try:
                    await self._open(record)
                except Exception as error:
                    self._try_again(record, error, offered=closed.offered)
                    continue
            if closed.offered:
                self._sessions.end(_OPENED_AGAIN)

    async def _read_again(self, folder_id: str, index_id: int) -> tuple[FolderRecord | None, bool]:
        """Read the record of a folder; return it, and whether the folder is gone or being removed.

        A record that cannot be read now says nothing about that. Raises StoreError.
        """
        key = _record_key(folder_id)
        try:
            record = await read_record(self._bucket, key, FolderRecord.from_json)
        except DataError:
            return None, False
        if record is None:
            # One without bytes counts as none, but is no removal.
            return None, await self._bucket.size(key) is None
        return record, record.removed or record.index_id != index_id

    async def _write_again(self, folder: Folder) -> bool:
        """Write the record of a folder again that the store has lost. Return False if the folder was removed.

        A removal deletes all else before the record. What gateways have written since the record was there last says
        nothing: they may not know of the removal. Raises StoreError.
        """
        record = folder.record
        if not await folder.log_remains(self._positions.get(record.folder_id, 0)):
            return False
        try:
            await write_record(self._bucket, _record_key(record.folder_id), record.to_json(), create=True)
        except PreconditionFailed:
            return True  # the next look sees what it is
        _logger.error("record of a folder was lost, and is written again", folder=record.folder_id)
        return True

    async def _drop(self, folder: Folder, found: FolderRecord | None) -> None:
        """Stop the work on a folder that is removed, and close its files. Peers that share it have to come again."""
        folder_id = folder.record.folder_id
        await self._supervisor.cancel(*self._task_names(folder))
        async with self._lock:
            if self._folders.get(folder_id) is not folder:
                return
            del self._folders[folder_id]
            error = "the folder was removed from the store" if found is None or not found.removed else None
            error = error or str(FolderRemovalUnfinished(folder_id))
            self._closed[folder_id] = ClosedFolder(folder_id, folder.record.label, error, damaged=False)
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
            self._refuse_damaged(offer)  # opening one may take long, and needs the lock
            async with self._lock:
                folder = self._folders.get(offer.folder_id) or await self._open_offered(offer, by, create=create)
        try:
            check_token(offer.token, folder.record.token)
        except OtherPassword as error:
            creator = folder.record.created_by
            if creator in (None, by):
                raise
            raise OtherPassword(
                f"another password: the device {creator} has offered a folder with this ID before, with another "
                "encryption password, and its data are stored. If the two are the same folder, set the same password "
                "for this device again. If not, one of them needs another folder ID: a folder's ID cannot be changed, "
                "so add the folder in Syncthing again with another one"
            ) from error
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
        """Return what healing the folder's log since the start of this gateway has found lost, as texts."""
        return self._lost.get(folder_id, [])

    def read_failed(self, key: str, start: int, size: int) -> None:
        """Note that an object of some folder is missing or lacks a range."""
        for folder in self._folders.values():
            if folder.read_failed(key, start, size):
                return

    def problems(self) -> dict[str, str]:
        """Return what is wrong with folders that should be open, by their names for /readyz."""
        return {
            f"folder {folder_id}: not open": closed.error
            for folders in (self._closed, self._unreadable)
            for folder_id, closed in sorted(folders.items())
            if closed.damaged
        } | {
            f"folder {folder_id}: files missing": f"the objects of {folder.missing_files} files are missing or damaged"
            for folder_id, folder in self.by_id()
            if folder.missing_files
        }

    def _refuse_damaged(self, offer: FolderOffer) -> None:
        for closed in (self._closed.get(offer.folder_id), self._unreadable.get(_record_key(offer.folder_id))):
            if closed is not None and closed.damaged:
                closed.offered = True
                raise FolderRefused(_NOT_OPEN)

    async def _open_offered(self, offer: FolderOffer, by: DeviceID, *, create: bool) -> Folder:
        self._refuse_damaged(offer)
        key = _record_key(offer.folder_id)
        try:
            record = await self._find_or_create(offer, by, create=create)
        except DataError as error:
            self._note_unreadable(key, str(error), offered=True)
            raise FolderRefused(_NOT_OPEN) from error
        _logger.info("folder opened", folder=record.folder_id, label=record.label)
        try:
            return await self._open(record)
        except StoreUnreachable:
            raise
        except Exception as error:
            self._try_again(record, error, offered=True)
            raise FolderRefused(_NOT_OPEN) from error

    async def _find_or_create(self, offer: FolderOffer, by: DeviceID, *, create: bool) -> FolderRecord:
        if len(self._folders) >= self._max_folders:
            raise FolderRefused(f"this store already has {len(self._folders)} folders and takes no more")
        fresh = FolderRecord(offer.folder_id, offer.label, offer.token, created_by=by)
        key = _record_key(offer.folder_id)
        created = sum(folder.record.created_by == by for folder in self._folders.values())
        is_full = created >= self._folders_of_device
        if (is_full or not create) and await read_record(self._bucket, key, FolderRecord.from_json) is None:
            if create:
                raise FolderRefused(f"this device has created {created} folders here and may create no more")
            raise FolderNotAllowed("the store does not have this folder, and the device may only read")
        record = await create_folder(self._bucket, fresh)
        if record.removed:
            self._note_removal(record)
            raise FolderRefused(str(FolderRemovalUnfinished(record.folder_id)))
        if record.folder_id != offer.folder_id:
            raise DataError(f"{key} belongs to another folder")
        return record

    def _note_unreadable(self, key: str, reason: str, *, offered: bool = False) -> None:
        _logger.error("folder not readable", key=key, reason=reason)
        self._unreadable[key] = ClosedFolder(
            key, "", f"the record of the folder cannot be read: {reason}", offered=offered
        )

    def _note_removal(self, record: FolderRecord) -> None:
        reason = str(FolderRemovalUnfinished(record.folder_id))
        _logger.warning("folder not opened", folder=record.folder_id, reason=reason)
        self._closed[record.folder_id] = ClosedFolder(record.folder_id, record.label, reason, damaged=False)

    def _try_again(self, record: FolderRecord, error: Exception, *, offered: bool = False) -> None:
        """Note that a folder could not be opened, and have it tried again."""
        folder_id = record.folder_id
        _logger.error("folder cannot be opened", folder=folder_id, error=_text(error))
        self._closed[folder_id] = ClosedFolder(folder_id, record.label, _text(error), offered=offered)
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
                    found, is_gone = await self._read_again(folder_id, record.index_id)
                    if is_gone:
                        del self._closed[folder_id]
                        if found is not None and found.removed:
                            self._note_removal(found)
                        return
                    await self._open(record)
                except Exception as error:
                    closed.error = message.format(_text(error))
                    _logger.error("folder cannot be opened", folder=folder_id, error=_text(error))
                    continue
            if closed.offered:
                # Peers offer it again with their next connection.
                self._sessions.end(_OPENED_AGAIN)
            return

    async def _open(self, record: FolderRecord) -> Folder:
        """Open a folder and start its tasks. Raises what is wrong with it."""
        try:
            folder = await self._load(record)
        except StateDamaged as error:
            _logger.error("local state damaged, loading it from the store", folder=record.folder_id, error=str(error))
            folder = await self._load(record)
        self._folders[record.folder_id] = folder
        self._positions[record.folder_id] = folder.position
        self._closed.pop(record.folder_id, None)
        for name, work in folder.tasks().items():
            self._supervisor.start(_task_name(record.folder_id, name), partial(self._run, folder, work))
        self._supervisor.start(_task_name(record.folder_id, _LOCAL_STATE), partial(self._watch_local_state, folder))
        self._sessions.folder_opened()
        return folder

    async def _load(self, record: FolderRecord) -> Folder:
        folder = self._new_folder(record)
        folder.on_renewed = partial(self._sessions.end_those_sharing, record.folder_id, "the folder's index is renewed")
        folder.heeds_claims = lambda: not self._claim_pauses.left(record.folder_id)
        try:
            if record.folder_id not in self._to_heal:
                try:
                    await folder.open()
                except (LogWentBack, SegmentsMissing) as error:
                    self._to_heal[record.folder_id] = error
            if record.folder_id in self._to_heal:
                await self._heal(folder, self._to_heal[record.folder_id])
                await folder.open()
                del self._to_heal[record.folder_id]
        except BaseException:
            folder.close()
            if folder.damaged:
                folder.discard()
            raise
        return folder

    async def _heal(self, folder: Folder, reason: DataError) -> None:
        """Heal the log of a folder that is not open. Raises HealingDelayed, or what keeps it from being healed."""
        folder_id = folder.record.folder_id
        left = self._heal_pauses.left(folder_id)
        if left:
            raise HealingDelayed(f"{reason}. It is healed in {left:.0f} s, for it was healed a short time ago")
        _logger.error("log has lost segments, healing it", folder=folder_id, error=str(reason))
        healed = await folder.heal()
        self._heal_pauses.note(folder_id)
        if isinstance(reason, IndexClaimed):
            self._claim_pauses.note(folder_id)
        lost = [f"the log has lost {loss}: what was in it and no device has is lost" for loss in healed.losses]
        if healed.forgotten:
            lost.append(f"{healed.forgotten} entries that this gateway knew are not in the log any more")
        if not lost and isinstance(reason, IndexClaimed):
            lost.append(f"{reason}: what was in it and no device has is lost")
        self._lost[folder_id] = [*self._lost.get(folder_id, []), *lost][-_LOST_SHOWN:]
        for text in lost:
            _logger.error("log segments lost", folder=folder_id, reason=text)
        _logger.warning("log healed", folder=folder_id, restored=healed.restored, missing=healed.missing)

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
        """Open a folder again whose local state is damaged. All sessions end, and the peers come back."""
        folder_id = folder.record.folder_id
        await self._supervisor.cancel(*self._task_names(folder))
        message = "the local state is damaged and cannot be loaded from the store: {}"
        async with self._lock:
            if self._folders.pop(folder_id, None) is not None:
                _logger.error("local state damaged, loading it from the store", folder=folder_id)
                error_text = "the local state is damaged and is loaded from the store"
                self._closed[folder_id] = ClosedFolder(folder_id, folder.record.label, error_text)
                self._sessions.end(_OPENED_AGAIN)
                try:
                    folder.discard()
                    await self._open(folder.record)
                    return
                except Exception as error:
                    _logger.error("folder cannot be opened", folder=folder_id, error=_text(error))
                    self._closed[folder_id].error = message.format(_text(error))
        await self._open_later(folder.record, message)

    async def _open_healed(self, folder: Folder, reason: DataError) -> None:
        """Close a folder whose log the store has lost a part of, and open it again, which heals it."""
        folder_id = folder.record.folder_id
        with contextlib.suppress(StoreError):
            await self.look()  # a folder that is being removed loses its log too
        await self._supervisor.cancel(*self._task_names(folder))
        async with self._lock:
            if self._folders.get(folder_id) is not folder:
                return
            del self._folders[folder_id]
            self._to_heal[folder_id] = reason
            self._closed[folder_id] = ClosedFolder(folder_id, folder.record.label, f"{reason}. It is being healed")
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
