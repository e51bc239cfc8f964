"""Where things lie in the bucket (docs/format.md). Keys here are relative to the store's prefix.

    store.json                              peers/{device id}.json        nodes/{device id}.json
    identities/{name}.json                  usage/{device id}.json        quotas.json
    retention.json                          folders/{folder}/retention.json
    probe/{name}
    folders/{folder}/folder.json
    folders/{folder}/present-objects.txt
    folders/{folder}/objects/{hh}/{name hash}/{object name}
    folders/{folder}/log/{position, 20 digits}
    folders/{folder}/checkpoints/{position, 20 digits}
    folders/{folder}/kept/{position, 20 digits}-{seconds, 12 digits}
    folders/{folder}/damaged/{position, 20 digits}-{content}
    folders/{folder}/losses/{position, 20 digits}-{id}.json
    folders/{folder}/scrub.json
    folders/{folder}/garbage/{id}.json      folders/{folder}/garbage/{id}-swept.json

Every key segment consists of `0-9A-Za-z._-`, which all S3 servers tried keep apart and unchanged. Nothing else in the
program composes a key or takes one apart.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import UsageError
from untrusted_s3.store.format import MAX_CHECKPOINT_POSITION, MAX_POSITION

STORE = "store.json"
RETENTION = "retention.json"
HISTORY = "history.json"
QUOTAS = "quotas.json"
PEERS = "peers/"
NODES = "nodes/"
IDENTITIES = "identities/"
USAGE = "usage/"
FOLDERS = "folders/"
PROBES = "probe/"
PROBE_OF_RIGHTS = "probe/rights"
# All keys of a store that are not below a prefix, and all prefixes.
RECORDS = (STORE, RETENTION, HISTORY, QUOTAS)
DIRECTORIES = (PEERS, NODES, IDENTITIES, USAGE, FOLDERS, PROBES)

NAME_HASH_SIZE = 16

_JSON = ".json"
_FOLDER_RECORD = "folder.json"
_PRESENT_OBJECTS = "present-objects.txt"
_SCRUB_RECORD = "scrub.json"
_POSITION_DIGITS = 20
_PLAIN_NAME = re.compile(r"[0-9A-Za-z-][0-9A-Za-z._-]{0,63}")
_OBJECT_NAME = re.compile(r"[0-9a-f]{32}(-[0-9a-z]{1,64})?")
_DAMAGED_NAME = re.compile(r"[0-9]{20}-[0-9a-f]{32}")
_LOSS_NAME = re.compile(r"[0-9]{20}-[0-9a-f]{32}\.json")
_GARBAGE_NAME = re.compile(r"([0-9a-f]{32})(-swept)?\.json")
_KEPT_NAME = re.compile(r"([0-9]{20})-([0-9]{12})")
_OBJECT_KEY = re.compile(r"([0-9a-f]{2})/(\1[0-9a-f]{30})/([0-9a-z-]+)")
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
        """Parse `s3://BUCKET[/PREFIX]`. Raises UsageError for anything else."""
        match = _LOCATION.fullmatch(url)
        if match is None:
            raise UsageError(f"{url!r} is not of the form s3://BUCKET or s3://BUCKET/PREFIX")
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
    """Return the key of an accepted device's record."""
    return f"{PEERS}{device_id}{_JSON}"


def node_key(device_id: DeviceID) -> str:
    """Return the key of a gateway's heartbeat."""
    return f"{NODES}{device_id}{_JSON}"


def node_name(key: str) -> str:
    """Return the device ID, as a text, in the key of a gateway's heartbeat."""
    return key.removeprefix(NODES).removesuffix(_JSON)


def usage_key(device_id: DeviceID) -> str:
    """Return the key of the record of what a gateway has asked of the store."""
    return f"{USAGE}{device_id}{_JSON}"


def identity_key(name: str) -> str:
    """Return the key of a sealed identity's record. Raises UsageError for a name that cannot be a key segment."""
    if not _PLAIN_NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for an identity: 1 to 64 letters, digits, dots, hyphens and underscores, of which the"
            " first is a letter, a digit or a hyphen"
        )
    return f"{IDENTITIES}{name}{_JSON}"


def folder_segment(folder_id: str) -> str:
    """Return a folder ID as one key segment: unchanged if it is harmless, else `_` and 32 hex digits of its SHA-256."""
    if _PLAIN_NAME.fullmatch(folder_id):
        return folder_id
    return "_" + hashlib.sha256(folder_id.encode()).hexdigest()[:32]


