"""Repeating requests to the store. No other module does it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from untrusted_s3.errors import StoreBusy, StoreUnreachable
from untrusted_s3.settings import StoreSettings

Result = TypeVar("Result")

# The share of the timeout after which a failed attempt has taken all of it: clocks and timers differ a little.
_HANGS = 0.9


async def retry(attempt: Callable[[], Awaitable[Result]], settings: StoreSettings) -> Result:
    """Call `attempt` until it does not raise StoreUnreachable; give up after `settings.tries` calls.

    It is not called again once about `settings.timeout` has passed, so that the caller learns soon that a store hangs,
    nor if the store asks for a pause that is longer than that.
    """
    now = asyncio.get_running_loop().time
    began = now()
    for number in range(settings.tries - 1):
        try:
            return await attempt()
        except StoreUnreachable as error:
            pause = error.pause if isinstance(error, StoreBusy) else 0.0
            if now() - began + pause >= _HANGS * settings.timeout:
                raise
        # Full jitter: many writers that failed together must not come back together.
        await asyncio.sleep(pause + random.uniform(0, settings.retry_delay * 2**number))  # noqa: S311
    return await attempt()
