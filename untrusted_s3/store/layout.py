"""Where things lie in the bucket (docs/format.md). Keys here are relative to the store's prefix.

    store.json                              peers/{device id}.json        nodes/{device id}.json
    identities/{name}.json
    folders/{folder}/folder.json
    folders/{folder}/objects/{hh}/{name hash}/{content hash}
    folders/{folder}/log/{position, 20 digits}
    folders/{folder}/checkpoints/{position, 20 digits}

Every key segment is made of `0-9A-Za-z._-` alone, which all S3 servers tried keep apart and unchanged.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import UsageError

STORE = "store.json"
PEERS = "peers/"
NODES = "nodes/"
IDENTITIES = "identities/"
FOLDERS = "folders/"
FOLDER_RECORD = "folder.json"

_PLAIN_NAME = re.compile(r"[0-9A-Za-z-][0-9A-Za-z._-]{0,63}")
_LOCATION = re.compile(r"s3://([^/]+)(/.*)?", re.DOTALL)
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[0-9A-Za-z._-]+(/[0-9A-Za-z._-]+)*")


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """A bucket and a key prefix in it (empty, or ending in a slash)."""

    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> StoreLocation:
        """From `s3://BUCKET[/PREFIX]`. Raises UsageError for anything else."""
        match = _LOCATION.fullmatch(url)
        if match is None:
            raise UsageError(f"--store must look like s3://BUCKET or s3://BUCKET/PREFIX, not {url!r}")
        bucket, prefix = match[1], (match[2] or "").strip("/")
        if not _BUCKET.fullmatch(bucket):
            raise UsageError(f"{bucket!r} is no bucket name: 3 to 63 of a-z, 0-9, dot and hyphen")
        if prefix and (not _PREFIX.fullmatch(prefix) or {".", ".."} & set(prefix.split("/"))):
            raise UsageError(
                f"the prefix {prefix!r} may hold letters, digits, dot, hyphen, underscore and single slashes"
            )
        return cls(bucket, prefix + "/" if prefix else "")

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")


def peer_key(device_id: DeviceID) -> str:
    """The record of an accepted device."""
    return f"{PEERS}{device_id}.json"


def node_key(device_id: DeviceID) -> str:
    """The heartbeat of a gateway."""
    return f"{NODES}{device_id}.json"


def identity_key(name: str) -> str:
    """The record of a sealed identity. Raises UsageError for a name that is no key segment."""
    if not _PLAIN_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for an identity: 1 to 64 letters, digits, dots, hyphens and underscores, of which the"
            " first is a letter, a digit or a hyphen"
        )
    return f"{IDENTITIES}{name}.json"


def folder_segment(folder_id: str) -> str:
    """A folder ID as one key segment: itself where it is harmless, else `_` and 32 hex digits of its SHA-256."""
    if _PLAIN_NAME.fullmatch(folder_id):
        return folder_id
    return "_" + hashlib.sha256(folder_id.encode()).hexdigest()[:32]


def position_of(segment: str) -> int | None:
    """The position that the last segment of a log segment's or checkpoint's key states; None where it is no such."""
    return int(segment) if len(segment) == 20 and segment.isascii() and segment.isdigit() else None


@dataclass(frozen=True, slots=True)
class FolderKeys:
    """The keys of one folder."""

    base: str

    @classmethod
    def of(cls, folder_id: str) -> FolderKeys:
        """The keys of the folder with that Syncthing folder ID."""
        return cls(f"{FOLDERS}{folder_segment(folder_id)}/")

    @property
    def record(self) -> str:
        """The folder's record."""
        return self.base + FOLDER_RECORD

    @property
    def segments(self) -> str:
        """The prefix of all log segments."""
        return self.base + "log/"

    @property
    def checkpoints(self) -> str:
        """The prefix of all checkpoints."""
        return self.base + "checkpoints/"

    @property
    def objects(self) -> str:
        """The prefix of all objects with data."""
        return self.base + "objects/"

    def object(self, name_hash: str, content_hash: str) -> str:
        """The object that holds one content of one file; both hashes are 32 hex digits."""
        return f"{self.objects}{name_hash[:2]}/{name_hash}/{content_hash}"

    def segment(self, position: int) -> str:
        """The log segment at a position, counted from 1."""
        return f"{self.segments}{position:020d}"

    def checkpoint(self, position: int) -> str:
        """The checkpoint of the state after the segment at `position`."""
        return f"{self.checkpoints}{position:020d}"
