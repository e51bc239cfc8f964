"""The pipeline by which objects are read: several GETs ahead of the consumer, decrypted in threads, in bounded memory.

All readings share the memory, the GETs and the threads of one pipeline.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from types import TracebackType
from typing import Protocol, Self, TypeVar

from untrusted_s3.accounts import Account, Share
from untrusted_s3.read_ahead import read_ahead
from untrusted_s3.settings import ReadSettings
from untrusted_s3.store.adaptive_limit import AdaptiveLimit

# A GET's share of the memory: its ciphertext and plain text are in memory at once, several GETs are under way, and one
# file may have no more than two thirds of an account.
_LEAST_READS_IN_MEMORY = 16


class ObjectRange(Protocol):
    """A range of an object that is read by one GET."""

    @property
    def size(self) -> int:
        """The bytes of the range."""
        ...


class RangeResult(Protocol):
    """What was made of a range."""

    @property
    def memory(self) -> int:
        """The bytes that it occupies until the consumer goes on; at most twice the size of the range."""
        ...


Range = TypeVar("Range", bound=ObjectRange)
Result = TypeVar("Result", bound=RangeResult)


class ReadPipeline:
    """Reads any number of objects at once.

    Attributes:
        settings: How objects are read.
        read_size: The size that ranges should have: less than that of the settings if the memory is small.
    """

    def __init__(self, settings: ReadSettings) -> None:
        self.settings = settings
        self.read_size = max(1, min(settings.read_size, settings.memory // _LEAST_READS_IN_MEMORY))
        # Each reading is guaranteed one range, so that no consumer can keep others waiting.
        self._memory = Account(settings.memory, guarantee=True)
        self._gets = AdaptiveLimit(settings.concurrent_reads, settings.most_reads, "reads").of(self)
        self._threads = ThreadPoolExecutor(settings.threads or os.cpu_count() or 1, thread_name_prefix="decrypt")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def memory_used(self) -> int:
        """The bytes that are on their way or wait for a consumer."""
        return self._memory.used

    @property
    def most_memory_used(self) -> int:
        """The highest value that `memory_used` has had."""
        return self._memory.most_used

    async def read(
        self,
        ranges: Iterable[Range],
        get: Callable[[Range], Awaitable[bytes]],
        process: Callable[[Range, bytes], Result],
    ) -> AsyncGenerator[Result, None]:
        """Read the ranges of one object and yield the results, in order.

        Args:
            ranges: What to read; iterated lazily.
            get: Reads a range from the store.
            process: Makes the result of a range, in any thread.

        The memory of a result is released when the consumer goes on. Iterate to the end or close the iterator
        (`contextlib.aclosing`): it holds memory for what it has read ahead. An exception of `get` or `process` is
        raised after the results before it.
        """
        following = iter(ranges)
        first, second = next(following, None), next(following, None)
        if first is None:
            return
        # A share for this reading: its demands are granted in order, so that no range waits for a later one.
        with self._memory.share(object()) as share:
            if second is None:  # a small file: there is nothing to read ahead
                result = await self._read_range(first, get, process, share)
                yield result
                share.release(result.memory)
                return
            work = (self._read_range(item, get, process, share) for item in chain((first, second), following))
            async with contextlib.aclosing(read_ahead(work, self.settings.read_ahead)) as results:
                async for result in results:
                    yield result
                    share.release(result.memory)

    async def _read_range(
        self,
        item: Range,
        get: Callable[[Range], Awaitable[bytes]],
        process: Callable[[Range, bytes], Result],
        share: Share,
    ) -> Result:
        held = 2 * item.size
        await share.acquire(held)
        async with self._gets:
            data = await get(item)
        if item.size <= self.settings.small_read_size:
            result = process(item, data)
        else:
            result = await asyncio.get_running_loop().run_in_executor(self._threads, process, item, data)
        share.release(held - result.memory)
        return result
