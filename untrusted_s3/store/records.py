"""The small JSON objects of a store: the store itself, accepted peers, running gateways, folders (docs/format.md)."""

from __future__ import annotations

import base64
import binascii
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, NoSuchKey, PreconditionFailed, UsageError
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.listing import list_folders

FORMAT = "untrusted_s3"
VERSION = 1

Record = TypeVar("Record")


@dataclass(frozen=True, slots=True)
class StoreRecord:
    """The store's identity: a random id of 32 hex digits, made once."""

    store_id: str

    def to_json(self) -> dict[str, Any]:
        """The JSON object."""
        return {"format": FORMAT, "version": VERSION, "store_id": self.store_id}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> StoreRecord:
        """From the JSON object. Raises DataError for a store that is not ours or of a newer format."""
        if value.get("format") != FORMAT:
            raise DataError("store.json is not of untrusted_s3: choose another bucket or prefix")
        if value.get("version") != VERSION:
            raise DataError(f"the store has format version {value.get('version')}: use a newer untrusted-s3")
        return cls(str(value["store_id"]))


@dataclass(frozen=True, slots=True)
class PeerRecord:
    """An accepted device: where to dial it (tcp:// URLs, perhaps none), and which folders to offer it unasked."""

    device_id: DeviceID
    name: str = ""
    addresses: tuple[str, ...] = ()
    share: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "device_id": str(self.device_id),
            "name": self.name,
            "addresses": list(self.addresses),
            "share": list(self.share),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> PeerRecord:
        """From the JSON object."""
        return cls(
            DeviceID.parse(str(value["device_id"])),
            str(value.get("name", "")),
            tuple(map(str, value.get("addresses", []))),
            tuple(map(str, value.get("share", []))),
        )


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """The heartbeat of a running gateway: its name, seconds since 1970, and 32 hex digits of its process's own."""

    device_id: DeviceID
    name: str
    time: int
    instance: str

    def to_json(self) -> dict[str, Any]:
        """The JSON object."""
        return {
            "device_id": str(self.device_id),
            "name": self.name,
            "time": self.time,
            "instance": self.instance,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> NodeRecord:
        """From the JSON object."""
        return cls(
            DeviceID.parse(str(value["device_id"])),
            str(value.get("name", "")),
            int(value["time"]),
            str(value.get("instance", "")),
        )


@dataclass(frozen=True, slots=True)
class FolderRecord:
    """A folder: its Syncthing ID and label, the encryption password's token, and the id of the index that all
    gateways announce for it. `removed` where the folder is being removed: nobody may open it."""

    folder_id: str
    label: str
    token: bytes
    index_id: int = field(default_factory=lambda: secrets.randbits(63) | 1)
    removed: bool = False

    def to_json(self) -> dict[str, Any]:
        """The JSON object; the token in base64, the index id as 16 hex digits."""
        value = {
            "id": self.folder_id,
            "label": self.label,
            "password_token": base64.b64encode(self.token).decode(),
            "index_id": f"{self.index_id:016x}",
        }
        return {**value, "removed": True} if self.removed else value

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> FolderRecord:
        """From the JSON object."""
        token = base64.b64decode(value["password_token"], validate=True)
        return cls(
            str(value["id"]),
            str(value.get("label", "")),
            token,
            int(value["index_id"], 16),
            value.get("removed") is True,
        )


async def read_record(bucket: Bucket, key: str, from_json: Callable[[dict[str, Any]], Record]) -> Record | None:
    """The record under `key`, or None where there is none, or one of no bytes, as some stores leave it where a
    connection ends between the head and the body of a PUT. Raises DataError where it cannot be read."""
    try:
        body = await bucket.get(key)
    except NoSuchKey:
        return None
    if not body:
        return None
    try:
        value = json.loads(body)
        if not isinstance(value, dict):
            raise TypeError("no JSON object")
        return from_json(value)
    except (KeyError, TypeError, ValueError, binascii.Error, UsageError) as error:
        raise DataError(f"{key} cannot be read: {error!r}") from error


async def write_record(bucket: Bucket, key: str, value: dict[str, Any], *, create: bool = False) -> None:
    """Writes a record; with `create` only where there is none, else PreconditionFailed."""
    await bucket.put(key, [json.dumps(value, indent=1).encode() + b"\n"], if_none_match=create)


async def create_or_read(
    bucket: Bucket, key: str, value: dict[str, Any], from_json: Callable[[dict[str, Any]], Record]
) -> Record:
    """Creates a record, or reads the one that was there first; of several creators all get the same."""
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


async def open_store(bucket: Bucket) -> StoreRecord:
    """The store's record, created at first use."""
    fresh = StoreRecord(secrets.token_hex(16))
    return await create_or_read(bucket, layout.STORE, fresh.to_json(), StoreRecord.from_json)


async def read_folders(bucket: Bucket) -> list[FolderRecord]:
    """All folders of the store, by ID."""
    records = []
    async for keys in list_folders(bucket):
        record = await read_record(bucket, keys.record, FolderRecord.from_json)
        if record is not None:
            records.append(record)
    return sorted(records, key=lambda record: record.folder_id)


async def read_peers(bucket: Bucket) -> list[PeerRecord]:
    """All accepted devices."""
    peers = []
    async for item in bucket.list(layout.PEERS):
        record = await read_record(bucket, item.key, PeerRecord.from_json)
        if record is not None:
            peers.append(record)
    return peers
