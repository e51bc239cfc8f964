"""Loading what a store still has of a log that has lost segments or checkpoints (index/log.py, rule 7)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from untrusted_s3.errors import DataError, NoSuchKey, SegmentDamaged, StoreUnreachable, UnknownFormat
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.log_end import ranges
from untrusted_s3.index.segment import decode_segment
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_segments

_logger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What was not there, or could not be read.

    Attributes:
        losses: What is lost, a text for each gap; nothing if there is no gap.
        kept: The keys of copies of the segments that cannot be used, by their positions.
    """

    losses: tuple[str, ...]
    kept: Mapping[int, str]


async def salvage(
    bucket: Bucket, keys: FolderKeys, reader: SegmentReader, state: FolderState, *, check_entries: bool
) -> Salvaged:
    """Replace the state by what the store has: the newest readable checkpoint, and every readable segment after it.

    Segments behind a gap count, for what they say is true; what the missing ones said is not known. The position of the
    state is then that of the last segment, readable or not. Segments that are damaged or contradict those before them
    are copied to keys of their own. Raises UnknownFormat, for a newer program may read what this one cannot, and
    StoreError.
    """
    state.clear()
    checkpoints = sorted(await list_checkpoints(bucket, keys), reverse=True)
    for position in checkpoints:
        try:
            await read_checkpoint(bucket, keys, position, state, check_entries=check_entries)
            break
        except UnknownFormat:
            raise
        except (NoSuchKey, DataError) as error:
            _logger.error("checkpoint unreadable", position=position, error=str(error))
    listed = await list_segments(bucket, keys, after=state.position)
    losses: list[str] = []
    kept: dict[int, str] = {}
    async with contextlib.aclosing(reader.read_each(listed)) as segments:
        async for position, segment in segments:
            if isinstance(segment, UnknownFormat):
                raise segment
            if segment is None or isinstance(segment, DataError):
                _logger.error("log segment unreadable", position=position, error=str(segment or "it is gone"))
                if segment is not None:
                    await _keep(bucket, keys, position, kept)
                continue
            first, sequence = state.position + 1, state.sequence
            try:
                if position == first:
                    state.apply(position, segment)
                    continue
            except DataError:
                pass  # another history than that of the segments before it
            try:
                state.apply(position, segment, follows=False)
            except DataError as error:
                _logger.error("log segment contradicts those before it", position=position, error=str(error))
                await _keep(bucket, keys, position, kept, is_readable=True)
                continue
            losses.append(_loss(first, position - 1, segment.first_sequence - 1 - sequence))
    last = max(listed.last, *checkpoints[:1], 0)
    if state.position < last:
        losses.append(_loss(state.position + 1, last, 0))
        state.skip(last)
    return Salvaged(tuple(losses), kept)


async def remove_kept(bucket: Bucket, keys: FolderKeys, kept: Mapping[int, str]) -> None:
    """Delete the segments of which `salvage` has made copies, unless something else is in their places by now.

    A checkpoint must cover them. Raises StoreError.
    """
    for position, copy in kept.items():
        key = keys.segment(position)
        with contextlib.suppress(NoSuchKey):
            if keys.damaged_segment(position, await bucket.get(key)) == copy:
                await bucket.delete(key)
                _logger.warning("damaged log segment moved", key=key, to=copy)


async def _keep(
    bucket: Bucket, keys: FolderKeys, position: int, kept: dict[int, str], *, is_readable: bool = False
) -> None:
    """Copy a segment to a key of its own."""
    key = keys.segment(position)
    try:
        body = await bucket.get(key)
    except NoSuchKey:
        return
    if _is_readable(body, key) != is_readable:
        raise StoreUnreachable(f"{key} is another one each time that it is read")
    copy = keys.damaged_segment(position, body)
    await bucket.put(copy, [body])
    kept[position] = copy


def _is_readable(body: bytes, key: str) -> bool:
    try:
        decode_segment(body, key)
    except SegmentDamaged:
        return False
    return True


def _loss(first: int, last: int, entries: int) -> str:
    if last < first:
        return f"segments before {first} that the one there continues"
    known = f" with {entries} entries" if entries else ""
    return f"segment{'s' if last > first else ''} {ranges([range(first, last + 1)])}{known}"
