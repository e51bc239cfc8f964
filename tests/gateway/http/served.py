"""A gateway as far as the HTTP pages see it, whose state a test sets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from untrusted_s3.counters import Counters
from untrusted_s3.supervisor import TaskState, TaskStatus


class FakeGateway:
    """Implements `gateway.http.served.ServedGateway`.

    Attributes:
        store_error: What `check_store` raises.
        status_error: What `status` raises.
        status_checks: How often the status was asked for.
        store_checks: How often the store was asked.
        go_on: Whether the store answers now.
        shown: The JSON of the status.
    """

    def __init__(self) -> None:
        self.counters = Counters()
        self.ready = True
        self.store_requests: Mapping[str, int] = {}
        self.background: list[TaskStatus] = []
        self.store_error: Exception | None = None
        self.status_error: Exception | None = None
        self.store_checks = self.status_checks = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.shown: dict[str, Any] = {"device_id": "X", "folders": [], "peers": []}

    @property
    def problems(self) -> Sequence[str]:
        return [task.name for task in self.background if task.failing]

    def tasks(self) -> Sequence[TaskStatus]:
        return self.background

    def status(self) -> dict[str, Any]:
        self.status_checks += 1
        if self.status_error is not None:
            raise self.status_error
        return self.shown

    async def status_in_steps(self) -> dict[str, Any]:
        return self.status()

    async def check_store(self) -> None:
        self.store_checks += 1
        await self.go_on.wait()
        if self.store_error is not None:
            raise self.store_error


def running(name: str) -> TaskStatus:
    """A task that runs."""
    return TaskStatus(name, TaskState.RUNNING, failures=0, failing=False, error=None)


def failing(name: str) -> TaskStatus:
    """A task that waits to be restarted."""
    return TaskStatus(name, TaskState.WAITING, failures=3, failing=True, error="ValueError: no")
