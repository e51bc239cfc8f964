"""The seam to S3: all that the rest of the program asks of a store.

`store.s3.S3Bucket` is the real one; tests of the log put a simulated bucket with faults and crashes in its place.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Buffer = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """One object of a listing: its key (relative to the store's prefix), its size in bytes, and its age: seconds since
    it was written, or since its upload was begun, by the store's clock; 0 where the store does not say."""

    key: str
    size: int
    age: float


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """A multipart upload that is not complete: its key (relative to the store's prefix), its id, and its age in seconds
    since it was begun, by the store's clock."""

    key: str
    upload_id: str
    age: float


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """A part that an upload has already: its number (from 1), its size in bytes, and its ETag."""

    number: int
    size: int
    etag: str


class Bucket(Protocol):
    """Objects under keys that are relative to the store's prefix.

    Every method raises StoreUnreachable where the store did not answer after some tries (a write may then have
    happened all the same) and StoreRefused where it answered with a refusal that another try will not change.
    """

    async def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        """The object's bytes, or `size` of them from `start`. Raises NoSuchKey."""
        ...

    async def put(self, key: str, body: Sequence[Buffer], *, if_none_match: bool = False, lifetime: int = 900) -> None:
        """Writes the pieces of `body` as one object.

        With `if_none_match` only where the key is free, else PreconditionFailed. The store refuses the request
        when it arrives more than `lifetime` seconds after it was signed, by the store's own clock.
        """
        ...

    async def delete(self, key: str) -> None:
        """Removes the object, if there is one."""
        ...

    async def size(self, key: str) -> int | None:
        """The object's size in bytes, or None where there is none."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectSummary]:
        """All objects whose keys begin with `prefix`, in no order to rely on."""
        ...

    def list_directories(self, prefix: str) -> AsyncIterator[str]:
        """What lies directly below `prefix` (which ends in a slash) and has more below it, each ending in a slash."""
        ...

    async def upload_file(self, key: str, path: Path) -> None:
        """Writes a local file as one object.

        The store refuses to complete it later than limits.FILE_UPLOAD_LIFETIME after it was begun, by its own clock.
        """
        ...

    async def download_file(self, key: str, path: Path) -> None:
        """Writes an object to a local file. Raises NoSuchKey."""
        ...

    async def create_multipart_upload(self, key: str) -> str:
        """Begins a multipart upload and gives its id."""
        ...

    async def upload_part(self, key: str, upload_id: str, number: int, body: Sequence[Buffer]) -> str:
        """Uploads part `number` (from 1) and gives its ETag. Raises UploadLost."""
        ...

    async def upload_part_copy(
        self, key: str, upload_id: str, number: int, source_key: str, start: int, end: int
    ) -> str:
        """Copies bytes `start` to `end` (not included) of another object as part `number`, inside the store; gives the
        part's ETag. Raises NoSuchKey where the source is not there, UploadLost."""
        ...

    def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        """All uploads that are not complete and whose keys begin with `prefix`, in no order to rely on."""
        ...

    def list_parts(self, key: str, upload_id: str) -> AsyncIterator[UploadedPart]:
        """The parts that an upload has. Raises UploadLost.

        One that was sent twice may be there twice, with different ETags (SeaweedFS, which completes with either).
        """
        ...

    async def complete_multipart_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        """Makes the parts, given by their ETags in order, one object.

        Where the key is taken: PreconditionFailed from a store that can tell, else the object is replaced.
        Raises UploadLost where the upload is gone, or a part is not the one that its ETag names.
        """
        ...

    async def abort_multipart_upload(self, key: str, upload_id: str) -> None:
        """Drops an upload and its parts, if it is there."""
        ...
