"""The records of a store, small JSON objects: the store, accepted peers, running gateways, folders (docs/format.md)."""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Final, TypeVar

from untrusted_s3.bep.constants import (
    MAX_FOLDER_ID_SIZE,
    MAX_FOLDER_LABEL_SIZE,
    MAX_HELLO_SIZE,
    MAX_PASSWORD_TOKEN_SIZE,
)
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import (
    AnswerTooLong,
    CredentialsRefused,
    DataError,
    NoSuchBucket,
    NoSuchKey,
    PreconditionFailed,
    StoreRefused,
    StoreUnreachable,
)
from untrusted_s3.problem import Problem
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket, ObjectSummary
from untrusted_s3.store.format import FORMAT, READ_VERSIONS, VERSION
from untrusted_s3.store.index_id import new_index_id
from untrusted_s3.store.json_fields import MAX_SIZE, Fields, InvalidFieldError, parse_object
from untrusted_s3.store.listing import list_folders, list_peers

Record = TypeVar("Record")

STORE_ID_DIGITS: Final = 32
# A device's name comes from its Hello.
MAX_NAME_LENGTH: Final = MAX_HELLO_SIZE
MAX_ADDRESSES: Final = 1000
MAX_ADDRESS_LENGTH: Final = 2048
MAX_SHARED_FOLDERS: Final = 10_000
INDEX_ID_DIGITS: Final = 16
LAST_SECOND: Final = 253_402_300_799  # of the year 9999

_INSTANCE_DIGITS = 32
_PLAIN_KEY = re.compile(r"[0-9A-Za-z._/-]+")  # no other character is in a key of ours (store/layout.py)
_RECORD_LOST = "is missing or empty, but the folder has a log: put the record back from a copy, or remove the folder"


