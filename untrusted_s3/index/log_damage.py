"""What of a folder's log is damaged in the store, while the local state has what it said.

Nothing is lost then, but who has no such state cannot read it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import structlog

from untrusted_s3.errors import DataError, UnknownFormat
from untrusted_s3.index.segment import EMPTY_SEGMENT
from untrusted_s3.index.segment_reader import SegmentReader
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints

_logger = structlog.get_logger()


class LogDamage:
    """The damage that was found in the log of one folder. `clock` is the store's, in seconds since 1970."""

    def __init__(self, bucket: Bucket, keys: FolderKeys, clock: Callable[[], float]) -> None:
        self._bucket = bucket
        self._keys = keys
        self._clock = clock
        # What is wrong at these positions, and when a checkpoint was found damaged.
        self._segments: dict[int, str] = {}
        self._checkpoints: dict[int, tuple[str, float]] = {}

    @property
    def texts(self) -> list[str]:
        """What is damaged, with the keys."""
        checkpoints = [text for _, (text, _) in sorted(self._checkpoints.items())]
        return checkpoints + [text for _, text in sorted(self._segments.items())]

    def checkpoint_found(self, position: int, error: DataError) -> None:
        """Note that a checkpoint is damaged."""
        key, text = self._keys.checkpoint(position), str(error)
        self._checkpoints[position] = (text if key in text else f"{key}: {text}", self._clock())

    def clear(self) -> None:
        """Forget all of it: the log is renewed, and what is lost is written down."""
        self._segments.clear()
        self._checkpoints.clear()

    async def look(self, reader: SegmentReader, first: int, last: int) -> list[int]:
        """Read the segments at positions from `first` to `last`, and return the positions of damaged ones.

        A segment that does not continue the one before it is damaged too. Damage that was found before, and is not
        there any more, is forgotten. Raises StoreError.
        """
        await self._forget_mended()
        damaged, due = [], 0
        async with contextlib.aclosing(reader.read_each(range(first, last + 1))) as segments:
            async for position, segment in segments:
                if segment is None or segment is EMPTY_SEGMENT or isinstance(segment, UnknownFormat):
                    continue
                is_wrong = isinstance(segment, DataError) or (due and segment.first_sequence != due)
                if not isinstance(segment, DataError):
                    due = segment.last_sequence + 1
                if is_wrong:
                    text = str(segment) if isinstance(segment, DataError) else "it does not follow the one before it"
                    _logger.error("log segment unreadable", position=position, error=text)
                    damaged.append(position)
                    key = self._keys.segment(position)
                    self._segments[position] = text if key in text else f"{key}: {text}"
                else:
                    self._segments.pop(position, None)
        return damaged

    async def _forget_mended(self) -> None:
        """Forget what was deleted, moved aside, or written again."""
        for position in list(self._segments):
            if await self._bucket.size(self._keys.segment(position)) is None:
                del self._segments[position]
        if self._checkpoints:
            listed, now = await list_checkpoints(self._bucket, self._keys), self._clock()
            self._checkpoints = {
                position: (text, found)
                for position, (text, found) in self._checkpoints.items()
                if position in listed and listed[position].age >= now - found
            }
