"""What one folder holds."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import tempfile
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, NoSuchKey
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.entry import NamedObject
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.index.state import FolderState
from untrusted_s3.read_ahead import read_ahead
from untrusted_s3.settings import Settings
from untrusted_s3.stats.amounts import Contents
from untrusted_s3.stats.named import NamedObjects
from untrusted_s3.store.bucket import Bucket, ObjectSummary
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_kept, list_segments
from untrusted_s3.upkeep.live import needed_checkpoints

_NOBODY: Final = DeviceID(bytes(32))
_CONCURRENT_LISTINGS: Final = 16
_AT_ONCE: Final = 2000
_TRIES: Final = 3


@dataclass(slots=True)
class FolderStats:
    """What a folder holds.

    Attributes:
        id: Its ID, or the segment of its keys if its record cannot be read.
        contents: Its objects, log and other keys.
        listed: How many of its objects were listed.
        files: How many files it has now.
        segments: How many segments of the log there are.
        read_segments: How many of them were read.
        checkpoints: How many checkpoints there are.
        problem: Why its objects are unclear, or None.
    """

    id: str
    contents: Contents = field(default_factory=Contents)
    listed: int = 0
    files: int = 0
    segments: int = 0
    read_segments: int = 0
    checkpoints: int = 0
    problem: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "id": self.id,
            "problem": self.problem,
            "files": self.files,
            "segments": self.segments,
            "checkpoints": self.checkpoints,
            **self.contents.to_json(),
        }


class _MovedOn(Exception):
    """Something that was listed is cleaned up meanwhile."""


class FolderCount:
    """Counts what a folder holds, while gateways may use it. `is_removed` says that it is being removed."""

    def __init__(
        self, bucket: Bucket, keys: FolderKeys, stats: FolderStats, settings: Settings, *, is_removed: bool = False
    ) -> None:
        self._bucket = bucket
        self._keys = keys
        self._stats = stats
        self._settings = settings
        self._is_removed = is_removed

    async def run(self) -> None:
        """Count. Raises StoreError; a damaged log is a `problem` of the folder."""
        with (
            tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory,
            contextlib.closing(FolderState(Path(directory, "state.sqlite"))) as state,
            contextlib.closing(NamedObjects()) as objects,
        ):
            log = FolderLog(self._bucket, self._keys, state, _NOBODY, self._settings.log, check_entries=False)
            try:
                if not self._is_removed:
                    await log.load()
            except DataError as error:
                self._stats.problem = str(error)
            self._stats.files = state.totals.files
            await self._list(objects, is_large=state.totals.files >= self._settings.reading.large_folder)
            if self._is_removed:
                self._stats.problem = "the folder is being removed"
            if self._stats.problem is None:
                try:
                    # Once more: what was stored meanwhile may be listed already.
                    await log.load()
                    self._stats.files = state.totals.files
                    await self._name(objects, state, Path(directory))
                except DataError as error:
                    self._stats.problem = str(error)
            await asyncio.to_thread(objects.count, self._stats.contents, is_known=self._stats.problem is None)

    # What the store has

    async def _list(self, objects: NamedObjects, *, is_large: bool) -> None:
        prefixes = [self._keys.base]
        if is_large:
            # The objects of 256 directories, at once. A key beside directories is not seen then.
            prefixes = [
                one async for one in self._bucket.list_directories(self._keys.base) if one != self._keys.objects
            ]
            prefixes += sorted([one async for one in self._bucket.list_directories(self._keys.objects)])
        work = (self._list_one(objects, self._bucket.list(prefix)) for prefix in prefixes)
        async with contextlib.aclosing(read_ahead(work, _CONCURRENT_LISTINGS)) as listings:
            async for _ in listings:
                pass

    async def _list_one(self, objects: NamedObjects, items: AsyncIterator[ObjectSummary]) -> None:
        found: list[tuple[bytes, str, int]] = []
        contents = self._stats.contents
        async for item in items:
            contents.of_class(item.storage_class).add(item.size)
            parsed = self._keys.parse_object(item.key)
            if parsed is not None and self._keys.object_of(*parsed) == item.key:
                found.append((*parsed, item.size))
                if len(found) >= _AT_ONCE:
                    self._add(objects, found)
                    found.clear()
            elif self._is_ours(item.key):
                contents.log.add(item.size)
            else:
                contents.unknown.add(item.size)
        self._add(objects, found)

    def _add(self, objects: NamedObjects, found: list[tuple[bytes, str, int]]) -> None:
        objects.list(found)
        self._stats.listed += len(found)

    def _is_ours(self, key: str) -> bool:
        keys = self._keys
        if key in keys.records:
            return True
        if key.startswith(keys.segments):
            return keys.segment_position(key) is not None
        if key.startswith(keys.checkpoints):
            return keys.checkpoint_position(key) is not None
        return key.startswith(keys.directories) and not key.startswith(keys.objects)

    # What the log names

    async def _name(self, objects: NamedObjects, state: FolderState, directory: Path) -> None:
        """Add what the present state names, and what every segment and checkpoint does that the store has."""
        for left in reversed(range(_TRIES)):
            objects.forget_names()
            await _name_all(objects, state.objects(), live=True)
            try:
                await self._name_history(objects, directory)
                return
            except _MovedOn as error:
                if not left:
                    raise DataError(f"{error} again and again: try again later") from error

    async def _name_history(self, objects: NamedObjects, directory: Path) -> None:
        stats = self._stats
        # In this order: where a segment is missing, a checkpoint that covers it was there before.
        segments = await list_segments(self._bucket, self._keys)
        checkpoints = sorted(await list_checkpoints(self._bucket, self._keys))
        stats.segments, stats.checkpoints, stats.read_segments = len(segments), len(checkpoints), 0
        for position in needed_checkpoints(checkpoints, segments):
            await self._name_checkpoint(objects, position, directory)
        for key, (position, _) in (await list_kept(self._bucket, self._keys)).items():
            await self._name_checkpoint(objects, position, directory, kept_as=key)
        reader = SegmentReader(self._bucket, self._keys, self._settings.log)
        async with contextlib.aclosing(reader.read_each(segments)) as found:
            async for position, segment in found:
                if segment is None:
                    raise _MovedOn(f"{self._keys.segment(position)} is deleted meanwhile")
                if isinstance(segment, DataError):
                    raise segment
                stats.read_segments += 1
                named = (NamedObject.of(version) for entry in segment.entries for version in entry.versions)
                objects.name(filter(None, named), live=False)

    async def _name_checkpoint(
        self, objects: NamedObjects, position: int, directory: Path, *, kept_as: str | None = None
    ) -> None:
        with (
            tempfile.TemporaryDirectory(dir=directory) as own,
            contextlib.closing(FolderState(Path(own, "state.sqlite"))) as state,
        ):
            try:
                await read_checkpoint(self._bucket, self._keys, position, state, check_entries=False, kept_as=kept_as)
            except NoSuchKey as error:
                raise _MovedOn(f"{kept_as or self._keys.checkpoint(position)} is deleted meanwhile") from error
            await _name_all(objects, state.objects(), live=False)


async def _name_all(objects: NamedObjects, named: Iterable[NamedObject], *, live: bool) -> None:
    remaining = iter(named)
    while some := list(itertools.islice(remaining, _AT_ONCE)):
        objects.name(some, live=live)
        await asyncio.sleep(0)  # for the line that shows progress
