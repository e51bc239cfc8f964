"""Brings one file from peers into the store: in a single PUT where it is small, else as a multipart upload."""

from __future__ import annotations

import asyncio

from untrusted_s3.bep.file_info import FileInfo, name_hash
from untrusted_s3.errors import NoSuchKey, PreconditionFailed
from untrusted_s3.index.segment import Entry, StoredObject
from untrusted_s3.index.stored_object import PreviousObject, crc32c_of, object_part_size, read_stored_object
from untrusted_s3.node.assembly import Assembly, FetchBlock
from untrusted_s3.node.byte_budget import ByteBudget
from untrusted_s3.node.counters import Counters
from untrusted_s3.node.multipart_pull import MultipartPull, PartSlots, abort_uploads
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys


class FilePuller:
    """Pulls files of one folder. `budget` bounds the bytes of blocks in memory, `uploads` the PUTs of small files at
    a time; of large parts only a few are sent at once, for more would not be faster."""

    def __init__(
        self, bucket: Bucket, keys: FolderKeys, budget: ByteBudget, uploads: asyncio.Semaphore, counters: Counters
    ) -> None:
        self._bucket = bucket
        self._keys = keys
        self._budget = budget
        self._uploads = uploads
        self._part_slots = PartSlots()
        self._counters = counters

    async def pull(self, file_info: FileInfo, fetch_block: FetchBlock, before: Entry | None = None) -> StoredObject:
        """Brings the object in; what is in the store already is not fetched again. `before` is the folder's present
        entry of the same name: where the file is large, what has not changed since is taken from its object.

        Raises BlockUnavailable or StoreError. What is half done then stays for the next call (see `abandon`).
        """
        content_hash = file_info.content_hash()
        key = self._keys.object(name_hash(file_info.name), content_hash)
        part_size = object_part_size(file_info)
        try:
            if part_size == 0:
                stored = await self._single_put(key, file_info, content_hash, fetch_block)
            elif await self._bucket.size(key) is None:
                stored = await self._multipart(key, part_size, file_info, content_hash, fetch_block, before)
            else:
                return await read_stored_object(self._bucket, key, file_info)
        except PreconditionFailed:
            # A gateway before us, perhaps we ourselves before a crash, has written this content and not named it yet.
            return await read_stored_object(self._bucket, key, file_info)
        self._counters.objects_written.inc()
        return stored

    async def abandon(self, file_info: FileInfo) -> None:
        """Drops what is half done of a version that nobody wants any more. Raises StoreError."""
        if object_part_size(file_info):
            key = self._keys.object(name_hash(file_info.name), file_info.content_hash())
            await abort_uploads(self._bucket, key)

    def stop(self) -> None:
        """Lets no more parts of large files begin; what has begun goes on."""
        self._part_slots.stopping = True

    async def _single_put(
        self, key: str, file_info: FileInfo, content_hash: str, fetch_block: FetchBlock
    ) -> StoredObject:
        assembly = Assembly(self._bucket, file_info, fetch_block)
        size = assembly.size
        await self._budget.acquire(size)
        try:
            assembly.request(0, size)
            pieces = await assembly.pieces(0, size)
            async with self._uploads:
                await self._bucket.put(key, pieces, if_none_match=True)
        finally:
            assembly.cancel()
            self._budget.release(size)
        self._counters.object_bytes_written.inc(size)
        return StoredObject(content_hash, size, 0, (crc32c_of(pieces),))

    async def _multipart(
        self,
        key: str,
        part_size: int,
        file_info: FileInfo,
        content_hash: str,
        fetch_block: FetchBlock,
        before: Entry | None,
    ) -> StoredObject:
        previous = self._previous_object(file_info, before)
        assembly = Assembly(self._bucket, file_info, fetch_block, previous)
        pull = MultipartPull(
            self._bucket, key, part_size, assembly, previous, self._budget, self._part_slots, self._counters
        )
        try:
            checksums = await pull.run()
        except NoSuchKey:
            if previous is None:
                raise
            # Perhaps the object of the version before is gone; peers have all of this one.
            return await self._multipart(key, part_size, file_info, content_hash, fetch_block, None)
        finally:
            assembly.cancel()
        return StoredObject(content_hash, assembly.size, part_size, checksums)

    def _previous_object(self, file_info: FileInfo, before: Entry | None) -> PreviousObject | None:
        if before is None or before.stored is None:
            return None
        key = self._keys.object(name_hash(file_info.name), before.stored.content_hash)
        return PreviousObject.of(key, before.file_info, before.stored, file_info)
