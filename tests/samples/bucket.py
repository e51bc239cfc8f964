"""A stored sample as a bucket."""

from __future__ import annotations

from pathlib import Path

from tests.store.memory_bucket import MemoryBucket

_SAMPLES = Path(__file__).parent


def sample_bucket(version: str) -> MemoryBucket:
    """Return a bucket in memory with the objects of a sample."""
    root = _SAMPLES / version
    bucket = MemoryBucket()
    for path in root.rglob("*"):
        if path.is_file():
            bucket.objects[path.relative_to(root).as_posix()] = path.read_bytes()
    return bucket
