"""Copies small things: records, and what is as small, under one key or below a prefix."""

from __future__ import annotations

from untrusted_s3.errors import DeletionDenied, NoSuchKey
from untrusted_s3.replication.kinds import Kept
from untrusted_s3.store.bucket import Bucket


async def copy_small(source: Bucket, target: Bucket, place: str, kept: Kept) -> None:
    """Copy what is at a key or, if `place` ends in a slash, below a prefix; change and delete where it is mirrored.

    Where the credentials may not delete, a record of no bytes is written instead, which counts as none. Raises
    StoreError.
    """
    there = {item.key: item.size async for item in target.list(place) if _is_at(place, item.key)}
    found = set()
    async for item in source.list(place):
        if not _is_at(place, item.key) or (there.get(item.key) and kept is not Kept.MIRRORED):
            found.add(item.key)
            continue
        try:
            body = await source.get(item.key)
        except NoSuchKey:
            continue  # deleted meanwhile
        found.add(item.key)
        if there.get(item.key) != len(body) or await target.get(item.key) != body:
            await target.put(item.key, [body])
    for key in there.keys() - found if kept is Kept.MIRRORED else ():
        if there[key]:
            await _remove(target, key)


def _is_at(place: str, key: str) -> bool:
    return place.endswith("/") or key == place


async def _remove(target: Bucket, key: str) -> None:
    try:
        await target.delete(key)
    except DeletionDenied:
        await target.put(key, [b""])
