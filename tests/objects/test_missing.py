"""Objects that the store does not have, or has in another size."""

from __future__ import annotations

from collections.abc import Iterator

from tests.simulated import SimulatedBucket
from tests.virtual_time import virtual_time
from untrusted_s3.index.entry import NamedObject
from untrusted_s3.objects.missing import find_missing
from untrusted_s3.store.layout import FolderKeys

pytestmark = virtual_time

KEYS = FolderKeys.of("folder")


def named(number: int) -> NamedObject:
    return NamedObject(number.to_bytes(16, "big"), f"{number:032x}", 5)


async def test_those_that_are_missing_or_have_another_size() -> None:
    bucket = SimulatedBucket()
    for number, size in ((1, 5), (2, 4), (3, 6)):
        bucket.store.put(KEYS.object_of(named(number).name_hash, named(number).object_name), bytes(size))
    objects = [named(number) for number in (1, 2, 3, 4, 4)]
    assert await find_missing(bucket, KEYS, iter(objects)) == {named(2), named(3), named(4)}
    assert bucket.count("list") == 1


async def test_after_so_many_the_rest_is_left_out() -> None:
    asked = 0

    def objects() -> Iterator[NamedObject]:
        nonlocal asked
        for asked in range(1, 3001):
            yield named(asked)

    found = await find_missing(SimulatedBucket(), KEYS, objects(), limit=1500)
    assert len(found) == asked == 2000
