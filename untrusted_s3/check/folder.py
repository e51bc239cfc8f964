"""The check of one folder: its log, and the objects that the log names."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.check.listed_objects import ListedObjects
from untrusted_s3.check.reading import Part, Read, parts_of, read_part
from untrusted_s3.check.scrub_record import ScrubRecord
from untrusted_s3.check.share import Share
from untrusted_s3.check.strangers import strangers_of_folder
from untrusted_s3.errors import DataError, RequestRefused
from untrusted_s3.index.entry import NamedObject
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.log_check import LogCheck
from untrusted_s3.index.present_objects import check_present_objects
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.missing import still_missing
from untrusted_s3.problem import Finding, Kind
from untrusted_s3.read_ahead import read_ahead
from untrusted_s3.settings import Settings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.garbage import list_garbage, read_garbage
from untrusted_s3.store.garbage_look import Look
from untrusted_s3.store.history import History
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import LossReader
from untrusted_s3.store.records import read_record
from untrusted_s3.store.retention import KeepRules

_NOBODY = DeviceID(bytes(32))
# The store refuses everything if it refuses so many parts and has given none.
_REFUSED_AT_FIRST = 20


@dataclass(slots=True)
class FolderCounts:
    """How far the check of a folder has come.

    Attributes:
        id: The folder's ID, or the segment of its keys if its record cannot be read.
        files: How many files the folder has.
        segments: How many segments of the log were read.
        listed_segments: How many there are.
        checkpoints: How many checkpoints there are.
        objects: How many objects the present state names.
        bytes: Their bytes.
        unused_objects: How many objects are there that the present state does not name: earlier versions, and what
            is not cleaned up.
        unused_bytes: Their bytes.
        read_objects: How many objects were read.
        read_bytes: How many bytes of them.
    """

    id: str
    files: int = 0
    segments: int = 0
    listed_segments: int = 0
    checkpoints: int = 0
    objects: int = 0
    bytes: int = 0
    unused_objects: int = 0
    unused_bytes: int = 0
    read_objects: int = 0
    read_bytes: int = 0


class FolderCheck:
    """A check of a folder that gateways may use meanwhile.

    Attributes:
        keys: The keys of the folder.
        counts: What was checked.
        log: The check of the log; its state is that of the log's end after `run`.
    """

    def __init__(
        self,
        bucket: Bucket,
        keys: FolderKeys,
        counts: FolderCounts,
        directory: Path,
        settings: Settings,
        share: Share | None = None,
        mend: Callable[[FolderState], Awaitable[None]] | None = None,
    ) -> None:
        """`directory` is for local files. `share` is what is read of the objects. `mend` is for `LogCheck`."""
        self.keys = keys
        self.counts = counts
        self._bucket = bucket
        self._settings = settings
        self._share = share
        self.log = LogCheck(bucket, keys, directory, settings.log, mend)
        self._follower = FolderLog(bucket, keys, self.log.state, _NOBODY, settings.log, check_entries=False)

    def close(self) -> None:
        """Close the local files."""
        self.log.close()

    async def run(self) -> AsyncIterator[Finding]:
        """Check the folder. Yield what is wrong, each with its key. Raises StoreError."""
        counts = self.counts
        async for finding in self.log.run():
            yield finding
            self._count_log()
        self._count_log()
        counts.files = self.log.state.totals.files
        for missing in self.log.state.missing():
            key = self.keys.object_of(missing.name_hash, missing.object_name)
            reason = "it was missing or damaged, and no device has sent the file again"
            yield Finding(key, reason, Kind.FILE_MISSING, missing.name)
        async for finding in self._check_records():
            yield finding
        losses = LossReader(self._bucket, self.keys)
        await losses.read()
        for problem in losses.unreadable:
            yield Finding(problem.path, problem.reason, Kind.RECORD)
        for text in losses.texts().values():
            yield Finding(self.keys.losses, text, Kind.HISTORY_MISSING)
        async for finding in self._check_objects():
            yield finding
        for finding in (await strangers_of_folder(self._bucket, self.keys)).findings():
            yield finding

    async def _check_records(self) -> AsyncIterator[Finding]:
        bucket, keys = self._bucket, self.keys
        for key, from_json in (
            (keys.retention, KeepRules.from_json),
            (keys.history, History.from_json),
            (keys.scrub, ScrubRecord.from_json),
            (keys.garbage_look, Look.from_json),
        ):
            try:
                await read_record(bucket, key, from_json)
            except DataError as error:
                yield unreadable(key, error)
        for listed in await list_garbage(bucket, keys):
            try:
                await read_garbage(bucket, keys, listed.record_id)
            except DataError as error:
                yield unreadable(keys.garbage_record(listed.record_id), error)
        wrong = await check_present_objects(bucket, keys, self.log.state)
        if wrong is not None:
            yield Finding(keys.present_objects, wrong, Kind.RECORD)

    def _count_log(self) -> None:
        counts, log = self.counts, self.log
        counts.segments, counts.listed_segments, counts.checkpoints = log.segments, log.listed, log.checkpoints

    async def _check_objects(self) -> AsyncIterator[Finding]:
        listed = ListedObjects(self.keys, self.log.state.path)
        counts = self.counts
        try:
            await listed.load(self._bucket, is_large=counts.files >= self._settings.reading.large_folder)
            counts.objects, counts.bytes = await listed.named()
            counts.unused_objects, counts.unused_bytes = await listed.unused()
            for finding in listed.strangers.findings():
                yield finding
            wrong: list[NamedObject] = []
            async for batch in listed.wrong():
                wrong += await still_missing(self._bucket, self.keys, batch)
                if len(wrong) >= self._settings.sync.missing_at_once:
                    break  # each takes memory; the next check names the rest
            if self._share is not None:
                async for finding in self._read(listed, self._share):
                    yield finding
        finally:
            listed.close()
        # The state may change only now.
        for named in await self._still_named(wrong):
            yield await self._missing(named)

    async def _still_named(self, found: list[NamedObject]) -> list[NamedObject]:
        """Return those that the log still names: gateways may have taken others back, or stored newer versions."""
        if found:
            with contextlib.suppress(DataError):  # the log is damaged, and that was said
                await self._follower.load()
        return sorted(
            (named for named in found if named in self.log.state.objects_of(named.name_hash)),
            key=lambda named: (named.name_hash, named.object_name),
        )

    async def _missing(self, named: NamedObject) -> Finding:
        key = self.keys.object_of(named.name_hash, named.object_name)
        size = await self._bucket.size(key)
        if size is None:
            return Finding(key, "the object is missing", Kind.OBJECT_MISSING, self._name(named))
        return Finding(
            key, f"the object has {size:,} bytes instead of {named.size:,}", Kind.OBJECT_SIZE, self._name(named)
        )

    def _name(self, named: NamedObject) -> str:
        raw = self.log.state.file_info_of(named.name_hash)
        return pb.FileInfo.FromString(raw).name if raw is not None else ""

    async def _read(self, listed: ListedObjects, share: Share) -> AsyncIterator[Finding]:
        reading = self._settings.reading
        refused = 0
        async for batch in listed.right():
            parts = (part for named, stored in batch if share.has(named) for part in parts_of(named, stored))
            work = (self._read_one(part) for part in parts)
            async with contextlib.aclosing(read_ahead(work, reading.concurrent_checks)) as results:
                async for part, found, reason in results:
                    refused += found is Read.REFUSED
                    if refused >= _REFUSED_AT_FIRST and not self.counts.read_objects:
                        raise RequestRefused(reason)
                    key = self.keys.object_of(part.named.name_hash, part.named.object_name)
                    if found is Read.WRONG:
                        yield Finding(key, part.text, Kind.OBJECT_DAMAGED, self._name(part.named))
                    elif found is Read.GONE:
                        yield Finding(key, "the object cannot be read to its end", Kind.OBJECT_MISSING)
                    elif found is Read.REFUSED:
                        yield Finding(key, f"the store does not give it: {reason}", Kind.OBJECT_UNREADABLE)
                    else:
                        self.counts.read_bytes += part.end - part.start
                        self.counts.read_objects += part.number == part.parts

    async def _read_one(self, part: Part) -> tuple[Part, Read, str]:
        found, reason = await read_part(self._bucket, self.keys, part, self._settings.reading.check_read_size)
        return part, found, reason


def unreadable(key: str, error: Exception) -> Finding:
    """Return the finding of a record that cannot be read."""
    return Finding(key, str(error).removeprefix(f"{key} ").removeprefix("cannot be read: "), Kind.RECORD)


@contextlib.contextmanager
def folder_check(
    bucket: Bucket,
    keys: FolderKeys,
    counts: FolderCounts,
    settings: Settings,
    share: Share | None = None,
    mend: Callable[[FolderState], Awaitable[None]] | None = None,
) -> Iterator[FolderCheck]:
    """Make a check of a folder whose local files are deleted when the context ends."""
    with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
        check = FolderCheck(bucket, keys, counts, Path(directory), settings, share, mend)
        try:
            yield check
        finally:
            check.close()