def name_hash(name: str) -> str:
    """Return 32 hex digits of the SHA-256 of an encrypted name in UTF-8."""
    return hashlib.sha256(name.encode()).hexdigest()[:32]


def name_key(name: str) -> bytes:
    """Return `name_hash` as bytes."""
    return hashlib.sha256(name.encode()).digest()[:NAME_HASH_SIZE]


def is_object_name(name: str) -> bool:
    """Return whether `name` has the form of an object's name (objects/naming.py): safe as a key segment."""
    return _OBJECT_NAME.fullmatch(name) is not None


def is_damaged_name(name: str) -> bool:
    """Return whether `name` has the form of the name below `damaged` of a log segment that is kept."""
    return _DAMAGED_NAME.fullmatch(name) is not None


def holds_file_data(key: str) -> bool:
    """Return whether a key is that of an object with a file's data, which is of no use before the log names it."""
    segments = key.split("/")
    return len(segments) > 3 and segments[0] + "/" == FOLDERS and segments[2] == "objects"


def folder_base(key: str) -> str:
    """Return the `base` of the keys of the folder to which a key belongs."""
    return "/".join(key.split("/", 2)[:2]) + "/"


def _position(key: str, prefix: str, highest: int) -> int | None:
    text = key[len(prefix) :] if key.startswith(prefix) else ""
    if len(text) != _POSITION_DIGITS or not text.isascii() or not text.isdigit():
        return None
    position = int(text)
    return position if 1 <= position <= highest else None


