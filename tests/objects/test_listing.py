"""Sizes of objects from one listing."""

from __future__ import annotations

from tests.simulated import SimulatedBucket
from untrusted_s3.objects.listing import ObjectSizes
from untrusted_s3.store.layout import FolderKeys


async def test_sizes_of_a_folders_objects_alone() -> None:
    bucket = SimulatedBucket()
    keys, other = FolderKeys.of("folder"), FolderKeys.of("other")
    first, second, elsewhere = keys.object("a", "0" * 32), keys.object("b", "1" * 32), other.object("a", "0" * 32)
    for key, size in ((first, 3), (second, 0), (elsewhere, 7), (keys.segment(1), 9)):
        bucket.store.put(key, bytes(size))
    sizes = ObjectSizes(keys)
    await sizes.load(bucket)
    assert [sizes.get(key) for key in (first, second, elsewhere, keys.segment(1))] == [3, 0, None, None]
    assert [call.operation for call in bucket.calls] == ["list"]
    sizes.close()
