"""Objects that entries name and that the store does not have, or has in another size."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Iterable

from untrusted_s3.index.entry import NamedObject
from untrusted_s3.objects.listing import ObjectSizes
from untrusted_s3.read_ahead import read_ahead
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

_CONCURRENT_LOOKS = 16
_AT_ONCE = 1000


async def find_missing(
    bucket: Bucket, keys: FolderKeys, objects: Iterable[NamedObject], limit: float = math.inf
) -> set[NamedObject]:
    """Return those of `objects` that are not in the store with the size that the log states.

    The folder's objects are listed once; what is not in the list is looked at again. `objects` is gone through once,
    with other work between; only those that are missing stay in memory. After about `limit` of them, the rest is left
    out. Raises StoreError: a store that does not answer says nothing about them.
    """
    sizes = ObjectSizes(keys)
    found: set[NamedObject] = set()
    suspects: list[NamedObject] = []
    try:
        await sizes.load(bucket)
        for number, named in enumerate(objects):
            if sizes.get(keys.object_of(named.name_hash, named.object_name)) != named.size and named not in found:
                suspects.append(named)
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
            if len(suspects) == _AT_ONCE:
                found |= await still_missing(bucket, keys, suspects)
                suspects.clear()
                if len(found) >= limit:
                    break
    finally:
        sizes.close()
    return found | await still_missing(bucket, keys, suspects)


async def still_missing(bucket: Bucket, keys: FolderKeys, suspects: Iterable[NamedObject]) -> set[NamedObject]:
    """Look at each of some objects. Return those that are not in the store with the right size. Raises StoreError."""

    async def look(named: NamedObject) -> tuple[NamedObject, bool]:
        return named, await bucket.size(keys.object_of(named.name_hash, named.object_name)) != named.size

    found = set()
    async with contextlib.aclosing(read_ahead(map(look, suspects), _CONCURRENT_LOOKS)) as looks:
        async for named, missing in looks:
            if missing:
                found.add(named)
    return found
