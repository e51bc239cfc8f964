"""A folder in a bucket as gateways write it, made with the real encryption and the real log."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

from tests.file_infos import device
from tests.simulated import SimulatedBucket
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.crypto.file_info import encrypt_file_info
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.index.entry import Entry, StoredObject
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.checksums import crc32c_of
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.multipart import part_ranges, part_size
from untrusted_s3.store.records import FolderRecord, open_store, write_record
from untrusted_s3.units import KIB

FOLDER_ID = "folder"
PASSWORD = "the folder's password"
BLOCK_SIZE = 128 * KIB
MODIFIED_NS = 1_700_000_000_123_456_789
START = 1_700_000_000.0

Change = Callable[[pb.FileInfo], object]

derive = functools.cache(FolderKey.derive)


def unchanged(message: pb.FileInfo) -> None:
    """Change nothing."""


class StoredFolder:
    """A folder that a test fills. `now` is the clock of its gateway, in seconds since 1970."""

    def __init__(self, bucket: Bucket, directory: Path, folder_id: str = FOLDER_ID, password: str = PASSWORD) -> None:
        """Make a folder that is not in the bucket yet. `directory` is for local state."""
        self.bucket = bucket
        self.now = START
        self.key = derive(password, folder_id)
        self.keys = FolderKeys.of(folder_id)
        self.record = FolderRecord(folder_id, f"label of {folder_id}", self.key.token(), 1)
        self.state = FolderState(directory / f"filling {hashlib.sha256(folder_id.encode()).hexdigest()[:8]}.sqlite")
        self.log = FolderLog(
            bucket, self.keys, self.state, device(1), clock=lambda: self.now, time_of_day=lambda: self.now
        )
        self.counter = 0

    async def create(self) -> Self:
        """Write the folder's record."""
        await open_store(self.bucket)
        await write_record(self.bucket, self.keys.record, self.record.to_json(), create=True)
        await self.log.load()
        return self

    async def append(self, *entries: Entry, time: float | None = None) -> None:
        """Append one segment with these entries to the log."""
        self.now = time if time is not None else self.now + 1
        await self.log.append(entries)

    async def file(
        self,
        path: str,
        data: bytes = b"",
        *,
        block_size: int = BLOCK_SIZE,
        mode: int = 0o644,
        modified_ns: int = MODIFIED_NS,
        change_real: Change = unchanged,
        change_fake: Change = unchanged,
    ) -> Entry:
        """Write the object of a file and return its entry.

        `change_real` changes the real file info before it is encrypted, `change_fake` the one around it.
        """
        pieces = [data[start : start + block_size] for start in range(0, max(len(data), 1), block_size)]
        real = self._real(path, pb.FILE, mode, modified_ns)
        real.size, real.block_size = len(data), block_size
        for number, piece in enumerate(pieces):
            digest = hashlib.sha256(piece).digest()
            real.blocks.add(offset=number * block_size, size=len(piece), hash=digest)
        change_real(real)
        info = self._encrypt(real, change_fake)
        key = self.key.file_key(path)
        body = [key.encrypt_block(piece) for piece in pieces] + [encode_trailer(info)]
        await self.bucket.put(self.keys.object(info.name, content_hash(info)), body)
        whole = b"".join(body)
        size = part_size(info.message.size, info.message.blocks[0].size)
        checksums = tuple(crc32c_of([whole[start:end]]) for start, end in part_ranges(len(whole), size))
        return Entry(info, StoredObject(content_hash(info), len(whole), size, checksums))

    def directory(
        self, path: str, *, mode: int = 0o755, modified_ns: int = MODIFIED_NS, change_real: Change = unchanged
    ) -> Entry:
        """Return the entry of a directory."""
        real = self._real(path, pb.DIRECTORY, mode, modified_ns)
        change_real(real)
        return Entry(self._encrypt(real), None)

    def symlink(self, path: str, target: str | bytes, *, modified_ns: int = MODIFIED_NS) -> Entry:
        """Return the entry of a symlink."""
        real = self._real(path, pb.SYMLINK, 0o777, modified_ns)
        real.symlink_target = target.encode() if isinstance(target, str) else target
        return Entry(self._encrypt(real), None)

    def deleted(self, path: str, kind: pb.FileInfoType = pb.FILE, *, change_real: Change = unchanged) -> Entry:
        """Return the entry of a deletion."""
        real = self._real(path, kind, 0o644, MODIFIED_NS)
        real.deleted = True
        change_real(real)
        return Entry(self._encrypt(real), None)

    def object_key(self, entry: Entry) -> str:
        """Return the key of a file's object."""
        assert entry.stored is not None
        return self.keys.object(entry.file_info.name, entry.stored.object_name)

    def _real(self, path: str, kind: pb.FileInfoType, mode: int, modified_ns: int) -> pb.FileInfo:
        self.counter += 1
        return pb.FileInfo(
            name=path,
            type=kind,
            permissions=mode,
            modified_s=modified_ns // 10**9,
            modified_ns=modified_ns % 10**9,
            version=pb.Vector(counters=[pb.Counter(id=7, value=self.counter)]),
            sequence=self.counter,
        )

    def _encrypt(self, real: pb.FileInfo, change: Change = unchanged) -> FileInfo:
        fake = encrypt_file_info(self.key, real)
        change(fake)
        return parse_file_info(fake.SerializeToString())


def flip(bucket: SimulatedBucket, key: str, offset: int) -> None:
    """Change one bit of an object. A negative offset counts from its end."""
    body = bytearray(bucket.store.body(key))
    body[offset] ^= 0x10
    bucket.store.put(key, bytes(body))


def random_bytes(size: int, seed: object = 0) -> bytes:
    """Return bytes without a pattern; the same seed gives the same bytes."""
    return hashlib.shake_128(repr(seed).encode()).digest(size)


async def stored_folder(bucket: Bucket, directory: Path, entries: Iterable[Entry] = ()) -> StoredFolder:
    """Return a folder with some entries in its log."""
    folder = await StoredFolder(bucket, directory).create()
    if entries:
        await folder.append(*entries)
    return folder
