"""Reading log segments from the bucket, one or many."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass

from untrusted_s3.errors import AnswerTooLong, DataError, NoSuchKey, SegmentDamaged, StoreError
from untrusted_s3.index.segment import MAGIC, Segment, decode_segment, too_large
from untrusted_s3.read_ahead import read_ahead
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.threads import in_thread_to_the_end


@dataclass(frozen=True, slots=True)
class SegmentRead:
    """What is at one position of the log.

    Attributes:
        position: The position.
        segment: The segment, or None where there is no object.
        size: The bytes of the object.
        asked_at: The reader's clock before the request.
    """

    position: int
    segment: Segment | None
    size: int
    asked_at: float


class SegmentReader:
    """A reader of the log of one folder."""

    def __init__(
        self, bucket: Bucket, keys: FolderKeys, settings: LogSettings, clock: Callable[[], float] = time.time
    ) -> None:
        self._bucket = bucket
        self._keys = keys
        self._settings = settings
        self._clock = clock

    async def read(self, position: int) -> SegmentRead:
        """Read one segment. What seems to be damaged is read a second time.

        Raises SegmentDamaged, UnknownFormat and StoreError.
        """
        try:
            return await self._read(position)
        except SegmentDamaged:
            return await self._read(position)

    async def _read(self, position: int) -> SegmentRead:
        asked_at = self._clock()
        key = self._keys.segment(position)
        try:
            try:
                body = await self._bucket.get(key)
            except AnswerTooLong as error:
                raise too_large(await self._bucket.get(key, 0, len(MAGIC)), key) from error
        except NoSuchKey:
            return SegmentRead(position, None, 0, asked_at)
        if len(body) > self._settings.large_segment:
            segment = await in_thread_to_the_end(decode_segment, body, key)
        else:
            segment = decode_segment(body, key)
        return SegmentRead(position, segment, len(body), asked_at)

    async def read_after(self, position: int, depth: int | None = None) -> AsyncGenerator[SegmentRead, None]:
        """Read all segments after a position, in order, and last the first position where there is none.

        `depth` segments are read at once; by default as many as the settings say. Raises what `read` raises, after the
        segments before. Close the iterator (`contextlib.aclosing`) where it may not come to its end.
        """
        ended = False

        async def read(position: int) -> SegmentRead:
            nonlocal ended
            found = await self.read(position)
            ended = ended or found.segment is None
            return found

        positions = itertools.takewhile(lambda _: not ended, itertools.count(position + 1))
        async with contextlib.aclosing(
            read_ahead(map(read, positions), depth or self._settings.read_ahead)
        ) as segments:
            async for found in segments:
                if found.segment is not None:
                    yield found
                    continue
                # To cancel a request closes its connection. Those under way end about now.
                with contextlib.suppress(StoreError, DataError):
                    async for _ in segments:
                        pass
                yield found
                return

    async def read_each(self, positions: Iterable[int]) -> AsyncGenerator[tuple[int, Segment | DataError | None], None]:
        """Read the segments at some positions, in order: each one, None where there is none, or what is wrong with it.

        Raises StoreError.
        """

        async def read(position: int) -> tuple[int, Segment | DataError | None]:
            try:
                return position, (await self.read(position)).segment
            except DataError as error:
                return position, error

        async with contextlib.aclosing(read_ahead(map(read, positions), self._settings.read_ahead)) as segments:
            async for found in segments:
                yield found
