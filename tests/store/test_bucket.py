"""The seam: buckets for tests keep the same promises as the real one, which tests/store/test_s3.py examines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulated import SimulatedBucket
from tests.store.memory_bucket import MemoryBucket
from untrusted_s3.errors import NoSuchKey, PreconditionFailed
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.s3 import S3Bucket

# mypy checks here that no method of the seam is missing.
REAL: type[Bucket] = S3Bucket
MakeBucket = Callable[[], Bucket]
BUCKETS: list[MakeBucket] = [MemoryBucket, SimulatedBucket]

every_bucket = pytest.mark.parametrize("make", BUCKETS, ids=["memory", "simulated"])


@every_bucket
async def test_bytes_and_ranges(make: MakeBucket) -> None:
    bucket = make()
    await bucket.put("key", [b"0123", memoryview(b"456789")])
    assert await bucket.size("key") == 10
    for start, size in ((0, 1), (9, 1), (5, 0), (7, None), (0, None)):
        assert await bucket.get("key", start, size) == b"0123456789"[start : None if size is None else start + size]


@every_bucket
async def test_what_is_not_there(make: MakeBucket, tmp_path: Path) -> None:
    bucket = make()
    with pytest.raises(NoSuchKey):
        await bucket.get("missing")
    with pytest.raises(NoSuchKey):
        await bucket.download_file("missing", tmp_path / "file")
    assert await bucket.size("missing") is None
    await bucket.delete("missing")
    assert [item async for item in bucket.list("")] == []


@every_bucket
async def test_a_key_is_created_once(make: MakeBucket) -> None:
    bucket = make()
    await bucket.put("key", [b"first"], if_none_match=True)
    with pytest.raises(PreconditionFailed):
        await bucket.put("key", [b"second"], if_none_match=True)
    assert await bucket.get("key") == b"first"
    await bucket.put("key", [b"third"])
    assert await bucket.get("key") == b"third"
    await bucket.delete("key")
    await bucket.put("key", [b"fourth"], if_none_match=True)


@every_bucket
async def test_listings(make: MakeBucket) -> None:
    bucket = make()
    for key in ("a/1", "a/2/x", "a/2/y", "a/3/z", "ab", "b/1"):
        await bucket.put(key, [key.encode()])
    assert {(item.key, item.size, item.age) async for item in bucket.list("a/")} == {
        ("a/1", 3, 0.0),
        ("a/2/x", 5, 0.0),
        ("a/2/y", 5, 0.0),
        ("a/3/z", 5, 0.0),
    }
    assert sorted([name async for name in bucket.list_directories("a/")]) == ["a/2/", "a/3/"]
    assert sorted([name async for name in bucket.list_level("a/")]) == ["a/1", "a/2/", "a/3/"]


@every_bucket
async def test_files(make: MakeBucket, tmp_path: Path) -> None:
    bucket = make()
    (tmp_path / "up").write_bytes(b"content")
    await bucket.upload_file("file", tmp_path / "up")
    await bucket.download_file("file", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == b"content"