@dataclass(frozen=True, slots=True)
class FolderKeys:
    """The keys of one folder.

    Attributes:
        base: The prefix of all of them; ends in a slash.
    """

    base: str

    @classmethod
    def of(cls, folder_id: str) -> FolderKeys:
        """Return the keys of the folder with a Syncthing folder ID."""
        return cls(f"{FOLDERS}{folder_segment(folder_id)}/")

    @property
    def record(self) -> str:
        """The key of the folder's record."""
        return self.base + _FOLDER_RECORD

    @property
    def scrub(self) -> str:
        """The key of the record of how far the folder's scrub has come."""
        return self.base + _SCRUB_RECORD

    @property
    def present_objects(self) -> str:
        """The key of the list of the objects of the folder's present state."""
        return self.base + _PRESENT_OBJECTS

    @property
    def records(self) -> tuple[str, ...]:
        """All keys directly below `base`."""
        return self.record, self.scrub, self.present_objects, self.retention, self.history

    @property
    def directories(self) -> tuple[str, ...]:
        """All prefixes one level below `base`."""
        return (
            self.segments,
            self.checkpoints,
            self.kept,
            self.objects,
            self.damaged_segments,
            self.losses,
            self.garbage,
        )

    @property
    def segments(self) -> str:
        """The prefix of all log segments."""
        return self.base + "log/"

    @property
    def checkpoints(self) -> str:
        """The prefix of all checkpoints."""
        return self.base + "checkpoints/"

    @property
    def retention(self) -> str:
        """The key of the folder's own rules of what is kept (store/retention.py)."""
        return self.base + RETENTION

    @property
    def history(self) -> str:
        """The key that says how much history of the folder is kept (store/history.py)."""
        return self.base + HISTORY

    @property
    def kept(self) -> str:
        """The prefix of all checkpoints that are kept beyond the history."""
        return self.base + "kept/"

    def kept_checkpoint(self, position: int, seconds: int) -> str:
        """Return the key of a checkpoint that is kept, of a position and a time in seconds since 1970 UTC."""
        return f"{self.kept}{position:0{_POSITION_DIGITS}d}-{seconds:012d}"

    def parse_kept(self, key: str) -> tuple[int, int] | None:
        """Return position and time in the key of a checkpoint that is kept; None if it is not one of these."""
        found = _KEPT_NAME.fullmatch(key[len(self.kept) :]) if key.startswith(self.kept) else None
        if found is None or not 1 <= int(found[1]) <= MAX_CHECKPOINT_POSITION:
            return None
        return int(found[1]), int(found[2])

    @property
    def objects(self) -> str:
        """The prefix of all objects with file data."""
        return self.base + "objects/"

    def objects_of(self, name: str) -> str:
        """Return the prefix of all objects of the file with the encrypted name `name`."""
        hashed = name_hash(name)
        return f"{self.objects}{hashed[:2]}/{hashed}/"

    def object(self, name: str, object_name: str) -> str:
        """Return the key of the object of that name (objects/naming.py) of the file with the encrypted name `name`."""
        return self.objects_of(name) + object_name

    def object_of(self, name_key: bytes, object_name: str) -> str:
        """Return the key of an object of the file whose name has the hash `name_key`."""
        hashed = name_key.hex()
        return f"{self.objects}{hashed[:2]}/{hashed}/{object_name}"

    def parse_object(self, key: str) -> tuple[bytes, str] | None:
        """Return the hash of the name and the object's name in the key of an object; None if it is not one of these."""
        found = _OBJECT_KEY.fullmatch(key[len(self.objects) :]) if key.startswith(self.objects) else None
        return (bytes.fromhex(found[2]), found[3]) if found is not None else None

    def segment(self, position: int) -> str:
        """Return the key of the log segment at a position, counted from 1."""
        return f"{self.segments}{position:0{_POSITION_DIGITS}d}"

    def segment_position(self, key: str) -> int | None:
        """Return the position in the key of a log segment, or None if it is not one of this folder."""
        return _position(key, self.segments, MAX_POSITION)

    def checkpoint(self, position: int) -> str:
        """Return the key of the checkpoint of the state after the segment at `position`."""
        return f"{self.checkpoints}{position:0{_POSITION_DIGITS}d}"

    def checkpoint_position(self, key: str) -> int | None:
        """Return the position in the key of a checkpoint, or None if it is not one of this folder."""
        return _position(key, self.checkpoints, MAX_CHECKPOINT_POSITION)

    @property
    def damaged_segments(self) -> str:
        """The prefix of all damaged log segments that are kept."""
        return self.base + "damaged/"

    def damaged_segment(self, position: int, body: bytes) -> str:
        """Return the key under which a damaged log segment is kept. Another content has another key."""
        return self.damaged(position, hashlib.sha256(body).hexdigest())

    def damaged(self, position: int, content: str) -> str:
        """Return the key for what has this SHA-256, in hex digits, and was in the place of a segment."""
        return f"{self.damaged_segments}{position:0{_POSITION_DIGITS}d}-{content[:32]}"

    def damaged_position(self, key: str) -> int:
        """Return the position in a key that `damaged` has made."""
        return int(key[len(self.damaged_segments) :][:_POSITION_DIGITS])

    @property
    def losses(self) -> str:
        """The prefix of all records of what the log has lost."""
        return self.base + "losses/"

    def loss(self, position: int, loss_id: str) -> str:
        """Return the key of a record of what the log has lost (store/losses.py)."""
        return f"{self.losses}{position:0{_POSITION_DIGITS}d}-{loss_id}{_JSON}"

    def is_loss(self, key: str) -> bool:
        """Return whether a key has the form of one of a record of what this folder's log has lost."""
        return key.startswith(self.losses) and _LOSS_NAME.fullmatch(key[len(self.losses) :]) is not None

    @property
    def garbage(self) -> str:
        """The prefix of all records of objects that are to be deleted (store/garbage.py)."""
        return self.base + "garbage/"

    def garbage_record(self, record_id: str) -> str:
        """Return the key of a record of objects that are to be deleted."""
        return f"{self.garbage}{record_id}{_JSON}"

    def garbage_swept(self, record_id: str) -> str:
        """Return the key that says that what such a record has was deleted."""
        return f"{self.garbage}{record_id}-swept{_JSON}"

    @property
    def garbage_look(self) -> str:
        """The key that says when the folder was last looked through for such objects (store/garbage_look.py)."""
        return f"{self.garbage}looked{_JSON}"

    def parse_garbage(self, key: str) -> tuple[str, bool] | None:
        """Return the id in the key of such a record, and whether the key is that of `garbage_swept`."""
        found = _GARBAGE_NAME.fullmatch(key[len(self.garbage) :]) if key.startswith(self.garbage) else None
        return (found[1], found[2] is not None) if found is not None else None

    def relative(self, key: str) -> str:
        """Return a key of this folder without the folder's prefix, such as "log/00000000000000000001"."""
        return key.removeprefix(self.base)
