"""A bucket in memory, with the faults that stores are known for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from untrusted_s3.errors import NoSuchKey, PreconditionFailed, StoreRefused, StoreUnreachable
from untrusted_s3.store.bucket import Buffer, MultipartUpload, ObjectSummary, UploadedPart
from untrusted_s3.store.deletions import Deletions


class MemoryBucket:
    """Implements `store.bucket.Bucket`, without multipart uploads.

    `conditional` says how `If-None-Match: *` is met: "kept", "ignored", "refused", "racing" (checked, then written
    later), or "answers lost" (the winner hears that its key is taken).
    """

    def __init__(self, conditional: str = "kept") -> None:
        self.objects: dict[str, bytes] = {}
        self.deletions = Deletions()
        self._conditional = conditional

    def now(self) -> float:
        return time.time()

    async def get(self, key: str, start: int = 0, size: int | None = None, *, max_size: int = 128 << 20) -> bytes:
        if key not in self.objects:
            raise NoSuchKey(key)
        return self.objects[key][start : None if size is None else start + size]

    async def put(self, key: str, body: Sequence[Buffer], *, if_none_match: bool = False, lifetime: int = 900) -> None:
        if if_none_match and self._conditional != "ignored":
            if self._conditional == "refused":
                raise StoreRefused("the store answered 501 NotImplemented")
            if key in self.objects:
                raise PreconditionFailed(key)
            if self._conditional == "racing":
                await asyncio.sleep(0)
        self.objects[key] = b"".join(body)
        if if_none_match and self._conditional == "answers lost":
            raise PreconditionFailed(key)

    async def delete(self, key: str, *, lifetime: int | None = None) -> None:
        self.objects.pop(key, None)

    async def size(self, key: str) -> int | None:
        return len(self.objects[key]) if key in self.objects else None

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectSummary]:
        for key in sorted(self.objects):
            if key.startswith(prefix) and key > start_after:
                yield ObjectSummary(key, len(self.objects[key]), 0.0)

    async def list_directories(self, prefix: str) -> AsyncIterator[str]:
        rests = (key[len(prefix) :] for key in self.objects if key.startswith(prefix))
        for name in sorted({rest.split("/")[0] for rest in rests if "/" in rest}):
            yield f"{prefix}{name}/"

    async def list_level(self, prefix: str) -> AsyncIterator[str]:
        rests = (key[len(prefix) :] for key in self.objects if key.startswith(prefix))
        for name in sorted({rest.split("/")[0] + "/" * ("/" in rest) for rest in rests}):
            yield f"{prefix}{name}"

    async def upload_file(self, key: str, path: Path) -> None:
        self.objects[key] = path.read_bytes()

    async def download_file(self, key: str, path: Path) -> None:
        path.write_bytes(await self.get(key))

    async def create_multipart_upload(self, key: str) -> str:
        raise StoreUnreachable("no multipart uploads here")

    async def upload_part(self, key: str, upload_id: str, number: int, body: Sequence[Buffer]) -> str:
        raise StoreUnreachable("no multipart uploads here")

    async def upload_part_copy(
        self, key: str, upload_id: str, number: int, source_key: str, start: int, end: int
    ) -> str:
        raise StoreUnreachable("no multipart uploads here")

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        for upload in list[MultipartUpload]():
            yield upload

    async def list_parts(self, key: str, upload_id: str) -> AsyncIterator[UploadedPart]:
        for part in list[UploadedPart]():
            yield part

    async def complete_multipart_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        raise StoreUnreachable("no multipart uploads here")

    async def abort_multipart_upload(self, key: str, upload_id: str) -> None:
        raise StoreUnreachable("no multipart uploads here")