class Records(list[Record]):
    """The readable records of one kind.

    Attributes:
        unreadable: What else lies where such records are, by its key: damaged records, and foreign objects.
    """

    def __init__(self, records: Iterable[Record] = (), unreadable: Iterable[Problem] = ()) -> None:
        super().__init__(records)
        self.unreadable = list(unreadable)


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """The store's identity.

    Attributes:
        store_id: 32 hex digits, chosen at random when the store is first used.
        version: The format version.
    """

    store_id: str
    version: int = VERSION

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {"format": FORMAT, "version": self.version, "store_id": self.store_id}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StoreRecord:
        """Read the JSON object. Raises DataError if the store is of another program or format version."""
        if value.get("format") != FORMAT:
            raise DataError("store.json is not of untrusted_s3: choose another bucket or prefix")
        version = value.get("version")
        if type(version) is not int or version not in READ_VERSIONS:
            raise DataError(f"the store has format version {version}: use a newer untrusted-s3")
        return cls(Fields(value).hexadecimal("store_id", digits=STORE_ID_DIGITS), version)


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """An accepted device.

    Attributes:
        device_id: Its device ID.
        name: A name for people.
        addresses: Where to dial it, as tcp://HOST:PORT; perhaps none.
        share: IDs of folders to offer although it has not offered them.
        read_only: Whether the device gets everything, and nothing that it announces is taken.
        folders: IDs of the only folders that may be shared with the device or made by it; None for all.
        untrusted: Whether it has no password, so that it may not share a folder as a device that encrypts.
    """

    device_id: DeviceID
    name: str = ""
    addresses: tuple[str, ...] = ()
    share: tuple[str, ...] = ()
    read_only: bool = False
    folders: tuple[str, ...] | None = None
    untrusted: bool = False

    def may_share(self, folder_id: str) -> bool:
        """Return whether a folder may be shared with the device."""
        return self.folders is None or folder_id in self.folders

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object. `folders` is null where the device may share all."""
        return {
            "device_id": str(self.device_id),
            "name": self.name,
            "addresses": list(self.addresses),
            "share": list(self.share),
            "read_only": self.read_only,
            "folders": list(self.folders) if self.folders is not None else None,
            "untrusted": self.untrusted,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PeerRecord:
        """Read the JSON object. Raises InvalidFieldError."""
        fields = Fields(value)
        return cls(
            fields.device_id("device_id"),
            fields.text("name", max_length=MAX_NAME_LENGTH, default=""),
            fields.texts("addresses", max_count=MAX_ADDRESSES, max_length=MAX_ADDRESS_LENGTH),
            fields.texts("share", max_count=MAX_SHARED_FOLDERS, max_length=MAX_FOLDER_ID_SIZE),
            fields.boolean("read_only", default=False),
            fields.optional_texts("folders", max_count=MAX_SHARED_FOLDERS, max_length=MAX_FOLDER_ID_SIZE),
            fields.boolean("untrusted", default=False),
        )


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """The heartbeat of a running gateway.

    Attributes:
        device_id: Its device ID.
        name: A name for people.
        time: When it was written, in seconds since 1970 by the gateway's clock.
        instance: 32 hex digits, chosen at random when the process started.
    """

    device_id: DeviceID
    name: str
    time: int
    instance: str

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "device_id": str(self.device_id),
            "name": self.name,
            "time": self.time,
            "instance": self.instance,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> NodeRecord:
        """Read the JSON object. Raises InvalidFieldError."""
        fields = Fields(value)
        return cls(
            fields.device_id("device_id"),
            fields.text("name", max_length=MAX_NAME_LENGTH, default=""),
            fields.integer("time", minimum=0, maximum=LAST_SECOND),
            fields.hexadecimal("instance", digits=_INSTANCE_DIGITS, default=""),
        )


@dataclass(frozen=True, slots=True)
class FolderRecord:
    """A folder.

    Attributes:
        folder_id: Its Syncthing folder ID.
        label: Its label, for people.
        token: The encryption password's token.
        index_id: The id of the index that all gateways on the store announce for the folder; not 0.
        removed: Whether it is being removed. Then nobody may open it.
        created_by: The device that offered it first, or None where that is not known.
    """

    folder_id: str
    label: str
    token: bytes
    index_id: int = field(default_factory=new_index_id)
    removed: bool = False
    created_by: DeviceID | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object; the token in base64, the index id as 16 hex digits."""
        value = {
            "id": self.folder_id,
            "label": self.label,
            "password_token": base64.b64encode(self.token).decode(),
            "index_id": f"{self.index_id:0{INDEX_ID_DIGITS}x}",
        }
        if self.created_by is not None:
            value["created_by"] = str(self.created_by)
        return {**value, "removed": True} if self.removed else value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FolderRecord:
        """Read the JSON object. Raises InvalidFieldError."""
        fields = Fields(value)
        index_id = int(fields.hexadecimal("index_id", digits=INDEX_ID_DIGITS), 16)
        if index_id == 0:
            raise InvalidFieldError("index_id is zero")
        return cls(
            fields.text("id", max_length=MAX_FOLDER_ID_SIZE),
            fields.text("label", max_length=MAX_FOLDER_LABEL_SIZE, default=""),
            fields.base64("password_token", min_size=0, max_size=MAX_PASSWORD_TOKEN_SIZE),
            index_id,
            fields.boolean("removed", default=False),
            fields.device_id("created_by") if "created_by" in value else None,
        )


async def read_record(bucket: Bucket, key: str, from_json: Callable[[dict[str, Any]], Record]) -> Record | None:
    """Return the record under `key`, or None if there is none.

    A record of no bytes counts as none: some stores leave one if a connection ends between the head and the body of a
    PUT. Raises DataError if the record is damaged, and StoreError.
    """
    try:
        body = await bucket.get(key, max_size=MAX_SIZE)
    except NoSuchKey:
        return None
    except AnswerTooLong as error:
        raise DataError(f"{key} cannot be read: it has more than {MAX_SIZE} bytes") from error
    if not body:
        return None
    try:
        return from_json(parse_object(body))
    except InvalidFieldError as error:
        raise DataError(f"{key} cannot be read: {error}") from error


async def write_record(bucket: Bucket, key: str, value: dict[str, Any], *, create: bool = False) -> None:
    """Write a record. With `create`, the key must be free. Raises PreconditionFailed or another StoreError."""
    await bucket.put(key, [json.dumps(value, indent=1).encode() + b"\n"], if_none_match=create)


async def create_or_read(
    bucket: Bucket, key: str, value: dict[str, Any], from_json: Callable[[dict[str, Any]], Record]
) -> Record:
    """Create a record, or read the one that was there first. Several creators at once all get the same one.

    Raises DataError or StoreError.
    """
    existing = await read_record(bucket, key, from_json)
    if existing is not None:
        return existing
    try:
        await write_record(bucket, key, value, create=True)
    except PreconditionFailed:
        pass
    created = await read_record(bucket, key, from_json)
    if created is None:
        await write_record(bucket, key, value)  # there is one of no bytes
        created = await read_record(bucket, key, from_json)
    if created is None:
        raise DataError(f"{key} was written and is not there")
    return created


