"""The scrub: reads every object of each folder once in a period, so that damage is found while it can be mended.

Names are gone through in the order of their hashes, which are spread evenly. So the share of them that is done should
be the share of the period that has passed. After a pause the scrub catches up, but uses the store for half of the time
at most. What is damaged or missing is looked at again and taken back as if a peer had met it (sync/missing.py), and
devices that have it send it again.

Every gateway also reads the segments of the logs again that no checkpoint covers: soon after it starts, and then as
often as progress is written down. If one is damaged, it writes a checkpoint of its state, which has what the segment
said.

Once in a period, at its half, all of the log is checked as the command does: the checkpoints have to say what it says.
What is damaged is logged and counted; to write a checkpoint again is left to people.

Of several gateways on a store one scrubs the objects of a folder. How far it has come is in the store. A gateway goes
on with what another one has left for a while.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.check.reading import Part, Read, parts_of, read_part
from untrusted_s3.check.scrub_record import ScrubRecord
from untrusted_s3.counters import Counters
from untrusted_s3.errors import DataError, PreconditionFailed, RequestRefused, StateDamaged, StoreError
from untrusted_s3.gateway.log_scrub import scrub_log
from untrusted_s3.gateway.troubles import Troubles
from untrusted_s3.index.entry import NamedObject
from untrusted_s3.settings import LogSettings, ScrubSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import NAME_HASH_SIZE, FolderKeys
from untrusted_s3.store.records import read_record, write_record
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.served_parts import WrongPart

_logger = structlog.get_logger()
# After which share of a round the log is checked.
_LOG_DUE = 0.5
_LOG_DAMAGED = "log damaged"
_NOT_READABLE = "objects not readable"
_SPACE = 2 ** (8 * NAME_HASH_SIZE)


class OpenFolders(Protocol):
    """The folders that are open."""

    def by_id(self) -> list[tuple[str, Folder]]:
        """Return them with their IDs, in order."""
        ...

    def get(self, folder_id: str) -> Folder | None:
        """Return an open folder."""
        ...


class Scrub:
    """The scrub of all folders of a store. `period` is how many seconds a round takes; 0 for no scrub."""

    def __init__(
        self,
        bucket: Bucket,
        folders: OpenFolders,
        own_id: DeviceID,
        period: float,
        counters: Counters,
        settings: ScrubSettings,
        log_settings: LogSettings | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        troubles: Troubles | None = None,
    ) -> None:
        """What fails is noted in `troubles`."""
        self._troubles = troubles or Troubles()
        self._bucket = bucket
        self._folders = folders
        self._own_id = own_id
        self._period = period
        self._counters = counters
        self._settings = settings
        self._log_settings = log_settings or LogSettings()
        self._sleep = sleep
        self._records: dict[str, ScrubRecord] = {}
        # When the records of others are read again.
        self._look_again: dict[str, float] = {}
        # The folders of which this round has found objects that the store does not give.
        self._refused: set[str] = set()
        # When the logs are looked at again.
        self._log_due: dict[str, float] = {}

    async def run(self) -> None:
        """Scrub what is due, now and then, until cancelled."""
        while True:
            await self._sleep(self._settings.interval)
            while await self.turn():
                pass

    async def turn(self) -> bool:
        """Scrub what is due of each folder, or a part of it. Return whether more is due now.

        What fails is logged and left to later.
        """
        more = False
        open_now = dict(self._folders.by_id())
        for folder_id in self._records.keys() - open_now.keys():
            del self._records[folder_id]
            self._look_again.pop(folder_id, None)
            self._log_due.pop(folder_id, None)
        for folder_id, folder in open_now.items():
            trouble: Exception | None = None
            try:
                if self._bucket.now() >= self._log_due.get(folder_id, 0.0):
                    await folder.cover_damage()
                    self._log_due[folder_id] = self._bucket.now() + self._save_interval
                more |= await self._scrub(folder_id, folder)
            except (StoreError, DataError, StateDamaged, OSError) as error:
                trouble = error
                _logger.warning("folder not scrubbed", folder=folder_id, error=str(error))
            self._troubles.of_folder(folder_id, "not scrubbed", trouble)
        return more

    def status(self, folder_id: str) -> dict[str, Any] | None:
        """Return the JSON of a folder's scrub, or None if nothing is known of one."""
        record = self._records.get(folder_id)
        if record is None:
            return None
        return {
            "progress": round(record.progress, 4),
            "began": _time_text(record.began),
            "finished": _time_text(record.finished) if record.finished else None,
            "objects": record.objects,
            "bytes": record.bytes,
            "damaged": record.damaged,
            "log_checked": _time_text(record.log_checked) if record.log_checked else None,
            "device_id": str(record.writer),
        }

    @property
    def _save_interval(self) -> float:
        """How often progress is written down."""
        return max(self._period * self._settings.save_share, self._settings.interval)

    async def _scrub(self, folder_id: str, folder: Folder) -> bool:
        """Scrub what is due of a folder, or a part of it. Return whether more is due now."""
        keys = FolderKeys.of(folder_id)
        record = await self._own_record(folder_id, keys)
        if record is None:
            return False
        now = self._bucket.now()
        due = min(max((now - record.began) / self._period, 0.0), 1.0)
        limit = min(int(due * _SPACE), _SPACE - 1).to_bytes(NAME_HASH_SIZE)
        before = record
        if due >= _LOG_DUE and record.log_checked < record.began:
            record = await self._scrub_log(folder_id, folder, keys, record)
        record = await self._scrub_to(limit, folder_id, folder, keys, record)
        if due >= 1 and record.position >= limit:
            _logger.info(
                "folder scrubbed", folder=folder_id, objects=record.objects, bytes=record.bytes, damaged=record.damaged
            )
            if folder_id not in self._refused:
                self._troubles.of_folder(folder_id, _NOT_READABLE, None)
            self._refused.discard(folder_id)
            record = ScrubRecord(self._own_id, int(now), int(now), finished=int(now), log_checked=record.log_checked)
        has_news = (record.began, record.damaged, record.log_checked) != (
            before.began,
            before.damaged,
            before.log_checked,
        )
        if has_news or now - record.time >= self._save_interval:
            record = replace(record, time=int(now))
            await write_record(self._bucket, keys.scrub, record.to_json())
        if folder_id in self._records:
            self._records[folder_id] = record
        return record.bytes - before.bytes >= self._settings.bytes_in_turn

    async def _own_record(self, folder_id: str, keys: FolderKeys) -> ScrubRecord | None:
        """Return how far the scrub of a folder has come, or None if another gateway does it."""
        now, lease = self._bucket.now(), 2 * self._save_interval
        record = self._records.get(folder_id)
        if record is not None and record.writer == self._own_id and now - record.time < lease:
            return record
        if record is not None and now < self._look_again.get(folder_id, 0.0):
            return None
        try:
            found = await read_record(self._bucket, keys.scrub, ScrubRecord.from_json)
        except DataError as error:
            _logger.error("record of a scrub not readable", folder=folder_id, error=str(error))
            found = ScrubRecord(self._own_id, 0, int(now))  # replaced below
        if found is not None and found.writer != self._own_id and now - found.time < lease:
            self._records[folder_id], self._look_again[folder_id] = found, now + self._save_interval
            return None
        if found is None or found.writer != self._own_id or found.time == 0:
            is_new = found is None
            found = replace(found or ScrubRecord(self._own_id, 0, int(now)), writer=self._own_id, time=int(now))
            try:
                await write_record(self._bucket, keys.scrub, found.to_json(), create=is_new)
            except PreconditionFailed:
                return None  # another gateway begins now
        self._records[folder_id] = found
        return found

    async def _scrub_log(self, folder_id: str, folder: Folder, keys: FolderKeys, record: ScrubRecord) -> ScrubRecord:
        """Check the log of a folder, and return the record that says so."""
        damaged = await scrub_log(
            self._bucket,
            keys,
            folder.directory,
            self._log_settings,
            self._sleep,
            lambda: self._folders.get(folder_id) is folder,
        )
        if damaged is None:
            return record
        self._counters.scrub_damage.inc(damaged)
        found = DataError(f"{damaged} segments or checkpoints in the store are damaged") if damaged else None
        self._troubles.of_folder(folder_id, _LOG_DAMAGED, found)
        record = replace(record, damaged=record.damaged + damaged, log_checked=int(self._bucket.now()))
        self._records[folder_id] = record
        return record

    async def _scrub_to(
        self, limit: bytes, folder_id: str, folder: Folder, keys: FolderKeys, record: ScrubRecord
    ) -> ScrubRecord:
        """Read the objects of the names up to `limit`, or some of them. Return how far that has come."""
        begin = record.bytes
        while record.position < limit and record.bytes - begin < self._settings.bytes_in_turn:
            if self._folders.get(folder_id) is not folder:
                break  # its local files are closed
            names = folder.stored_after(record.position, limit, self._settings.names_at_once)
            if not names:
                record = replace(record, position=limit)
            for key, objects in names:
                damaged = 0
                for stored in objects:
                    named = NamedObject(key, stored.object_name, stored.size)
                    damaged += await self._read(folder, keys, parts_of(named, stored))
                size = sum(stored.size for stored in objects)
                self._counters.objects_scrubbed.inc(len(objects))
                self._counters.scrub_bytes.inc(size)
                record = replace(
                    record,
                    position=key,
                    objects=record.objects + len(objects),
                    bytes=record.bytes + size,
                    damaged=record.damaged + damaged,
                )
                self._records[folder_id] = record
        return record

    async def _read(self, folder: Folder, keys: FolderKeys, parts: Iterable[Part]) -> bool:
        """Read the parts of an object. Return whether it is damaged or missing."""
        for part in parts:
            begun = asyncio.get_running_loop().time()
            found, reason = await read_part(self._bucket, keys, part, self._settings.read_size)
            if found in (Read.WRONG, Read.GONE):
                key = keys.object_of(part.named.name_hash, part.named.object_name)
                _logger.error("scrub found damage", key=key, reason=part.text if found is Read.WRONG else "it is gone")
                self._counters.scrub_damage.inc()
                if found is Read.WRONG:
                    folder.part_differs(WrongPart(key, part.start, part.end, part.end, 0, part.checksum))
                else:
                    folder.read_failed(key, part.start, part.end - part.start)
                return True
            if found is Read.REFUSED:
                _logger.warning("object not scrubbed", object=part.named.object_name, reason=reason)
                folder_id = folder.record.folder_id
                self._refused.add(folder_id)
                self._troubles.of_folder(folder_id, _NOT_READABLE, RequestRefused(reason))
                return False
            # Peers come first: the scrub uses the store for half of the time at most.
            await self._sleep(asyncio.get_running_loop().time() - begun)
        return False


def _time_text(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
