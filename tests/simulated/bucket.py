"""The clients of the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tests.simulated.calls import Call, Crash, Fault, Gate, Phase
from tests.simulated.store import SIGNATURE_LIFETIME, SimulatedStore
from untrusted_s3.errors import (
    AccessDenied,
    AnswerTooLong,
    AnswerTooShort,
    PreconditionFailed,
    RequestRefused,
    StoreUnreachable,
)
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.bucket import Bucket, Buffer, MultipartUpload, ObjectSummary, UploadedPart
from untrusted_s3.store.deletions import Deletions
from untrusted_s3.store.format import FILE_UPLOAD_LIFETIME

Result = TypeVar("Result")

GET_LIFETIME = StoreSettings().get_lifetime


async def _open_gate(call: Call, phase: Phase) -> None:
    """Let every call pass."""


class SimulatedBucket:
    """One client of a simulated store. Implements `store.bucket.Bucket`.

    `fault` is asked once for each call. `calls` lists all of them in the order in which they began.
    """

    def __init__(
        self,
        store: SimulatedStore | None = None,
        *,
        clock: Callable[[], float] | None = None,
        gate: Gate = _open_gate,
        fault: Callable[[Call], Fault | None] = lambda call: None,
        file_upload_lifetime: float = FILE_UPLOAD_LIFETIME,
    ) -> None:
        self.store = store or SimulatedStore()
        self.gate = gate
        self.fault = fault
        self.deletions = Deletions()
        self.calls: list[Call] = []
        self._clock = clock or self.store.clock
        self._file_upload_lifetime = file_upload_lifetime

    def count(self, operation: str) -> int:
        """Return how many calls of one kind there were."""
        return sum(call.operation == operation for call in self.calls)

    async def _call(
        self,
        call: Call,
        act: Callable[[], Result],
        lifetime: float = SIGNATURE_LIFETIME,
        act_without_body: Callable[[], None] = lambda: None,
    ) -> Result:
        self.calls.append(call)
        signed = self._clock()
        fault = self.fault(call)
        await self.gate(call, Phase.REQUEST)
        match fault:
            case Fault.UNREACHABLE:
                raise StoreUnreachable(f"{call.operation} {call.key}: no answer")
            case Fault.REFUSED:
                raise RequestRefused(f"the store denies {call.operation} {call.key}")
            case Fault.DENIED:
                raise AccessDenied(f"the store denies {call.operation} {call.key}")
            case Fault.CONFLICT:
                raise PreconditionFailed(f"{call.operation} {call.key}: the key is taken")
            case Fault.CRASH_BEFORE:
                raise Crash(f"before {call.operation} {call.key}")
        self.store.check_signature(signed, lifetime)
        if fault is Fault.EMPTIED:
            with suppress(PreconditionFailed):
                act_without_body()
            raise StoreUnreachable(f"{call.operation} {call.key}: the connection broke")
        try:
            result = act()
        finally:
            if fault is Fault.CRASH_AFTER:
                raise Crash(f"after {call.operation} {call.key}")
            if fault is Fault.ANSWER_LOST:
                raise StoreUnreachable(f"{call.operation} {call.key}: the answer was lost")
            await self.gate(call, Phase.ANSWER)
        return result

    def now(self) -> float:
        return self.store.clock()

    async def get(self, key: str, start: int = 0, size: int | None = None, *, max_size: int = 128 << 20) -> bytes:
        def act() -> bytes:
            body = self.store.get(key)
            if size is None and len(body) - start > max_size:
                raise AnswerTooLong(f"{key}: more than {max_size} bytes")
            if size is not None and len(body) < start + size:
                raise AnswerTooShort(f"{key}: {max(len(body) - start, 0)} bytes instead of {size}")
            return body[start:] if size is None else body[start : start + size]

        return await self._call(Call("get", key, start, size), act, GET_LIFETIME)

    async def put(self, key: str, body: Sequence[Buffer], *, if_none_match: bool = False, lifetime: int = 900) -> None:
        await self._call(
            Call("put", key),
            lambda: self.store.put(key, b"".join(body), if_none_match=if_none_match),
            lifetime,
            lambda: self.store.put(key, b"", if_none_match=if_none_match),
        )

    async def delete(self, key: str, *, lifetime: int | None = None) -> None:
        with self.deletions.of_object(key):
            await self._call(
                Call("delete", key), lambda: self.store.objects.pop(key, None), lifetime or SIGNATURE_LIFETIME
            )

    async def size(self, key: str) -> int | None:
        return await self._call(
            Call("size", key), lambda: len(self.store.objects[key].body) if key in self.store.objects else None
        )

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectSummary]:
        found = await self._call(
            Call("list", prefix),
            lambda: [
                ObjectSummary(key, len(self.store.body(key)), self.store.age(key))
                for key in self.store.keys(prefix)
                if key > start_after
            ],
        )
        for item in reversed(found):  # callers must not rely on an order
            yield item

    async def list_directories(self, prefix: str) -> AsyncIterator[str]:
        rests = await self._call(
            Call("list_directories", prefix), lambda: [key.removeprefix(prefix) for key in self.store.keys(prefix)]
        )
        for name in {rest.split("/")[0] for rest in rests if "/" in rest}:
            yield f"{prefix}{name}/"

    async def list_level(self, prefix: str) -> AsyncIterator[str]:
        rests = await self._call(
            Call("list_level", prefix), lambda: [key.removeprefix(prefix) for key in self.store.keys(prefix)]
        )
        for name in {rest.split("/")[0] + "/" * ("/" in rest) for rest in rests}:
            yield f"{prefix}{name}"

    async def upload_file(self, key: str, path: Path) -> None:
        begun = self.store.clock()
        await self._call(
            Call("upload_file", key),
            lambda: self.store.put(key, path.read_bytes(), begun=begun),
            self._file_upload_lifetime,
        )

    async def download_file(self, key: str, path: Path) -> None:
        body = await self._call(Call("download_file", key), lambda: self.store.get(key))
        path.write_bytes(body)

    async def create_multipart_upload(self, key: str) -> str:
        return await self._call(Call("create_multipart_upload", key), lambda: self.store.begin_upload(key))

    async def upload_part(self, key: str, upload_id: str, number: int, body: Sequence[Buffer]) -> str:
        return await self._call(
            Call("upload_part", key), lambda: self.store.add_part(upload_id, number, b"".join(body))
        )

    async def upload_part_copy(
        self, key: str, upload_id: str, number: int, source_key: str, start: int, end: int
    ) -> str:
        return await self._call(
            Call("upload_part_copy", key, start, end - start),
            lambda: self.store.add_part(upload_id, number, self.store.get(source_key)[start:end]),
        )

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        uploads = await self._call(
            Call("list_multipart_uploads", prefix),
            lambda: [
                MultipartUpload(upload.key, upload_id, self.store.clock() - upload.begun)
                for upload_id, upload in self.store.uploads.items()
                if upload.key.startswith(prefix)
            ],
        )
        for upload in reversed(uploads):
            yield upload

    async def list_parts(self, key: str, upload_id: str) -> AsyncIterator[UploadedPart]:
        for part in await self._call(Call("list_parts", key), lambda: self.store.parts(upload_id)):
            yield part

    async def complete_multipart_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        await self._call(
            Call("complete_multipart_upload", key), lambda: self.store.complete_upload(key, upload_id, etags)
        )

    async def abort_multipart_upload(self, key: str, upload_id: str) -> None:
        with self.deletions.of_upload(key):
            await self._call(Call("abort_multipart_upload", key), lambda: self.store.uploads.pop(upload_id, None))


_bucket: type[Bucket] = SimulatedBucket  # so mypy checks that it implements all of the protocol
