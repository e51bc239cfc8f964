"""How late the event loop runs what is due: a long step of one task delays all peers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def measure_lag(observe: Callable[[float], None], interval: float) -> None:
    """Observe every `interval` seconds by how many seconds the event loop was late, until cancelled.

    A delay of several intervals counts once for each of them, so that shares of the observations are shares of time.
    """
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + interval
        await asyncio.sleep(interval)
        late = max(loop.time() - due, 0.0)
        observe(late)
        while (late := late - interval) > 0:
            observe(late)
