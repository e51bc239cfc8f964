"""A scheduler that chooses the order in which held calls go on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from tests.simulated.calls import Call, Gate, Phase
from tests.simulated.quick_loop import QuickLoop
from tests.virtual_time import VirtualTimeLoop, settled


class Scheduler:
    """Lets calls pass their gates one at a time, in an order that `numbers` (each from 0) determines.

    Whenever nothing else in the loop can go on, the next number chooses a call that goes on or, one time in sixteen,
    one of `others`: something else that happens. After the last number, calls go on in the order in which they came.
    Calls of clients in `stalled` wait until no other call can go on; then `at_standstill` is called, and no client is
    stalled any longer.
    """

    def __init__(
        self,
        numbers: Iterable[int],
        others: Sequence[Callable[[], None]] = (),
        at_standstill: Callable[[], None] = lambda: None,
    ) -> None:
        self.stalled: set[int] = set()
        self._at_standstill = at_standstill
        self._numbers = itertools.chain(numbers, itertools.repeat(0))
        self._others = others
        self._held: list[tuple[int, asyncio.Future[None]]] = []

    def gate(self, client: int = 0) -> Gate:
        """Return the gate for the calls of one client."""

        async def hold(call: Call, phase: Phase) -> None:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._held.append((client, turn))
            await turn

        return hold

    async def run(self, *work: Coroutine[Any, Any, None]) -> None:
        """Run all of `work` to its end. Raises the first error in any of it. Needs a loop with virtual time."""
        loop = asyncio.get_running_loop()
        tasks = [asyncio.ensure_future(one) for one in work]
        try:
            if isinstance(loop, QuickLoop):
                loop.when_settled = self._let_go
                await asyncio.gather(*tasks)
                return
            assert isinstance(loop, VirtualTimeLoop)
            while not all(task.done() for task in tasks):
                await settled()
                for task in tasks:
                    if task.done():
                        task.result()
                self._let_go()
        finally:
            if isinstance(loop, QuickLoop):
                loop.when_settled = None
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _let_go(self) -> None:
        self._held = [held for held in self._held if not held[1].done()]
        number, what = divmod(next(self._numbers), 16)
        if what == 15 and self._others:
            self._others[number % len(self._others)]()
        elif self._held:
            ready = [turn for client, turn in self._held if client not in self.stalled]
            if ready:
                ready[number % len(ready)].set_result(None)
            else:
                self._at_standstill()
                self.stalled.clear()
