"""Copies one folder of a store into another bucket, so that what is there is a whole folder at any moment.

An object is complete before a segment or a checkpoint names it. Checkpoints come before segments, and segments in the
order of their positions. So the copy is the folder as it was at the end of the segment that was copied last.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import crc32c

from untrusted_s3.errors import DataError, NoSuchKey
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.present_objects import listed_position
from untrusted_s3.index.segment import decode_segment
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.listing import ObjectSizes
from untrusted_s3.problem import Problem
from untrusted_s3.progress import Progress
from untrusted_s3.replication.kinds import of_folder
from untrusted_s3.replication.named_objects import NamedObject, NamedObjects
from untrusted_s3.replication.object_copier import ObjectCopier
from untrusted_s3.replication.records import copy_small
from untrusted_s3.settings import Settings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.deletions import where_allowed
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_kept, list_segments
from untrusted_s3.store.positions import Positions
from untrusted_s3.store.records import FolderRecord, read_record, write_record
from untrusted_s3.threads import in_thread_to_the_end
from untrusted_s3.units import MIB
from untrusted_s3.vault.concurrency import for_each

_CHECKSUM_SIZE = 4


@dataclass(slots=True)
class ReplicationReport:
    """What was copied and what was not.

    Attributes:
        folders: Folders that the copy has up to the time of the run.
        objects: Objects with files' data that were copied.
        bytes: Their bytes.
        there: Objects that the copy had already.
        segments: Segments of logs that were copied.
        checkpoints: Checkpoints that were copied.
        states: States beyond the history that were copied.
        deleted: Segments and checkpoints that the store has trimmed, and now the copy too.
        left: Those of them that stay in the copy, because its credentials may not delete.
        failed: What is not copied.
    """

    folders: int = 0
    objects: int = 0
    bytes: int = 0
    there: int = 0
    segments: int = 0
    checkpoints: int = 0
    states: int = 0
    deleted: int = 0
    left: int = 0
    failed: list[Problem] = field(default_factory=list)


class FolderCopy:
    """One run for one folder."""

    def __init__(
        self,
        source: Bucket,
        target: Bucket,
        record: FolderRecord,
        copier: ObjectCopier,
        settings: Settings,
        report: ReplicationReport,
        progress: Progress,
    ) -> None:
        self._source = source
        self._target = target
        self._record = record
        self._keys = FolderKeys.of(record.folder_id)
        self._copier = copier
        self._settings = settings
        self._report = report
        self._progress = progress
        self._end = 0

    async def run(self) -> None:
        """Copy the folder.

        What is damaged in the source is in the report and is not copied. Raises DataError if nothing of the folder can
        be copied, because the log is damaged or somebody else has written to the copy. Raises StoreError.
        """
        segments = await list_segments(self._source, self._keys)
        checkpoints = sorted(await list_checkpoints(self._source, self._keys))
        named, sizes = NamedObjects(), ObjectSizes(self._keys)
        try:
            self._end = await self._read_history(named, segments, checkpoints)
            await self._check_target(segments)
            await self._create_record()
            await sizes.load(self._target)
            await self._copy_objects(named, sizes)
            await self._copy_states(sizes)
        finally:
            named.close()
            sizes.close()
        there = await list_checkpoints(self._target, self._keys)
        for position in checkpoints:
            if (
                position <= self._end
                and position not in there
                and await self._copy_file(self._keys.checkpoint(position))
            ):
                self._report.checkpoints += 1
        await self._copy_segments(segments)
        kept = of_folder(self._keys)
        for place in (self._keys.damaged_segments, self._keys.losses, self._keys.retention, self._keys.history):
            await copy_small(self._source, self._target, place, kept[place])
        await self._copy_list()
        if checkpoints:
            await self._trim(checkpoints[0], segments, set(checkpoints))

    async def _read_history(self, named: NamedObjects, segments: Positions, checkpoints: list[int]) -> int:
        """Note what the history names, and return the position up to which the log is whole."""
        readable = 0
        for position in dict.fromkeys((*checkpoints[:1], *reversed(checkpoints[-2:]))):
            if position >= readable and await self._read_state(named, position, self._keys.checkpoint(position)):
                readable = position
        end = readable
        reader = SegmentReader(self._source, self._keys, self._settings.log)
        async with contextlib.aclosing(reader.read_each(segments)) as found:
            async for position, segment in found:
                if isinstance(segment, DataError):
                    self._report.failed.append(Problem(self._keys.segment(position), str(segment)))
                elif segment is not None:
                    for entry in segment.entries:
                        named.add_entry(entry)
                    if position == end + 1:
                        end = position
        if end < segments.last:
            problem = f"the log is not whole here: the copy ends before it, and the store has segment {segments.last}"
            self._report.failed.append(Problem(self._keys.segment(end + 1), problem))
        return end

    async def _check_target(self, segments: Positions) -> None:
        """Raise DataError if the copy is not an earlier state of this folder."""
        record = await read_record(self._target, self._keys.record, FolderRecord.from_json)
        if record is not None and (record.folder_id, record.index_id, record.removed) != (
            self._record.folder_id,
            self._record.index_id,
            False,
        ):
            raise DataError("the copy has another folder of this ID, from before: remove it there first")
        there = await list_segments(self._target, self._keys)
        if not there:
            return
        differs = there.last > self._end
        if not differs and there.last in segments:
            key = self._keys.segment(there.last)
            differs = await self._target.get(key) != await self._source.get(key)
        if differs:
            raise DataError("somebody else has written to the copy: it goes its own way, and stays as it is")

    async def _create_record(self) -> None:
        if await self._target.size(self._keys.record) in (None, 0):
            await write_record(self._target, self._keys.record, self._record.to_json())

    async def _copy_objects(self, named: NamedObjects, sizes: ObjectSizes) -> bool:
        """Copy objects that the copy lacks. Return whether it has all of them then."""
        count, size = named.totals()
        self._progress.total_files += count
        self._progress.total_bytes += size
        failed = len(self._report.failed)

        async def copy(one: NamedObject) -> None:
            key = self._keys.object_of(one.name_hash, one.stored.object_name)
            counted = self._progress.begin(one.stored.size)
            try:
                if sizes.get(key) == one.stored.size:
                    self._report.there += 1
                    return
                await self._copier.copy(key, one.stored, counted)
                sizes.add(key, one.stored.size)
                self._report.objects += 1
                self._report.bytes += one.stored.size
            except DataError as error:
                self._report.failed.append(Problem(key, str(error)))
            finally:
                counted.end()

        await for_each(named, copy, self._settings.reading.concurrent_files)
        return len(self._report.failed) == failed

    async def _copy_states(self, sizes: ObjectSizes) -> None:
        """Copy the states that are kept beyond the history, each after its objects."""
        there = await list_kept(self._target, self._keys)
        kept = await list_kept(self._source, self._keys)
        for key, (position, _) in sorted(kept.items()):
            if key in there:
                continue
            named = NamedObjects()
            try:
                if not await self._read_state(named, position, key):
                    continue
                if await self._copy_objects(named, sizes) and await self._copy_file(key):
                    self._report.states += 1
            finally:
                named.close()
        await self._delete(sorted(there.keys() - kept.keys()))

    async def _read_state(self, named: NamedObjects, position: int, key: str) -> bool:
        """Note what a checkpoint names, or the state that is kept under `key`. Return whether it can be read."""
        with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
            state = FolderState(Path(directory, "state.sqlite"))
            try:
                await read_checkpoint(self._source, self._keys, position, state, kept_as=key)
                await named.add_state(state)
            except NoSuchKey:
                return False  # trimmed meanwhile
            except DataError as error:
                self._report.failed.append(Problem(key, str(error)))
                return False
            finally:
                state.close()
        return True

    async def _copy_file(self, key: str) -> bool:
        """Copy a checkpoint if it is whole. Return whether it was."""
        with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
            path = Path(directory, "checkpoint")
            try:
                await self._source.download_file(key, path)
            except NoSuchKey:
                return False  # trimmed meanwhile
            if not await in_thread_to_the_end(_is_whole, path):
                self._report.failed.append(Problem(key, "its checksum does not match"))
                return False
            await self._target.upload_file(key, path)
            return True

    async def _copy_segments(self, segments: Positions) -> None:
        """Copy segments in order: a reader takes the first one that is missing for the end of the log."""
        there = await list_segments(self._target, self._keys)
        for position in segments:
            if position in there or position > self._end:
                continue
            key = self._keys.segment(position)
            try:
                body = await self._source.get(key)
                decode_segment(body, key)
            except (NoSuchKey, DataError):
                continue  # trimmed meanwhile; or named as damaged before
            await self._target.put(key, [body])
            self._report.segments += 1

    async def _copy_list(self) -> None:
        """Copy the list of present objects, unless it is of a state that the copy has not reached."""
        position = await listed_position(self._source, self._keys)
        if not 0 < position <= self._end or position == await listed_position(self._target, self._keys):
            return
        with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
            path = Path(directory, "list")
            with contextlib.suppress(NoSuchKey):
                await self._source.download_file(self._keys.present_objects, path)
                await self._target.upload_file(self._keys.present_objects, path)

    async def _trim(self, base: int, segments: Positions, checkpoints: set[int]) -> None:
        """Delete from the copy what the store has trimmed: what is before its oldest checkpoint, which the copy has."""
        copied = await list_checkpoints(self._target, self._keys)
        if base not in copied:
            return
        await self._delete([key async for key in self._trimmed(base, segments, checkpoints, set(copied))])

    async def _delete(self, keys: Sequence[str]) -> None:
        """Delete from the copy, where its credentials may do that."""
        deleted = 0
        with where_allowed():
            for key in keys:
                await self._target.delete(key)
                deleted += 1
        self._report.deleted += deleted
        self._report.left += len(keys) - deleted

    async def _trimmed(
        self, base: int, segments: Positions, checkpoints: set[int], copied: set[int]
    ) -> AsyncIterator[str]:
        for position in sorted(copied):
            if position < base and position not in checkpoints:
                yield self._keys.checkpoint(position)
        for position in await list_segments(self._target, self._keys):
            if position <= base and position not in segments:
                yield self._keys.segment(position)


def _is_whole(path: Path) -> bool:
    """Return whether a checkpoint has the checksum that is at its end."""
    left, checksum = path.stat().st_size - _CHECKSUM_SIZE, 0
    if left <= 0:
        return False
    with path.open("rb") as file:
        while left:
            piece = file.read(min(left, MIB))
            checksum = crc32c.crc32c(piece, checksum)
            left -= len(piece)
        return file.read() == checksum.to_bytes(_CHECKSUM_SIZE, "big")
