"""The small JSON objects of a store."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loops import RunAsync
from tests.store.memory_bucket import MemoryBucket
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import (
    CredentialsRefused,
    DataError,
    NoSuchBucket,
    PreconditionFailed,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import ObjectSummary
from untrusted_s3.store.losses import Claimed, Forgotten, LossRecord, LostSegments
from untrusted_s3.store.records import (
    FolderRecord,
    NodeRecord,
    PeerRecord,
    StoreRecord,
    create_folder,
    create_or_read,
    open_store,
    read_folders,
    read_peers,
    read_record,
    write_record,
)

FromJSON = Callable[[dict[str, Any]], Any]

ONE, OTHER = DeviceID(bytes(32)), DeviceID(bytes(range(32)))


@given(
    device_id=st.binary(min_size=32, max_size=32).map(DeviceID),
    name=st.text(),
    addresses=st.lists(st.text(max_size=2048), max_size=20).map(tuple),
    share=st.lists(st.text(max_size=256), max_size=20).map(tuple),
    read_only=st.booleans(),
    folders=st.none() | st.lists(st.text(max_size=256), max_size=20).map(tuple),
    untrusted=st.booleans(),
)
def test_peers_keep_everything(
    device_id: DeviceID, name: str, addresses: Any, share: Any, read_only: bool, folders: Any, untrusted: bool
) -> None:
    record = PeerRecord(device_id, name, addresses, share, read_only, folders, untrusted)
    assert PeerRecord.from_json(json.loads(json.dumps(record.to_json()))) == record


def test_a_peer_of_an_older_version_may_do_all() -> None:
    record = PeerRecord.from_json({"device_id": str(ONE), "name": "", "addresses": [], "share": []})
    assert (record.read_only, record.folders, record.untrusted) == (False, None, False)
    assert record.may_share("any")


def test_folders_that_a_peer_may_share() -> None:
    record = PeerRecord(ONE, folders=("a",))
    assert (record.may_share("a"), record.may_share("b")) == (True, False)
    assert not PeerRecord(ONE, folders=()).may_share("a")


@given(
    folder_id=st.text(max_size=256),
    label=st.text(max_size=4096),
    token=st.binary(max_size=1024),
    index_id=st.integers(1, 2**64 - 1),
)
def test_folders_keep_everything(folder_id: str, label: str, token: bytes, index_id: int) -> None:
    record = FolderRecord(folder_id, label, token, index_id, created_by=ONE if index_id % 2 else None)
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
        (PeerRecord.from_json, b'{"device_id": "' + str(ONE).encode() + b'", "read_only": 1}'),
        (PeerRecord.from_json, b'{"device_id": "' + str(ONE).encode() + b'", "folders": "a"}'),
        (PeerRecord.from_json, b'{"device_id": "' + str(ONE).encode() + b'", "folders": [1]}'),
        (FolderRecord.from_json, b'{"id": "f", "index_id": "1"}'),
        (FolderRecord.from_json, b'{"id": "f", "index_id": "1", "password_token": "%"}'),
        (FolderRecord.from_json, b'{"id": "f", "index_id": "x", "password_token": ""}'),
        (FolderRecord.from_json, b'{"id": "f", "index_id": 1, "password_token": ""}'),
        (FolderRecord.from_json, b'{"id": "f", "index_id": "0000000000000000", "password_token": ""}'),
        (FolderRecord.from_json, b'{"id": "f", "index_id": "000000000000000G", "password_token": ""}'),
        (FolderRecord.from_json, b'{"id": 5, "index_id": "0000000000000001", "password_token": ""}'),
        (FolderRecord.from_json, b'{"id": "f", "index_id": "0000000000000001", "password_token": "", "removed": 1}'),
        (NodeRecord.from_json, b'{"device_id": "' + str(ONE).encode() + b'", "time": NaN}'),
        (NodeRecord.from_json, b'{"device_id": "' + str(ONE).encode() + b'", "time": 1e400}'),
        (NodeRecord.from_json, b'{"device_id": "' + str(ONE).encode() + b'", "time": -1}'),
        (NodeRecord.from_json, b'{"device_id": "' + str(ONE).encode() + b'", "time": true}'),
        (NodeRecord.from_json, b'{"device_id": "' + str(ONE).encode() + b'", "time": 1, "instance": "short"}'),
        (StoreRecord.from_json, b'{"format": "untrusted_s3", "version": 1}'),
        (StoreRecord.from_json, b'{"format": "untrusted_s3", "version": 1, "store_id": "0123"}'),
        (StoreRecord.from_json, b'{"format": "untrusted_s3", "version": 1, "store_id": 5}'),
        (StoreRecord.from_json, b"[" * 100_000),
        (StoreRecord.from_json, b" " * (4 << 20) + b"{}"),
        (StoreRecord.from_json, b"\xff\xfe"),
    ],
)
async def test_damage_is_told_with_the_key(from_json: Callable[[dict[str, Any]], Any], body: bytes) -> None:
    bucket = MemoryBucket()
    bucket.objects["some/key.json"] = body
    with pytest.raises(DataError, match=r"some/key\.json"):
        await read_record(bucket, "some/key.json", from_json)


DEVICE_ID = str(ONE)
LOSS = LossRecord(4, ONE, 1_700_000_000, 8, (LostSegments(2, 3, 7, 5),), (), Forgotten(9, 40, 6), Claimed(8, 30, 20))
RECORDS: list[tuple[FromJSON, dict[str, Any]]] = [
    (StoreRecord.from_json, StoreRecord("0123456789abcdef" * 2).to_json()),
    (PeerRecord.from_json, PeerRecord(ONE, "name", ("tcp://192.0.2.1:22000",), ("folder",)).to_json()),
    (PeerRecord.from_json, PeerRecord(ONE, read_only=True, folders=("folder",)).to_json()),
    (NodeRecord.from_json, NodeRecord(ONE, "name", 1_700_000_000, "0123456789abcdef" * 2).to_json()),
    (FolderRecord.from_json, FolderRecord("folder", "label", b"token", 7, removed=True, created_by=ONE).to_json()),
    (LossRecord.from_json, LOSS.to_json()),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
TYPES: dict[str, Any] = {"store_id": str, "device_id": DeviceID, "name": str, "time": int, "instance": str}
TYPES |= {"folder_id": str, "label": str, "token": bytes, "index_id": int, "removed": bool, "addresses": tuple}
TYPES |= {"share": tuple, "read_only": bool, "untrusted": bool, "folders": (tuple, type(None))}
TYPES |= {
    "created_by": (DeviceID, type(None)),
    "position": int,
    "writer": DeviceID,
    "segments": tuple,
    "damaged": tuple,
}
TYPES |= {"forgotten": (Forgotten, type(None)), "claimed": (Claimed, type(None)), "loss_id": str}


@settings(max_examples=300, deadline=None)
@given(record=st.sampled_from(RECORDS), data=st.data())
def test_a_mutated_record_is_read_with_the_right_types_or_is_damage(
    run_async: RunAsync, record: tuple[FromJSON, dict[str, Any]], data: st.DataObject
) -> None:
    from_json, value = record
    name = data.draw(st.sampled_from(sorted(value)))
    mutated = dict(value)
    if data.draw(st.booleans()):
        del mutated[name]
    else:
        mutated[name] = data.draw(JSON)
    bucket = MemoryBucket()
    bucket.objects["some/key.json"] = json.dumps(mutated).encode()
    try:
        read = run_async(read_record(bucket, "some/key.json", from_json))
    except DataError as error:
        assert "some/key.json" in str(error) or "store" in str(error)
        return
    assert read is not None
    for field in dataclasses.fields(read):
        found = getattr(read, field.name)
        assert isinstance(found, TYPES[field.name])
        assert isinstance(found, bool) == (TYPES[field.name] is bool)
    assert from_json(json.loads(json.dumps(read.to_json()))) == read


@settings(deadline=None)
@given(record=st.sampled_from(RECORDS), data=st.data())
def test_a_mutated_text_is_a_record_or_damage(
    run_async: RunAsync, record: tuple[FromJSON, dict[str, Any]], data: st.DataObject
) -> None:
    from_json, value = record
    body = bytearray(json.dumps(value).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    bucket = MemoryBucket()
    bucket.objects["key"] = bytes(body)
    with contextlib.suppress(DataError):
        assert run_async(read_record(bucket, "key", from_json)) is not None


@pytest.mark.parametrize(
    ("from_json", "body", "expected"),
    [
        (PeerRecord.from_json, f'{{"device_id": "{DEVICE_ID}"}}', PeerRecord(ONE)),
        (PeerRecord.from_json, f'{{"device_id": "{DEVICE_ID}", "name": "\\ud800"}}', PeerRecord(ONE, "?")),
        (PeerRecord.from_json, f'{{"name": 5, "device_id": "{DEVICE_ID}", "name": "a"}}', PeerRecord(ONE, "a")),
        (NodeRecord.from_json, f'{{"device_id": "{DEVICE_ID}", "time": 5}}', NodeRecord(ONE, "", 5, "")),
        (
            FolderRecord.from_json,
            '{"id": "f", "index_id": "00000000000000ff", "password_token": "dA==", "later": [1]}',
            FolderRecord("f", "", b"t", 255),
        ),
    ],
)
async def test_records_of_older_and_newer_programs_are_read(from_json: FromJSON, body: str, expected: object) -> None:
    bucket = MemoryBucket()
    bucket.objects["key"] = body.encode()
    assert await read_record(bucket, "key", from_json) == expected


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
        "version": 2,
        "store_id": first.store_id,
    }


async def test_a_store_of_version_1_becomes_one_of_version_2_when_a_gateway_opens_it() -> None:
    bucket = MemoryBucket()
    old = {"format": "untrusted_s3", "version": 1, "store_id": "0123456789abcdef" * 2}
    await write_record(bucket, layout.STORE, old)
    assert await open_store(bucket) == StoreRecord(str(old["store_id"]), 1)
    assert json.loads(bucket.objects[layout.STORE]) == old, "a reader writes nothing"
    assert await open_store(bucket, upgrade=True) == StoreRecord(str(old["store_id"]), 2)
    assert json.loads(bucket.objects[layout.STORE]) == {**old, "version": 2}


@pytest.mark.parametrize(
    ("value", "message"),
    [({"format": "x"}, "another"), ({"format": "untrusted_s3", "version": 3}, "newer")],
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
    found = await read_folders(bucket)
    assert found == sorted(folders, key=lambda folder: folder.folder_id)
    assert [problem.path for problem in found.unreadable] == ["folders/no-record/folder.json"]
    assert sorted(await read_peers(bucket), key=lambda peer: peer.name) == peers


FOREIGN = ["peers/.DS_Store", "peers/My Laptop.json", "peers/sub/readme.txt", "folders/My Photos/readme.txt"]
FOREIGN += ["folders/.DS_Store", "folders/ä/folder.json", "folders/photos/notes.txt", "peers/", "folders/x/y/z"]
NAMES = st.sampled_from(["a", "b", "my-photos", "_" + "0" * 32])


@given(
    strays=st.dictionaries(st.sampled_from(FOREIGN), st.binary(max_size=9), max_size=5),
    damaged=st.dictionaries(
        NAMES.map("folders/{}/folder.json".format) | NAMES.map("peers/{}.json".format),
        st.binary(min_size=1, max_size=50) | JSON.map(lambda value: json.dumps(value).encode()),
        max_size=4,
    ),
)
def test_what_is_readable_is_read_and_the_rest_is_named(
    run_async: RunAsync, strays: dict[str, bytes], damaged: dict[str, bytes]
) -> None:
    """No object below peers/ or folders/ keeps the others from being read."""
    folder, peer = FolderRecord("f", "label", b"token"), PeerRecord(ONE, "name")
    bucket = MemoryBucket()
    bucket.objects = {**strays, **damaged}

    async def read() -> None:
        await write_record(bucket, layout.FolderKeys.of("f").record, folder.to_json())
        await write_record(bucket, layout.peer_key(ONE), peer.to_json())
        folders, peers = await read_folders(bucket), await read_peers(bucket)
        assert (list(folders), list(peers)) == ([folder], [peer])
        named = {problem.path for problem in folders.unreadable + peers.unreadable}
        assert (
            damaged.keys()
            <= named
            <= bucket.objects.keys() | {layout.FolderKeys(f"folders/{name}/").record for name in ("My Photos", "ä")}
        )

    run_async(read())


async def test_a_record_that_was_copied_to_another_key_is_unreadable() -> None:
    bucket = MemoryBucket()
    await write_record(bucket, layout.peer_key(ONE), PeerRecord(OTHER).to_json())
    await write_record(bucket, layout.FolderKeys.of("a").record, FolderRecord("b", "", b"token").to_json())
    folders, peers = await read_folders(bucket), await read_peers(bucket)
    assert (list(folders), list(peers)) == ([], [])
    assert layout.peer_key(OTHER) in peers.unreadable[0].reason
    assert [problem.path for problem in folders.unreadable] == ["folders/a/folder.json"]


@pytest.mark.parametrize("kind", [NoSuchBucket, CredentialsRefused, StoreUnreachable])
async def test_a_store_that_fails_is_no_unreadable_record(kind: type[StoreError]) -> None:
    bucket = RefusingBucket(kind, is_away=True)
    await bucket.put(layout.peer_key(ONE), [b"{}"])
    with pytest.raises(kind):
        await read_peers(bucket)


@pytest.mark.parametrize("kind", [StoreRefused, StoreUnreachable])
async def test_an_object_that_the_store_does_not_give_is_an_unreadable_record(kind: type[StoreError]) -> None:
    bucket = RefusingBucket(kind)
    await bucket.put(layout.peer_key(ONE), [b"{}"])
    assert [problem.path for problem in (await read_peers(bucket)).unreadable] == [layout.peer_key(ONE)]


class RefusingBucket(MemoryBucket):
    """Lists its objects and gives none."""

    def __init__(self, kind: type[StoreError], *, is_away: bool = False) -> None:
        super().__init__()
        self._kind = kind
        self._is_away = is_away

    async def size(self, key: str) -> int | None:
        if self._is_away:
            raise self._kind("no")
        return await super().size(key)

    async def get(self, key: str, start: int = 0, size: int | None = None, *, max_size: int = 128 << 20) -> bytes:
        raise self._kind("no")


@pytest.mark.parametrize("body", [None, b""], ids=["missing", "no bytes"])
@pytest.mark.parametrize("other", ["log/00000000000000000001", "checkpoints/00000000000000000007"])
async def test_a_lost_record_is_not_replaced_while_its_folder_has_a_log(body: bytes | None, other: str) -> None:
    bucket = MemoryBucket()
    keys = layout.FolderKeys.of("f")
    fresh = FolderRecord("f", "label", b"token")
    if body is not None:
        bucket.objects[keys.record] = body
    bucket.objects[keys.base + other] = b"anything"
    before = dict(bucket.objects)
    with pytest.raises(DataError, match=f"{keys.record} .*has a log"):
        await create_folder(bucket, fresh)
    assert bucket.objects == before
    del bucket.objects[keys.base + other]
    assert await create_folder(bucket, fresh) == fresh
    bucket.objects[keys.base + other] = b"anything"
    assert await create_folder(bucket, FolderRecord("f", "other", b"other")) == fresh


async def test_a_folder_that_another_gateway_creates_meanwhile_is_taken() -> None:
    keys = layout.FolderKeys.of("f")
    theirs = FolderRecord("f", "theirs", b"token")

    class Slow(MemoryBucket):
        async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectSummary]:
            self.objects[keys.record] = json.dumps(theirs.to_json()).encode()
            self.objects[keys.segment(1)] = b"a segment"
            async for item in super().list(prefix, start_after):
                yield item

    assert await create_folder(Slow(), FolderRecord("f", "ours", b"token")) == theirs
