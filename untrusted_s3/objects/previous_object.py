"""The object of a file's previous version: what did not change is taken from it instead of from the block source."""

from __future__ import annotations

from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import AnswerTooShort, NoSuchKey, PreviousObjectGone, RequestRefused
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.store.bucket import Bucket

# Errors of one object: it is gone or damaged, or the store does not read it, such as one in an archive storage class.
_UNUSABLE = (NoSuchKey, AnswerTooShort, RequestRefused)


class PreviousObject:
    """The object `stored` under `key` with the content of `before`, as a source for the content of `file_info`.

    Two blocks are the same if offset, size and token are equal: the token is a hash of the plain content, encrypted
    deterministically (v2.1.3 lib/protocol/encryption.go, encryptBlockHash).
    """

    def __init__(self, bucket: Bucket, key: str, stored: StoredObject, before: FileInfo, file_info: FileInfo) -> None:
        self.key = key
        self._bucket = bucket
        self._stored = stored
        self._data_size = before.message.size
        self._same = _same_blocks(before, file_info)

    def has(self, number: int) -> bool:
        """Return whether the block with this number is the same in both."""
        return bool(self._same[number])

    def has_all(self, numbers: range) -> bool:
        """Return whether all blocks with these numbers are the same in both."""
        return 0 not in self._same[numbers.start : numbers.stop]

    def crc32c(self, start: int, end: int) -> int | None:
        """Return the checksum of a range if the range is one part of the object, else None."""
        size = self._stored.part_size
        if size == 0 or start % size or end - start != size or end > self._data_size:
            return None
        return self._stored.part_crc32c[start // size]

    async def get(self, start: int, end: int) -> memoryview:
        """Return bytes of the object. Raises PreviousObjectGone or another StoreError."""
        try:
            return memoryview(await self._bucket.get(self.key, start, end - start))
        except _UNUSABLE as error:
            raise PreviousObjectGone(str(error)) from error

    async def copy_part(self, key: str, upload_id: str, number: int, start: int, end: int) -> str:
        """Copy bytes of the object into a part of an upload, inside the store, and return the part's ETag.

        Raises PreviousObjectGone or another StoreError.
        """
        try:
            return await self._bucket.upload_part_copy(key, upload_id, number, self.key, start, end)
        except _UNUSABLE as error:
            raise PreviousObjectGone(str(error)) from error


def _same_blocks(before: FileInfo, after: FileInfo) -> bytearray:
    """Return 1 for each block of `after` that `before` has too, else 0."""
    same = bytearray(len(after.message.blocks))
    others = iter(before.message.blocks)
    other = next(others, None)
    for number, block in enumerate(after.message.blocks):
        while other is not None and other.offset < block.offset:
            other = next(others, None)
        if other is None:
            break
        same[number] = other.offset == block.offset and other.size == block.size and other.hash == block.hash
    return same
