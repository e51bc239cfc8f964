"""The small JSON objects of a store."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.store.memory_bucket import MemoryBucket
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, PreconditionFailed
from untrusted_s3.store import layout
from untrusted_s3.store.records import (
    FolderRecord,
    PeerRecord,
    StoreRecord,
    create_or_read,
    open_store,
    read_folders,
    read_peers,
    read_record,
    write_record,
)

ONE, OTHER = DeviceID(bytes(32)), DeviceID(bytes(range(32)))


@given(
    device_id=st.binary(min_size=32, max_size=32).map(DeviceID),
    name=st.text(),
    addresses=st.lists(st.text()).map(tuple),
    share=st.lists(st.text()).map(tuple),
)
def test_peers_keep_everything(device_id: DeviceID, name: str, addresses: Any, share: Any) -> None:
    record = PeerRecord(device_id, name, addresses, share)
    assert PeerRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


@given(folder_id=st.text(), label=st.text(), token=st.binary(), index_id=st.integers(0, 2**64 - 1))
def test_folders_keep_everything(folder_id: str, label: str, token: bytes, index_id: int) -> None:
    record = FolderRecord(folder_id, label, token, index_id)
    assert FolderRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_index_ids_are_never_zero_and_differ() -> None:
    ids = {FolderRecord("f", "", b"t").index_id for _ in range(100)}
    assert len(ids) == 100 and 0 not in ids and max(ids) < 2**63


@pytest.mark.parametrize(
    ("from_json", "body"),
    [
        (PeerRecord.from_json, b"[]"),
        (PeerRecord.from_json, b"{}"),
        (PeerRecord.from_json, b'{"device_id": "typo"}'),
        (PeerRecord.from_json, b'{"device_id": "' + str(ONE).encode() + b'", "addresses": 5}'),
        (FolderRecord.from_json, b'{"id": "f", "index_id": "1"}'),
        (FolderRecord.from_json, b'{"id": "f", "index_id": "1", "password_token": "%"}'),
        (FolderRecord.from_json, b'{"id": "f", "index_id": "x", "password_token": ""}'),
        (FolderRecord.from_json, b'{"id": "f", "index_id": 1, "password_token": ""}'),
        (StoreRecord.from_json, b'{"format": "untrusted_s3", "version": 1}'),
        (StoreRecord.from_json, b"\xff\xfe"),
    ],
)
async def test_damage_is_told_with_the_key(from_json: Callable[[dict[str, Any]], Any], body: bytes) -> None:
    bucket = MemoryBucket()
    bucket.objects["some/key.json"] = body
    with pytest.raises(DataError, match=r"some/key\.json"):
        await read_record(bucket, "some/key.json", from_json)


async def test_one_of_no_bytes_counts_as_none() -> None:
    """SeaweedFS leaves such where a connection ends at a bad moment."""
    bucket = MemoryBucket()
    bucket.objects["key"] = b""
    assert await read_record(bucket, "key", PeerRecord.from_json) is None
    mine = PeerRecord(ONE, "mine")
    assert await create_or_read(bucket, "key", mine.to_json(), PeerRecord.from_json) == mine
    assert await create_or_read(bucket, "key", {}, PeerRecord.from_json) == mine


async def test_what_is_not_there_is_none() -> None:
    assert await read_record(MemoryBucket(), "key", PeerRecord.from_json) is None


async def test_a_store_is_made_once() -> None:
    bucket = MemoryBucket()
    first = await open_store(bucket)
    assert await open_store(bucket) == first
    assert json.loads(bucket.objects[layout.STORE]) == {
        "format": "untrusted_s3",
        "version": 1,
        "store_id": first.store_id,
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [({"format": "x"}, "another"), ({"format": "untrusted_s3", "version": 2}, "newer")],
)
async def test_another_store_is_left_alone(value: dict[str, Any], message: str) -> None:
    bucket = MemoryBucket()
    await write_record(bucket, layout.STORE, value)
    before = dict(bucket.objects)
    with pytest.raises(DataError, match=message):
        await open_store(bucket)
    assert bucket.objects == before


async def test_creating_what_is_there_fails() -> None:
    bucket = MemoryBucket()
    await write_record(bucket, "key", {"a": 1}, create=True)
    with pytest.raises(PreconditionFailed):
        await write_record(bucket, "key", {"a": 2}, create=True)
    await write_record(bucket, "key", {"a": 3})
    assert json.loads(bucket.objects["key"]) == {"a": 3}


async def test_of_two_creators_both_get_the_first_one() -> None:
    class Slow(MemoryBucket):
        """Lets another creator be first, after this one has looked."""

        async def put(self, key: str, *args: Any, **parameters: Any) -> None:
            self.objects.setdefault(key, json.dumps(PeerRecord(OTHER, "first").to_json()).encode())
            await super().put(key, *args, **parameters)

    mine = PeerRecord(ONE, "second")
    got = await create_or_read(Slow(), "key", mine.to_json(), PeerRecord.from_json)
    assert got == PeerRecord(OTHER, "first")


async def test_all_folders_and_peers_are_found() -> None:
    bucket = MemoryBucket()
    folders = [FolderRecord(folder_id, "", b"t") for folder_id in ("b", "ä ö/ü", "a")]
    for folder in folders:
        await write_record(bucket, layout.FolderKeys.of(folder.folder_id).record, folder.to_json())
    bucket.objects["folders/no-record/log/00000000000000000001"] = b""
    peers = [PeerRecord(ONE, "one"), PeerRecord(OTHER, "other")]
    for peer in peers:
        await write_record(bucket, layout.peer_key(peer.device_id), peer.to_json())
    assert await read_folders(bucket) == sorted(folders, key=lambda folder: folder.folder_id)
    assert sorted(await read_peers(bucket), key=lambda peer: peer.name) == peers
