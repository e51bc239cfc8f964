"""The seam to S3: everything that the rest of the program needs of a store.

`store.s3.S3Bucket` implements it for real servers. Tests of the log use a simulated bucket with faults and crashes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from untrusted_s3.store.deletions import Deletions
from untrusted_s3.units import MIB

Buffer = bytes | bytearray | memoryview

# The largest object that is read without naming a range. A log segment has about 8 MiB; one that holds a single large
# file info has up to 64 MiB.
MAX_WHOLE_OBJECT: Final = 128 * MIB
# The usual storage class.
STANDARD: Final = "STANDARD"


@dataclass(frozen=True, slots=True)
class ObjectSummary:
    """One object of a listing.

    Attributes:
        key: The key, relative to the store's prefix.
        size: The size in bytes.
        age: Seconds since it was written, or since its multipart upload was begun, by the store's clock; 0 if the
            store does not say.
        storage_class: The storage class as the store calls it; STANDARD if it does not say.
    """

    key: str
    size: int
    age: float
    storage_class: str = STANDARD


@dataclass(frozen=True, slots=True)
class MultipartUpload:
    """A multipart upload that is not complete.

    Attributes:
        key: The key, relative to the store's prefix.
        upload_id: The upload's id.
        age: Seconds since it was begun, by the store's clock; 0 if the store does not say.
    """

    key: str
    upload_id: str
    age: float


@dataclass(frozen=True, slots=True)
class UploadedPart:
    """A part of an unfinished upload.

    Attributes:
        number: Its number, from 1.
        size: Its size in bytes.
        etag: Its ETag.
        age: Seconds since it was written, by the store's clock; None if the store does not say.
    """

    number: int
    size: int
    etag: str
    age: float | None = field(default=None, compare=False)


class Bucket(Protocol):
    """Objects under keys that are relative to the store's prefix.

    Every method raises StoreUnreachable if the store did not answer after some tries (a write may have happened
    nevertheless), and StoreRefused if it refused in a way that another try will not change.
    """

    def now(self) -> float:
        """Return the time of day by the store's clock, in seconds since 1970 UTC, without a request.

        It is the local clock's time as long as the store has not answered.
        """
        ...

    async def get(
        self, key: str, start: int = 0, size: int | None = None, *, max_size: int = MAX_WHOLE_OBJECT
    ) -> bytes:
        """Return the object's bytes, or `size` of them from `start`.

        Without `size` there may be `max_size` bytes, else AnswerTooLong is raised. Raises NoSuchKey, and
        AnswerTooShort where the object has fewer bytes.
        """
        ...

    async def put(self, key: str, body: Sequence[Buffer], *, if_none_match: bool = False, lifetime: int = 900) -> None:
        """Write the pieces of `body` as one object.

        With `if_none_match` the key must be free. Raises PreconditionFailed if it is taken. The store refuses the
        request if it arrives more than `lifetime` seconds after it was signed, by the store's clock.
        """
        ...

    @property
    def deletions(self) -> Deletions:
        """Whether the credentials may delete, as far as that is known."""
        ...

    async def delete(self, key: str, *, lifetime: int | None = None) -> None:
        """Delete the object if it exists.

        With `lifetime`, the store refuses the request, and each repetition of it, if it arrives more than so many
        seconds after this call, by the store's clock. Raises DeletionDenied.
        """
        ...

    async def size(self, key: str) -> int | None:
        """Return the object's size in bytes, or None if it does not exist."""
        ...

    def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectSummary]:
        """Yield all objects whose keys begin with `prefix` and come after `start_after` as bytes, in any order.

        A store may ignore `start_after`.
        """
        ...

    def list_directories(self, prefix: str) -> AsyncIterator[str]:
        """Yield the prefixes one level below `prefix`, which ends in a slash, as they do; in any order."""
        ...

    def list_level(self, prefix: str) -> AsyncIterator[str]:
        """Yield what is directly below `prefix`, in any order: keys, and prefixes as `list_directories` yields them."""
        ...

    async def upload_file(self, key: str, path: Path) -> None:
        """Write a local file as one object.

        The store refuses to complete it more than FILE_UPLOAD_LIFETIME (store/format.py) after it was begun, by the
        store's clock.
        """
        ...

    async def download_file(self, key: str, path: Path) -> None:
        """Write an object to a local file. Raises NoSuchKey."""
        ...

    async def create_multipart_upload(self, key: str) -> str:
        """Begin a multipart upload and return its id."""
        ...

    async def upload_part(self, key: str, upload_id: str, number: int, body: Sequence[Buffer]) -> str:
        """Upload part `number` (from 1) and return its ETag. Raises UploadLost."""
        ...

    async def upload_part_copy(
        self, key: str, upload_id: str, number: int, source_key: str, start: int, end: int
    ) -> str:
        """Copy bytes `start` to `end` (exclusive) of another object as part `number`, inside the store.

        Return the part's ETag. Raises UploadLost, and NoSuchKey if the source does not exist.
        """
        ...

    def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        """Yield all unfinished uploads whose keys begin with `prefix`, in any order."""
        ...

    def list_parts(self, key: str, upload_id: str) -> AsyncIterator[UploadedPart]:
        """Yield the parts of an upload. Raises UploadLost.

        A part that was sent twice may be listed twice, with different ETags (SeaweedFS, which completes with either).
        """
        ...

    async def complete_multipart_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        """Make one object of the parts, given by their ETags in order.

        If the key is taken, raises PreconditionFailed on a store that checks this, else replaces the object. Raises
        UploadLost if the upload is gone, or if a part is not the one that its ETag names.
        """
        ...

    async def abort_multipart_upload(self, key: str, upload_id: str) -> None:
        """Delete an upload and its parts if it exists. Raises DeletionDenied."""
        ...
