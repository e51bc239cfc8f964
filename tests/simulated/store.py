"""The simulated server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from untrusted_s3.errors import NoSuchKey, PreconditionFailed, StoreRefused, UploadLost
from untrusted_s3.store.bucket import UploadedPart

# S3 refuses signed headers whose time is further off than this, and presigned URLs from further in its future.
SIGNATURE_LIFETIME = 900


@dataclass(slots=True)
class _Object:
    body: bytes
    created: float


@dataclass(slots=True)
class _Upload:
    key: str
    begun: float
    parts: dict[int, bytes] = field(default_factory=dict)
    written: dict[int, float] = field(default_factory=dict)


def _etag(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


class SimulatedClock:
    """A clock that a test sets, in seconds since 1970."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class SimulatedStore:
    """The server. Without `enforce_lifetimes` it takes signatures of any age."""

    def __init__(self, clock: Callable[[], float] | None = None, *, enforce_lifetimes: bool = True) -> None:
        self.clock = clock or SimulatedClock()
        self.enforce_lifetimes = enforce_lifetimes
        self.objects: dict[str, _Object] = {}
        self.uploads: dict[str, _Upload] = {}
        self.created_twice: list[str] = []  # keys of conditional PUTs that succeeded after an earlier one
        self.ever_created: set[str] = set()  # keys of all conditional PUTs that succeeded
        self._uploads_begun = 0

    def body(self, key: str) -> bytes:
        """Return the bytes of an object that exists."""
        return self.objects[key].body

    def keys(self, prefix: str = "") -> list[str]:
        """Return all keys with a prefix, sorted."""
        return sorted(key for key in self.objects if key.startswith(prefix))

    def age(self, key: str) -> float:
        """Return the seconds since the object was written, by the server's clock."""
        return self.clock() - self.objects[key].created

    def check_signature(self, signed: float, lifetime: float) -> None:
        """Raise StoreRefused for a signature that has expired or is from the future."""
        if self.enforce_lifetimes and not -SIGNATURE_LIFETIME <= self.clock() - signed <= lifetime:
            raise StoreRefused("the signature is not valid now")

    def get(self, key: str) -> bytes:
        """Return the bytes of an object. Raises NoSuchKey."""
        if key not in self.objects:
            raise NoSuchKey(f"{key}: no such object")
        return self.objects[key].body

    def put(self, key: str, body: bytes, *, if_none_match: bool = False, begun: float | None = None) -> None:
        """Write an object, atomically.

        Its age counts from `begun` if given: Amazon S3 dates an object of a multipart upload to the upload's beginning.
        Raises PreconditionFailed.
        """
        if if_none_match:
            if key in self.objects:
                raise PreconditionFailed(f"{key}: the key is taken")
            if key in self.ever_created:
                self.created_twice.append(key)
            self.ever_created.add(key)
        self.objects[key] = _Object(body, self.clock() if begun is None else begun)

    def begin_upload(self, key: str) -> str:
        """Begin a multipart upload and return its ID."""
        self._uploads_begun += 1
        upload_id = f"upload-{self._uploads_begun}"
        self.uploads[upload_id] = _Upload(key, self.clock())
        return upload_id

    def _upload(self, upload_id: str) -> _Upload:
        if upload_id not in self.uploads:
            raise UploadLost(f"{upload_id}: no such upload")
        return self.uploads[upload_id]

    def add_part(self, upload_id: str, number: int, body: bytes) -> str:
        """Keep a part and return its ETag. Raises UploadLost."""
        upload = self._upload(upload_id)
        upload.parts[number] = body
        upload.written[number] = self.clock()
        return _etag(body)

    def parts(self, upload_id: str) -> list[UploadedPart]:
        """Return the parts of an upload. Raises UploadLost."""
        upload = self._upload(upload_id)
        return [
            UploadedPart(number, len(body), _etag(body), self.clock() - upload.written[number])
            for number, body in sorted(upload.parts.items())
        ]

    def complete_upload(self, key: str, upload_id: str, etags: Sequence[str]) -> None:
        """Make the parts one object. Raises UploadLost, StoreRefused or PreconditionFailed."""
        upload = self._upload(upload_id)
        bodies = [upload.parts.get(number, b"") for number in range(1, len(etags) + 1)]
        if [_etag(body) for body in bodies] != list(etags):
            raise UploadLost(f"{key}: a part is missing or another")
        if len({len(body) for body in bodies[:-1]}) > 1:
            raise StoreRefused(f"{key}: all parts but the last must be of one size")
        self.put(key, b"".join(bodies), if_none_match=True)
        del self.uploads[upload_id]