async def open_store(bucket: Bucket, *, upgrade: bool = False) -> StoreRecord:
    """Return the store's record, which is created at first use. Raises DataError or StoreError.

    With `upgrade`, a store of an earlier format version is marked as one of this version, so that older programs stop
    at it. That comes before anything of this version is written to a log.
    """
    fresh = StoreRecord(secrets.token_hex(STORE_ID_DIGITS // 2))
    record = await create_or_read(bucket, layout.STORE, fresh.to_json(), StoreRecord.from_json)
    if upgrade and record.version < VERSION:
        record = replace(record, version=VERSION)
        await write_record(bucket, layout.STORE, record.to_json())
    return record


async def create_folder(bucket: Bucket, fresh: FolderRecord) -> FolderRecord:
    """Create a folder, or return the record that was there first.

    Raises DataError if the record is lost and the log is not: another record would have another index id, and any
    password would do. Raises StoreError, or DataError if the record is damaged.
    """
    keys = layout.FolderKeys.of(fresh.folder_id)
    if await read_record(bucket, keys.record, FolderRecord.from_json) is None and await _has_log(bucket, keys):
        # Another gateway may have created the folder and begun its log meanwhile.
        record = await read_record(bucket, keys.record, FolderRecord.from_json)
        if record is None:
            raise DataError(f"{keys.record} {_RECORD_LOST}")
        return record
    return await create_or_read(bucket, keys.record, fresh.to_json(), FolderRecord.from_json)


async def _has_log(bucket: Bucket, keys: layout.FolderKeys) -> bool:
    for prefix in (keys.segments, keys.checkpoints):
        async for _ in bucket.list(prefix):
            return True
    return False


async def read_folders(bucket: Bucket) -> Records[FolderRecord]:
    """Return all folders of the store, by ID. Raises StoreError if the store cannot be listed or reached.

    A folder that has a log and no record is an unreadable one.
    """
    found = Records[FolderRecord]()
    async for keys in list_folders(bucket):
        if await _read_into(found, bucket, keys.record, FolderRecord.from_json, _folder_key):
            continue
        # The log of one that is created meanwhile comes after its record.
        if await _has_log(bucket, keys) and not await _read_into(
            found, bucket, keys.record, FolderRecord.from_json, _folder_key
        ):
            found.unreadable.append(Problem(keys.record, _RECORD_LOST))
    found.sort(key=lambda record: record.folder_id)
    return found


async def read_peers(
    bucket: Bucket, known: Callable[[ObjectSummary], PeerRecord | None] = lambda item: None
) -> Records[PeerRecord]:
    """Return all accepted devices, in any order. Raises StoreError if the store cannot be listed or reached.

    `known` returns the record of a listed key if that need not be read.
    """
    found = Records[PeerRecord]()
    async for item in list_peers(bucket):
        record = known(item)
        if record is not None:
            found.append(record)
        else:
            await _read_into(found, bucket, item.key, PeerRecord.from_json, _peer_key)
    return found


def _folder_key(record: FolderRecord) -> str:
    return layout.FolderKeys.of(record.folder_id).record


def _peer_key(record: PeerRecord) -> str:
    return layout.peer_key(record.device_id)


async def _read_into(
    found: Records[Record],
    bucket: Bucket,
    key: str,
    from_json: Callable[[dict[str, Any]], Record],
    key_of: Callable[[Record], str],
) -> bool:
    """Read a record and add it to what was found. Return False if the store does not have it."""
    if not _PLAIN_KEY.fullmatch(key):
        found.unreadable.append(Problem(key, "it is not a key of this program"))
        return True
    try:
        record = await read_record(bucket, key, from_json)
    except (NoSuchBucket, CredentialsRefused):
        raise
    except (DataError, StoreRefused) as error:
        found.unreadable.append(Problem(key, str(error).removeprefix(f"{key} ")))
        return True
    except StoreUnreachable as error:
        # It may be this one object that the store cannot give. Otherwise this raises as well.
        await bucket.size(layout.STORE)
        found.unreadable.append(Problem(key, str(error)))
        return True
    if record is None:
        return False
    if key_of(record) != key:
        found.unreadable.append(Problem(key, f"its content belongs to {key_of(record)}"))
    else:
        found.append(record)
    return True
