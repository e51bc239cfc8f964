"""Directories and threads of a simulation."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

Result = TypeVar("Result")


@contextmanager
def fast_directory() -> Iterator[Path]:
    """Provide a temporary directory, in memory if the system has one there."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)


@contextmanager
def inline_threads() -> Iterator[None]:
    """Run in the loop what would go to a thread, so that the schedule alone decides what happens."""

    async def inline(function: Callable[..., Result], *args: Any, **parameters: Any) -> Result:
        return function(*args, **parameters)

    with mock.patch("asyncio.to_thread", inline):
        yield
