"""Writes the object of a file. An object is complete, or it does not exist."""

from __future__ import annotations

import itertools
import time
from collections.abc import Awaitable, Callable, Container, Hashable
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from untrusted_s3.accounts import Account, Share
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.counters import Counters
from untrusted_s3.errors import DataError, NoSuchKey, PreconditionFailed, PreviousObjectGone
from untrusted_s3.index.entry import Entry, StoredObject
from untrusted_s3.objects.assembly import Assembly, FetchBlock, patiently
from untrusted_s3.objects.checksums import crc32c_of
from untrusted_s3.objects.multipart_writer import MultipartWriter, PartTransfers
from untrusted_s3.objects.naming import has_untrusted_blocks, object_names
from untrusted_s3.objects.previous_object import PreviousObject
from untrusted_s3.objects.stored_object import read_stored_object
from untrusted_s3.objects.trailer import check_trailer
from untrusted_s3.objects.upload_limits import UploadLimits
from untrusted_s3.settings import ObjectSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.format import MAX_OBJECT_KEYS, PART_GRID, PartGrid
from untrusted_s3.store.layout import FolderKeys, name_key
from untrusted_s3.store.multipart import part_size
from untrusted_s3.threads import LargeWork
from untrusted_s3.units import MIB

Result = TypeVar("Result")
# As a part of an object's bytes: how much of the log is read, to be spared of reading the object.
_SEARCHED_PART = 4
_logger = structlog.get_logger()


class _Work(Protocol):
    """Calls a function whose time grows with the size of the file info."""

    async def __call__(self, function: Callable[..., Result], /, *args: Any) -> Result: ...


async def _nothing_earlier(name_hash: bytes, object_name: str, most: int) -> StoredObject | None:
    return None


