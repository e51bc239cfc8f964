"""Brings one file from peers into the store, as one object that is complete or not there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.byte_budget import ByteBudget
from untrusted_s3.counters import Counters
from untrusted_s3.errors import DataError, PreconditionFailed, PreviousObjectGone
from untrusted_s3.index.segment import Entry, StoredObject
from untrusted_s3.objects.assembly import Assembly, FetchBlock
from untrusted_s3.objects.multipart_writer import MultipartPull, PartWorkers
from untrusted_s3.objects.naming import object_names
from untrusted_s3.objects.previous_object import PreviousObject
from untrusted_s3.objects.stored_object import crc32c_of, object_part_size, read_stored_object
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

_logger = structlog.get_logger()


class FilePuller:
    """Pulls files of one folder. `budget` bounds the bytes of blocks in memory, `uploads` the PUTs of small files at
    a time."""

    def __init__(
        self, bucket: Bucket, keys: FolderKeys, budget: ByteBudget, uploads: asyncio.Semaphore, counters: Counters
    ) -> None:
        self._bucket = bucket
        self._keys = keys
        self._budget = budget
        self._uploads = uploads
        self._part_workers = PartWorkers(bucket, budget, counters)
        self._counters = counters

    def drain(self) -> None:
        """From now on no part of a large file is begun; pulls of such end with PullStopped when the parts under way
        have ended."""
        self._part_workers.draining = True

    async def pull(
        self,
        file_info: FileInfo,
        fetch_block: FetchBlock,
        previous: Entry | None = None,
        superseded: Callable[[], bool] = lambda: False,
    ) -> StoredObject:
        """Writes the object. What is complete in the store already is not fetched again, nor are parts that an
        interrupted pull has left; what did not change since `previous`, the folder's entry of the same name, is taken
        from its object. `superseded` says whether the content is not wanted any more.

        Raises PullStopped, BlockUnavailable, StoreError or DataError. An upload in parts then stays for the next try.
        """
        damage: DataError | None = None
        for name in object_names(file_info):
            # Objects are never overwritten. Where one lies under the key that holds something else, as SeaweedFS
            # leaves one of no bytes where a connection ends at a bad moment, this content gets another key.
            try:
                return await self._pull_to(name, file_info, fetch_block, previous, superseded)
            except DataError as error:
                _logger.warning("object damaged, its content gets another key", error=str(error))
                damage = error
        assert damage is not None
        raise damage

    async def _pull_to(
        self,
        name: str,
        file_info: FileInfo,
        fetch_block: FetchBlock,
        previous: Entry | None,
        superseded: Callable[[], bool],
    ) -> StoredObject:
        key = self._keys.object(file_info.name, name)
        size = object_part_size(file_info)
        try:
            if size == 0:
                stored = await self._single_put(key, name, file_info, fetch_block)
            elif await self._bucket.size(key) is None:
                source = self._previous_object(previous, file_info)
                stored = await self._multipart(key, name, size, file_info, fetch_block, source, superseded)
            else:
                return await read_stored_object(self._bucket, key, name, file_info)
        except PreconditionFailed:
            # A gateway before us, perhaps we ourselves before a crash, has written this content and not named it yet.
            return await read_stored_object(self._bucket, key, name, file_info)
        self._counters.objects_written.inc()
        return stored

    async def _single_put(self, key: str, name: str, file_info: FileInfo, fetch_block: FetchBlock) -> StoredObject:
        assembly = Assembly(file_info, fetch_block)
        await self._budget.acquire(assembly.size)
        try:
            requested = assembly.request(0, assembly.size)
            try:
                pieces = await requested.pieces()
                async with self._uploads:
                    await self._bucket.put(key, pieces, if_none_match=True)
            finally:
                requested.cancel()
        finally:
            self._budget.release(assembly.size)
        self._counters.object_bytes_written.inc(assembly.size)
        return StoredObject(name, assembly.size, 0, (crc32c_of(pieces),))

    async def _multipart(
        self,
        key: str,
        name: str,
        size: int,
        file_info: FileInfo,
        fetch_block: FetchBlock,
        source: PreviousObject | None,
        superseded: Callable[[], bool],
    ) -> StoredObject:
        assembly = Assembly(file_info, fetch_block, source)
        try:
            checksums = await MultipartPull(self._part_workers, key, size, assembly, source, superseded).run()
        except PreviousObjectGone:
            # What was copied so far is good, and is found again.
            return await self._multipart(key, name, size, file_info, fetch_block, None, superseded)
        return StoredObject(name, assembly.size, size, checksums)

    def _previous_object(self, previous: Entry | None, file_info: FileInfo) -> PreviousObject | None:
        if previous is None or previous.stored is None:
            return None
        key = self._keys.object(file_info.name, previous.stored.content_hash)
        return PreviousObject(self._bucket, key, previous.stored, previous.file_info, file_info)
