"""The object of the version of a file that came before: what did not change is taken from there, not from a peer."""

from __future__ import annotations

from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import NoSuchKey, PreviousObjectGone
from untrusted_s3.index.segment import StoredObject
from untrusted_s3.store.bucket import Bucket


class PreviousObject:
    """The object `stored` under `key`, with the content of `before`, as a source for the content of `file_info`.

    A block is the same where offset, size and token are: the token is a hash of its plain content, encrypted in the
    same way each time (lib/protocol/encryption.go, encryptBlockHash).
    """

    def __init__(self, bucket: Bucket, key: str, stored: StoredObject, before: FileInfo, file_info: FileInfo) -> None:
        self.key = key
        self._bucket = bucket
        self._stored = stored
        self._data_size = before.message.size
        self._same = _same_blocks(before, file_info)

    def has(self, number: int) -> bool:
        """Whether the block of this number is the same in both."""
        return bool(self._same[number])

    def has_all(self, numbers: range) -> bool:
        """Whether all of these blocks are."""
        return 0 not in self._same[numbers.start : numbers.stop]

    def crc32c(self, start: int, end: int) -> int | None:
        """The checksum of a range, where it is known: the range is one part."""
        size = self._stored.part_size
        if size == 0 or start % size or end - start != size or end > self._data_size:
            return None
        return self._stored.part_crc32c[start // size]

    async def get(self, start: int, end: int) -> memoryview:
        """Bytes of the object. Raises PreviousObjectGone, or another StoreError."""
        try:
            return memoryview(await self._bucket.get(self.key, start, end - start))
        except NoSuchKey as error:
            raise PreviousObjectGone(str(error)) from error

    async def copy_part(self, key: str, upload_id: str, number: int, start: int, end: int) -> str:
        """Copies bytes of the object into a part of an upload, inside the store; gives its ETag. Raises
        PreviousObjectGone, or another StoreError."""
        try:
            return await self._bucket.upload_part_copy(key, upload_id, number, self.key, start, end)
        except NoSuchKey as error:
            raise PreviousObjectGone(str(error)) from error


def _same_blocks(before: FileInfo, after: FileInfo) -> bytearray:
    """For each block of `after`, 1 where `before` has the same."""
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