class ObjectWriter:
    """Writes the objects of one folder."""

    def __init__(
        self,
        bucket: Bucket,
        keys: FolderKeys,
        memory: Account,
        uploads: UploadLimits,
        counters: Counters,
        settings: ObjectSettings,
        grid: PartGrid = PART_GRID,
        large_work: LargeWork | None = None,
        *,
        is_candidate: Callable[[bytes, str], bool] = lambda name_hash, object_name: False,
        clock: Callable[[], float] = time.time,
        earlier: Callable[[bytes, str, int], Awaitable[StoredObject | None]] = _nothing_earlier,
    ) -> None:
        """Make a writer.

        Args:
            bucket: The store.
            keys: The folder's keys.
            memory: The memory for blocks, over all folders.
            uploads: How many objects and parts are sent at once, over all folders.
            counters: The gateway's counters.
            settings: How objects are written.
            grid: The parts of large objects.
            large_work: Work on the file infos of very large files.
            is_candidate: Returns whether an object, by the hash of the name and its own name, is about to be deleted.
                None of these is used or written.
            clock: Gives seconds since 1970 UTC; the one by which requests are signed.
            earlier: Returns what the log has said of an object, by the hash of the name and its own name, if it finds
                that before it has read so many bytes.
        """
        self._bucket = bucket
        self._keys = keys
        self._memory = memory
        self._uploads = uploads.objects.of(keys.base)
        self._counters = counters
        self._settings = settings
        self._grid = grid
        self._is_candidate = is_candidate
        self._clock = clock
        self._earlier = earlier
        self._large_work = large_work if large_work is not None else LargeWork(MIB)
        self._transfers = PartTransfers(bucket, counters, settings, uploads.parts.of(keys.base))

    def drain(self) -> None:
        """Begin no more parts; the writing of a large object ends with WriteStopped when its running parts have."""
        self._transfers.draining = True

    @property
    def more_uploads(self) -> int:
        """By how many the store takes more small objects at once now than at least."""
        return max(self._uploads.limit.limit - self._uploads.limit.least, 0)

    def is_large(self, size: int) -> bool:
        """Return whether the object of a file with `size` bytes of data is written in parts."""
        return part_size(size, grid=self._grid) != 0

    async def write(
        self,
        file_info: FileInfo,
        fetch_block: FetchBlock,
        previous: Entry | None = None,
        superseded: Callable[[], bool] = lambda: False,
        *,
        owner: Hashable,
        giver: DeviceID | None = None,
        condemned: Container[str] = (),
        may_be_stored: bool = False,
    ) -> StoredObject:
        """Write the object of a file and return what the log is to say of it.

        Args:
            file_info: The file, which has data.
            fetch_block: The block source. It is not asked for what the store has: a complete object, parts of an
                unfinished upload, blocks that are the same in the previous object.
            previous: The folder's entry with the same name.
            superseded: Returns whether the content is no longer wanted.
            owner: Whom the memory of the blocks is counted for: the device that announces the file.
            giver: The untrusted device that the blocks come from; then the content gets a name of its own. None for
                trusted ones; then no blocks of a previous object are used that came from an untrusted device.
            condemned: Names of objects of this file that were found missing or damaged. None of them is used.
            may_be_stored: Whether the object may well be there already. Then the store is asked for it before the
                device is; a large one is always looked for.

        Raises WriteStopped, BlockUnavailable, StoreError or DataError. An unfinished upload then stays for the next
        try.
        """
        if giver is None and previous is not None and previous.stored is not None:
            previous = None if has_untrusted_blocks(previous.stored.object_name) else previous
        damage: DataError | None = None
        # Whatever needs all blocks is done for the announcing device, in its turn.
        work = partial(self._large_work.run, owner, len(file_info.raw))
        key = name_key(file_info.name)
        usable = (
            name
            for name in object_names(file_info, giver)
            if name not in condemned and not self._is_candidate(key, name)
        )
        names = itertools.islice(usable, MAX_OBJECT_KEYS)
        first = await work(next, names)  # the first one needs all blocks
        for name in itertools.chain((first,), names):
            try:
                with self._memory.share(owner) as memory:
                    return await self._write_as(
                        name, file_info, fetch_block, previous, superseded, memory, work, may_be_stored
                    )
            except DataError as error:
                # Something else is stored under this key. SeaweedFS, for one, leaves an object of no bytes if the
                # connection ends between the head and the body of a PUT.
                _logger.warning("object damaged, content gets another key", error=str(error))
                damage = error
        assert damage is not None
        raise damage

    async def _write_as(
        self,
        name: str,
        file_info: FileInfo,
        fetch_block: FetchBlock,
        previous: Entry | None,
        superseded: Callable[[], bool],
        memory: Share,
        work: _Work,
        look_first: bool,
    ) -> StoredObject:
        key = self._keys.object(file_info.name, name)
        is_large = self.is_large(file_info.message.size)
        try:
            if (is_large or look_first) and await self._bucket.size(key) is not None:
                return await self._adopt(key, name, file_info, work)
            if not is_large:
                stored = await self._put(key, name, file_info, fetch_block, memory)
            else:
                source = await work(self._previous_object, previous, file_info)
                parts = partial(self._write_parts, key, name, file_info, fetch_block)
                try:
                    stored = await parts(source, superseded, memory, work)
                except PreviousObjectGone:
                    # What was copied by then is good, and the second try finds it in the upload.
                    stored = await parts(None, superseded, memory, work)
        except PreconditionFailed:
            # Another gateway, or this one before a crash, has written this content and not yet named it in the log.
            return await self._adopt(key, name, file_info, work)
        self._counters.objects_written.inc()
        return stored

    async def _put(
        self, key: str, name: str, file_info: FileInfo, fetch_block: FetchBlock, memory: Share
    ) -> StoredObject:
        assembly = Assembly(file_info, fetch_block)
        await memory.acquire(assembly.size)
        try:
            requested = await assembly.request(0, assembly.size)
            pieces = await patiently(requested, memory, self._settings.patience)
            async with self._uploads:
                seen = self._clock()
                await self._bucket.put(key, pieces, if_none_match=True)
        finally:
            memory.release(assembly.size)
            await assembly.close()
        self._counters.object_bytes_written.inc(assembly.size)
        return StoredObject(name, assembly.size, 0, (crc32c_of(pieces),), seen)

    async def _write_parts(
        self,
        key: str,
        name: str,
        file_info: FileInfo,
        fetch_block: FetchBlock,
        source: PreviousObject | None,
        superseded: Callable[[], bool],
        memory: Share,
        work: _Work,
    ) -> StoredObject:
        size = self._part_size(file_info)
        assembly = await work(Assembly, file_info, fetch_block, source, self._settings.coalesced_get_size)
        try:
            writer = MultipartWriter(self._transfers, memory, key, size, assembly, source, superseded)
            checksums = await writer.run()
        finally:
            await assembly.close()
        return await self._seen(key, StoredObject(name, assembly.size, size, checksums))

    async def _adopt(self, key: str, name: str, file_info: FileInfo, work: _Work) -> StoredObject:
        size = self._part_size(file_info)
        earlier = await self._said_earlier(key, name, file_info) if size else None
        if earlier is not None and earlier.part_size == size:
            return await self._seen(key, earlier)
        stored = await read_stored_object(
            self._bucket, key, name, file_info, size, self._settings.read_back_size, partial(work, check_trailer)
        )
        return await self._seen(key, stored)

    async def _said_earlier(self, key: str, name: str, file_info: FileInfo) -> StoredObject | None:
        """Return what the log has said of a large object that is there: then its bytes need not be read.

        As when a file goes back to a content that it had. None if that is not found for less, or the object has
        another size now.
        """
        object_size = await self._bucket.size(key)
        if object_size is None:
            return None
        earlier = await self._earlier(name_key(file_info.name), name, object_size // _SEARCHED_PART)
        return earlier if earlier is not None and earlier.size == object_size else None

    async def _seen(self, key: str, stored: StoredObject) -> StoredObject:
        """Note when an object was there whose checksums may have taken hours. Raises NoSuchKey."""
        seen = self._clock()
        if await self._bucket.size(key) != stored.size:
            raise NoSuchKey(f"{key}: deleted meanwhile")
        return replace(stored, seen=seen)

    def _part_size(self, file_info: FileInfo) -> int:
        return part_size(file_info.message.size, file_info.message.blocks[0].size, self._grid)

    def _previous_object(self, previous: Entry | None, file_info: FileInfo) -> PreviousObject | None:
        if previous is None or previous.stored is None:
            return None
        key = self._keys.object(file_info.name, previous.stored.object_name)
        return PreviousObject(self._bucket, key, previous.stored, previous.file_info, file_info)
