"""A simulated S3 server and its clients: the seam `store.bucket.Bucket` with faults, crashes and every interleaving.

A `SimulatedStore` is the server: objects in memory, a clock of its own, and signatures that expire by that clock. A
`SimulatedBucket` is one gateway's client: it signs by that gateway's clock, and a test may script its faults.

Each call goes through its bucket's gate twice, before and after the server acts. A `Scheduler` holds calls there and
lets them go one by one in an order that the test chooses, so every interleaving of several gateways can be played.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import itertools
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from tests.virtual_time import VirtualTimeLoop, settled
from untrusted_s3.errors import NoSuchKey, PreconditionFailed, StoreRefused, StoreUnreachable, UploadLost
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.bucket import Bucket, Buffer, MultipartUpload, ObjectSummary, UploadedPart
from untrusted_s3.store.format import FILE_UPLOAD_LIFETIME

Result = TypeVar("Result")

# S3 refuses signed headers whose time is more than this off, and presigned URLs from further in its future.
GET_LIFETIME = StoreSettings().get_lifetime
SIGNATURE_LIFETIME = 900


class Crash(BaseException):
    """The gateway's process dies here."""


class Fault(enum.Enum):
    """What may happen to one call."""

    UNREACHABLE = enum.auto()  # the request never arrives
    ANSWER_LOST = enum.auto()  # the server acts, and the answer never arrives
    EMPTIED = enum.auto()  # the connection ends before a body's first byte: the server writes an object of no bytes
    CONFLICT = enum.auto()  # 409 or 412, and nothing happens
    CRASH_BEFORE = enum.auto()
    CRASH_AFTER = enum.auto()


class Phase(enum.Enum):
    """Where a call is held."""

    REQUEST = enum.auto()
    ANSWER = enum.auto()


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a method of the seam; `start` and `size` are those of a `get`."""

    operation: str
    key: str
    start: int = 0
    size: int | None = None


@dataclass(slots=True)
class _Object:
    body: bytes
    created: float


@dataclass(slots=True)
class _Upload:
    key: str
    begun: float
    parts: dict[int, bytes] = field(default_factory=dict)


def _etag(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


class SimulatedClock:
    """Seconds since 1970 that pass only when the test says so."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class SimulatedStore:
    """The server. `enforce_lifetimes` false makes it one that takes any signature."""

    def __init__(self, clock: Callable[[], float] | None = None, *, enforce_lifetimes: bool = True) -> None:
        self.clock = clock or SimulatedClock()
        self.enforce_lifetimes = enforce_lifetimes
        self.objects: dict[str, _Object] = {}
        self.uploads: dict[str, _Upload] = {}
        self.created_twice: list[str] = []  # keys of conditional PUTs that succeeded after an earlier one
        self.ever_created: set[str] = set()  # keys of all conditional PUTs that succeeded
        self._uploads_begun = 0

    def body(self, key: str) -> bytes:
        """An object's bytes."""
        return self.objects[key].body

    def keys(self, prefix: str = "") -> list[str]:
        """All keys below a prefix, in order."""
        return sorted(key for key in self.objects if key.startswith(prefix))

    def age(self, key: str) -> float:
        """Seconds since the object was written, by the server's clock."""
        return self.clock() - self.objects[key].created

    def check_signature(self, signed: float, lifetime: float) -> None:
        """Raises StoreRefused for a signature that is over, or lies in the future."""
        if self.enforce_lifetimes and not -SIGNATURE_LIFETIME <= self.clock() - signed <= lifetime:
            raise StoreRefused("the signature is not valid now")

    def get(self, key: str) -> bytes:
        """The bytes of an object. Raises NoSuchKey."""
        if key not in self.objects:
            raise NoSuchKey(f"{key}: no such object")
        return self.objects[key].body

    def put(self, key: str, body: bytes, *, if_none_match: bool = False, begun: float | None = None) -> None:
        """Writes an object, atomically. Its age counts from `begun` where that is given, as Amazon's does for a
        multipart upload."""
        if if_none_match:
            if key in self.objects:
                raise PreconditionFailed(f"{key}: the key is taken")
            if key in self.ever_created:
                self.created_twice.append(key)
            self.ever_created.add(key)
        self.objects[key] = _Object(body, self.clock() if begun is None else begun)

    def begin_upload(self, key: str) -> str:
        """A new multipart upload's id."""
        self._uploads_begun += 1
        upload_id = f"upload-{self._uploads_begun}"
        self.uploads[upload_id] = _Upload(key, self.clock())
        return upload_id

    def _upload(self, upload_id: str) -> _Upload:
        if upload_id not in self.uploads:
            raise UploadLost(f"{upload_id}: no such upload")
        return self.uploads[upload_id]

    def add_part(self, upload_id: str, number: int, body: bytes) -> str:
        """Keeps a part and gives its ETag. Raises UploadLost."""
        self._upload(upload_id).parts[number] = body
        return _etag(body)

    def parts(self, upload_id: str) -> list[UploadedPart]:
        """What an upload has. Raises UploadLost."""
        parts = sorted(self._upload(upload_id).parts.items())
        return [UploadedPart(number, len(body), _etag(body)) for number, body in parts]

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        """Puts the parts together, if all are there as stated and the key is free."""
        upload = self._upload(upload_id)
        bodies = [upload.parts.get(number, b"") for number in range(1, len(etags) + 1)]
        if [_etag(body) for body in bodies] != list(etags):
            raise UploadLost(f"{key}: a part is missing or another")
        if len({len(body) for body in bodies[:-1]}) > 1:
            raise StoreRefused(f"{key}: all parts but the last must be of one size")
        self.put(key, b"".join(bodies), if_none_match=True)
        del self.uploads[upload_id]


