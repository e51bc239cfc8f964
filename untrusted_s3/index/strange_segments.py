"""Objects in the places of log segments that no gateway wrote: they are kept under keys of their own, and then deleted.

They may have any size, so no more than a part of one is read, and the store copies the bytes itself.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping

import structlog

from untrusted_s3.errors import (
    AnswerTooLong,
    AnswerTooShort,
    NoSuchKey,
    PreconditionFailed,
    SegmentDamaged,
    StoreError,
    StoreUnreachable,
)
from untrusted_s3.index.segment import decode_segment
from untrusted_s3.index.stalled_writers import StalledWriters
from untrusted_s3.store.bucket import MAX_WHOLE_OBJECT, Bucket
from untrusted_s3.store.layout import FolderKeys, is_damaged_name
from untrusted_s3.store.listing import MAX_SEGMENTS, up_to
from untrusted_s3.store.multipart import part_ranges, part_size
from untrusted_s3.store.positions import Positions
from untrusted_s3.units import MIB

_READ_AT_ONCE = 8 * MIB
_COPIED_AT_ONCE = 64 * MIB

_logger = structlog.get_logger()


async def keep_segment(bucket: Bucket, keys: FolderKeys, position: int, *, is_readable: bool) -> str | None:
    """Copy the object in the place of a segment. Return the copy's key, or None if the object is gone.

    `is_readable` says whether it was a whole segment when it was read. Raises StoreError.
    """
    key = keys.segment(position)
    try:
        body = await bucket.get(key)
    except NoSuchKey:
        return None
    except AnswerTooLong:
        if is_readable:
            raise _changing(key) from None
        return await keep_any(bucket, keys, key, position)
    if _is_readable(body, key) != is_readable:
        raise _changing(key)
    copy = keys.damaged_segment(position, body)
    await bucket.put(copy, [body])
    return copy


async def keep_any(bucket: Bucket, keys: FolderKeys, key: str, position: int) -> str | None:
    """Copy an object whatever it is. Return the copy's key, or None if the object is gone. Raises StoreError."""
    copy = await _copy_key(bucket, keys, key, position)
    size = await bucket.size(key)
    if copy is None or size is None:
        return None
    try:
        if size <= MAX_WHOLE_OBJECT:
            await bucket.put(copy, [await bucket.get(key)])
        else:
            await _copy_parts(bucket, key, size, copy)
    except NoSuchKey:
        return None
    return copy


async def remove_kept(bucket: Bucket, keys: FolderKeys, kept: Mapping[str, str]) -> None:
    """Delete objects of which there are copies, unless something else is in their places by now.

    `kept` has the keys of copies by those of the objects. A checkpoint must cover their positions. Raises StoreError.
    """
    for key, copy in kept.items():
        if await _copy_key(bucket, keys, key, keys.damaged_position(copy)) == copy:
            await bucket.delete(key)
            _logger.warning("damaged log segment moved", key=key, to=copy)


async def old_enough(bucket: Bucket, keys: FolderKeys, kept: Mapping[str, str], reached: int) -> dict[str, str]:
    """Return those of `kept` in whose places no stalled writer could write after their deletion.

    The log reaches up to position `reached`: nobody writes where no log reaches. Raises StoreError.
    """
    positions = {key: keys.segment_position(key) or 0 for key in kept}
    stalled = await StalledWriters.look(bucket, keys, [one for one in positions.values() if 0 < one <= reached])
    old = {}
    for key, copy in kept.items():
        reason = stalled.may_write(positions[key])
        if reason is None:
            old[key] = copy
        else:
            _logger.info("damaged log segment stays for now", key=key, reason=reason)
    return old


async def remove_copied(bucket: Bucket, keys: FolderKeys, segments: Positions, checkpoint: int) -> None:
    """Delete segments that were copied before, but were too young to be deleted then.

    `segments` are the positions at which the store has any, `checkpoint` is that of the newest checkpoint. Raises
    StoreError.
    """
    copies: dict[int, list[str]] = {}
    listed = bucket.list(keys.damaged_segments)
    async for item in up_to(MAX_SEGMENTS, listed, keys.damaged_segments):
        if is_damaged_name(item.key.removeprefix(keys.damaged_segments)):
            position = keys.damaged_position(item.key)
            if position <= checkpoint and position in segments:
                copies.setdefault(position, []).append(item.key)
    stalled = await StalledWriters.look(bucket, keys, copies.keys())
    for position, of_position in copies.items():
        if stalled.may_take_for_free(position, checkpoint) is None:
            for copy in of_position:
                await remove_kept(bucket, keys, {keys.segment(position): copy})


async def _copy_key(bucket: Bucket, keys: FolderKeys, key: str, position: int) -> str | None:
    """Return the key for a copy of an object, which tells its content; None if there is no object."""
    size = await bucket.size(key)
    if size is None:
        return None
    content = hashlib.sha256()
    try:
        for start, end in part_ranges(min(size, MAX_WHOLE_OBJECT), _READ_AT_ONCE):
            content.update(await bucket.get(key, start, end - start))
    except (NoSuchKey, AnswerTooShort):
        return None
    if size > MAX_WHOLE_OBJECT:
        content.update(size.to_bytes(8, "big"))
    return keys.damaged(position, content.hexdigest())


async def _copy_parts(bucket: Bucket, key: str, size: int, copy: str) -> None:
    upload_id = await bucket.create_multipart_upload(copy)
    try:
        etags = [
            await bucket.upload_part_copy(copy, upload_id, number, key, start, end)
            for number, (start, end) in enumerate(part_ranges(size, part_size(size, _COPIED_AT_ONCE)), 1)
        ]
        await bucket.complete_multipart_upload(copy, upload_id, etags)
    except BaseException as error:
        with contextlib.suppress(StoreError):
            await bucket.abort_multipart_upload(copy, upload_id)
        if not isinstance(error, PreconditionFailed):  # else another gateway has kept it
            raise


def _is_readable(body: bytes, key: str) -> bool:
    try:
        decode_segment(body, key)
    except SegmentDamaged:
        return False
    return True


def _changing(key: str) -> StoreUnreachable:
    return StoreUnreachable(f"{key} is another one each time that it is read")
