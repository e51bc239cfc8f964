"""Local files as a sequence of parts, several under way at once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TypeVar

from untrusted_s3.read_ahead import read_ahead
from untrusted_s3.threads import in_thread_to_the_end

Result = TypeVar("Result")
Range = tuple[int, int]


async def send_parts(
    path: Path, parts: Sequence[Range], send: Callable[[int, bytes], Awaitable[Result]], concurrency: int
) -> list[Result]:
    """Read parts of a file, call `send` with the number (from 1) and the bytes of each, and return its results.

    If `send` raises, the calls under way are cancelled.
    """

    async def read_and_send(number: int, part: Range) -> Result:
        return await send(number, await in_thread_to_the_end(_read, path, *part))

    work = (read_and_send(number, part) for number, part in enumerate(parts, 1))
    async with aclosing(read_ahead(work, concurrency)) as results:
        return [result async for result in results]


async def receive_parts(
    path: Path, parts: Sequence[Range], receive: Callable[[int, int], Awaitable[bytes]], concurrency: int
) -> None:
    """Write a file from parts in order; `receive` gets the beginning and the end of each and returns its bytes."""

    async def fetch(part: Range) -> bytes:
        return await receive(*part)

    with path.open("wb") as file:
        async with aclosing(read_ahead((fetch(part) for part in parts), concurrency)) as bodies:
            async for body in bodies:
                await in_thread_to_the_end(file.write, body)


def _read(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)