Gate = Callable[[Call, Phase], Awaitable[None]]


async def _open_gate(call: Call, phase: Phase) -> None:
    """Holds nothing."""


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
        self.calls: list[Call] = []
        self._clock = clock or self.store.clock
        self._file_upload_lifetime = file_upload_lifetime

    def count(self, operation: str) -> int:
        """How many calls of one kind there were."""
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

    async def get(self, key: str, start: int = 0, size: int | None = None) -> bytes:
        def act() -> bytes:
            body = self.store.get(key)
            return body[start:] if size is None else body[start : start + size]

        return await self._call(Call("get", key, start, size), act, GET_LIFETIME)

    async def put(self, key: str, body: Sequence[Buffer], *, if_none_match: bool = False, lifetime: int = 900) -> None:
        await self._call(
            Call("put", key),
            lambda: self.store.put(key, b"".join(body), if_none_match=if_none_match),
            lifetime,
            lambda: self.store.put(key, b"", if_none_match=if_none_match),
        )

    async def delete(self, key: str) -> None:
        await self._call(Call("delete", key), lambda: self.store.objects.pop(key, None))

    async def size(self, key: str) -> int | None:
        return await self._call(
            Call("size", key), lambda: len(self.store.objects[key].body) if key in self.store.objects else None
        )

    async def list(self, prefix: str) -> AsyncIterator[ObjectSummary]:
        found = await self._call(
            Call("list", prefix),
            lambda: [
                ObjectSummary(key, len(self.store.body(key)), self.store.age(key)) for key in self.store.keys(prefix)
            ],
        )
        for item in reversed(found):  # in no order to rely on
            yield item

    async def list_directories(self, prefix: str) -> AsyncIterator[str]:
        rests = await self._call(
            Call("list_directories", prefix), lambda: [key.removeprefix(prefix) for key in self.store.keys(prefix)]
        )
        for name in {rest.split("/")[0] for rest in rests if "/" in rest}:
            yield f"{prefix}{name}/"

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
        await self._call(Call("abort_multipart_upload", key), lambda: self.store.uploads.pop(upload_id, None))


_bucket: type[Bucket] = SimulatedBucket  # mypy checks here that nothing of the seam is missing


def fail_once(operation: str, fault: Fault, *, number: int = 1, key: str = "") -> Callable[[Call], Fault | None]:
    """A script: the `number`th call of an operation (on a key that contains `key`) meets the fault."""
    seen = 0

    def script(call: Call) -> Fault | None:
        nonlocal seen
        if call.operation != operation or key not in call.key:
            return None
        seen += 1
        return fault if seen == number else None

    return script


def fail_on(faults: Mapping[int, Fault]) -> Callable[[Call], Fault | None]:
    """A script: of all calls, from 1, these meet these faults."""
    numbers = itertools.count(1)
    return lambda call: faults.get(next(numbers))


class Scheduler:
    """Lets calls go through their gates one at a time, in an order that `numbers` (each from 0) gives; where they end,
    in the order in which the calls came.

    Whenever nothing else in the loop can go on, the next number chooses a call that may go on or, one time in sixteen,
    one of `others`: something else that happens. Calls of clients in `stalled` wait until no other can go on; then
    `at_standstill` is called and nobody is stalled any more.
    """

    def __init__(
        self,
        numbers: Iterable[int],
        others: Sequence[Callable[[], None]] = (),
        at_standstill: Callable[[], None] = lambda: None,
    ) -> None:
        self.stalled: set[int] = set()
        self._at_standstill = at_standstill
        self._numbers = itertools.chain(numbers, itertools.repeat(0))
        self._others = others
        self._held: list[tuple[int, asyncio.Future[None]]] = []

    def gate(self, client: int = 0) -> Gate:
        """The gate for the calls of one client."""

        async def hold(call: Call, phase: Phase) -> None:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._held.append((client, turn))
            await turn

        return hold

    async def run(self, *work: Coroutine[Any, Any, None]) -> None:
        """Run all of `work` to its end. Raises the first error in any of it. Needs a loop with virtual time."""
        assert isinstance(asyncio.get_running_loop(), VirtualTimeLoop)
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            while not all(task.done() for task in tasks):
                await settled()
                for task in tasks:
                    if task.done():
                        task.result()
                self._let_go()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _let_go(self) -> None:
        self._held = [held for held in self._held if not held[1].done()]
        number, what = divmod(next(self._numbers), 16)
        if what == 15 and self._others:
            self._others[number % len(self._others)]()
        elif self._held:
            ready = [turn for client, turn in self._held if client not in self.stalled]
            if ready:
                ready[number % len(ready)].set_result(None)
            else:
                self._at_standstill()
                self.stalled.clear()


@contextmanager
def fast_directory() -> Iterator[Path]:
    """A temporary directory, in memory where the system has such a place."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)


@contextmanager
def inline_threads() -> Iterator[None]:
    """Runs what would go to a thread at once in the loop, so that a schedule is all there is to chance."""

    async def inline(function: Callable[..., Result], *args: Any, **parameters: Any) -> Result:
        return function(*args, **parameters)

    with mock.patch("asyncio.to_thread", inline):
        yield
