"""Keys: safe on every server, distinct for distinct things."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import UsageError
from untrusted_s3.store import layout
from untrusted_s3.store.format import MAX_CHECKPOINT_POSITION, MAX_POSITION
from untrusted_s3.store.layout import FolderKeys, StoreLocation, folder_segment, name_hash

SAFE_SEGMENT = re.compile(r"[0-9A-Za-z._-]{1,255}")
HASHES = st.text("0123456789abcdef", min_size=32, max_size=32)


def assert_safe(key: str) -> None:
    for segment in key.split("/"):
        assert SAFE_SEGMENT.fullmatch(segment) and segment not in (".", ".."), key
    assert len(key) < 1024


@given(folder_id=st.text(), name=st.text(), content_hash=HASHES, position=st.integers(1, 10**20 - 1))
def test_every_key_is_safe(folder_id: str, name: str, content_hash: str, position: int) -> None:
    keys = FolderKeys.of(folder_id)
    for key in (
        keys.record,
        keys.segment(position),
        keys.checkpoint(position),
        keys.object(name, content_hash),
        keys.damaged_segment(position, name.encode(errors="replace")),
        keys.loss(position, content_hash),
        keys.garbage_record(content_hash),
        keys.garbage_swept(content_hash),
    ):
        assert_safe(key)
        assert key.startswith(keys.base)
        assert keys.base + keys.relative(key) == key


def test_keys_of_losses_are_told_from_foreign_ones() -> None:
    keys = FolderKeys.of("f")
    key = keys.loss(7, "a" * 32)
    assert key == f"folders/f/losses/{7:020d}-{'a' * 32}.json"
    assert keys.is_loss(key)
    for other in (key + "x", key.upper(), keys.losses, keys.loss(7, "a/.." + "a" * 28), "folders/g" + key[9:]):
        assert not keys.is_loss(other), other
    assert layout.is_damaged_name(keys.damaged_segment(7, b"body").removeprefix(keys.damaged_segments))
    assert not layout.is_damaged_name("../" + "a" * 50)


def test_keys_of_garbage_are_told_from_foreign_ones() -> None:
    keys = FolderKeys.of("f")
    assert keys.garbage_record("a" * 32) == f"folders/f/garbage/{'a' * 32}.json"
    assert keys.parse_garbage(keys.garbage_record("a" * 32)) == ("a" * 32, False)
    assert keys.parse_garbage(keys.garbage_swept("a" * 32)) == ("a" * 32, True)
    for other in (keys.garbage, keys.garbage_record("a" * 31), keys.garbage_record("A" * 32), "folders/g/garbage/"):
        assert keys.parse_garbage(other) is None, other


def test_name_hash() -> None:
    name = "0.syncthing-enc/AB/CDEF"
    assert name_hash(name) == hashlib.sha256(name.encode("utf-8")).hexdigest()[:32]


@given(name=st.text(), content_hash=HASHES)
def test_keys_of_objects(name: str, content_hash: str) -> None:
    keys, hashed = FolderKeys.of("f"), name_hash(name)
    assert keys.object(name, content_hash) == f"folders/f/objects/{hashed[:2]}/{hashed}/{content_hash}"
    assert keys.object(name, content_hash) == keys.objects_of(name) + content_hash


@given(st.binary(min_size=32, max_size=32).map(DeviceID))
def test_keys_of_devices_are_safe(device_id: DeviceID) -> None:
    assert_safe(layout.peer_key(device_id))
    assert_safe(layout.node_key(device_id))
    assert layout.peer_key(device_id).startswith(layout.PEERS)
    assert layout.node_name(layout.node_key(device_id)) == str(device_id)


@given(st.from_regex(r"[0-9A-Za-z-][0-9A-Za-z._-]{0,63}", fullmatch=True))
def test_keys_of_identities_are_safe(name: str) -> None:
    assert_safe(layout.identity_key(name))


@given(st.text(), st.text())
def test_folders_do_not_share_keys(one: str, other: str) -> None:
    assert (folder_segment(one) == folder_segment(other)) == (one == other)


@pytest.mark.parametrize("folder_id", ["default", "abcd1-efgh2", "a.b", "A_b", "0", "x" * 64])
def test_usual_folder_ids_are_their_own_segment(folder_id: str) -> None:
    assert folder_segment(folder_id) == folder_segment(folder_id) == folder_id


@pytest.mark.parametrize("folder_id", ["", ".", "..", ".hidden", "_" + "0" * 32, "a/b", "a b", "ü", "x" * 65, "a\n"])
def test_other_folder_ids_are_hashed(folder_id: str) -> None:
    assert re.fullmatch("_[0-9a-f]{32}", folder_segment(folder_id))


@given(st.integers(1, 10**20 - 1), st.integers(1, 10**20 - 1))
def test_positions_sort_as_texts(one: int, other: int) -> None:
    keys = FolderKeys.of("f")
    assert (keys.segment(one) < keys.segment(other)) == (one < other)


@given(st.integers(1, MAX_POSITION))
def test_positions_are_read_back(position: int) -> None:
    keys = FolderKeys.of("f")
    assert keys.segment_position(keys.segment(position)) == position
    checkpoint = keys.checkpoint_position(keys.checkpoint(position))
    assert checkpoint == (position if position <= MAX_CHECKPOINT_POSITION else None)
    assert keys.segment_position(keys.checkpoint(position)) is None
    assert keys.checkpoint_position(keys.segment(position)) is None
    assert FolderKeys.of("other").segment_position(keys.segment(position)) is None


@pytest.mark.parametrize(
    "last",
    [
        "",
        "1",
        "0" * 19,
        "0" * 21,
        "-" + "0" * 19,
        "0" * 19 + "x",
        "0" * 20,
        f"{MAX_POSITION + 1:020d}",
        "9" * 20,
        "٣" * 20,
        "0" * 20 + "/",
        "0" * 20 + ".tmp",
    ],
)
def test_a_stranger_among_positions_is_not_taken_for_one(last: str) -> None:
    keys = FolderKeys.of("f")
    assert keys.segment_position(keys.segments + last) is None
    assert keys.checkpoint_position(keys.checkpoints + last) is None


@pytest.mark.parametrize(
    ("url", "bucket", "prefix", "text"),
    [
        ("s3://bucket", "bucket", "", "s3://bucket"),
        ("s3://bucket/", "bucket", "", "s3://bucket"),
        ("s3://my.bucket-1/a/b_c", "my.bucket-1", "a/b_c/", "s3://my.bucket-1/a/b_c"),
        ("s3://bucket/a/", "bucket", "a/", "s3://bucket/a"),
    ],
)
def test_locations(url: str, bucket: str, prefix: str, text: str) -> None:
    location = StoreLocation.parse(url)
    assert (location.bucket, location.prefix, str(location)) == (bucket, prefix, text)
    assert StoreLocation.parse(str(location)) == location


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bucket",
        "s3:bucket",
        "s3://",
        "s3:///prefix",
        "https://bucket/prefix",
        "s3://Bucket",
        "s3://b",
        "s3://bucket/a//b",
        "s3://bucket/../b",
        "s3://bucket/a b",
        "s3://bucket/ü",
        "s3://bucket?x=1",
        "s3://bucket#x",
        "s3://[",
        "s3://user@bucket",
        "s3://bucket:80",
    ],
)
def test_what_is_no_location_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        StoreLocation.parse(url)


@given(st.text())
def test_any_text_is_a_location_or_a_usage_error(text: str) -> None:
    try:
        location = StoreLocation.parse("s3://" + text)
    except UsageError:
        return
    assert location.prefix == "" or location.prefix.endswith("/")
    assert_safe(f"{location.prefix}x")
