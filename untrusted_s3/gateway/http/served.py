"""What the HTTP pages need of a gateway."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from untrusted_s3.counters import Counters
from untrusted_s3.supervisor import TaskStatus


class ServedGateway(Protocol):
    """A gateway whose state the pages show.

    Attributes:
        counters: What it has counted.
        ready: Whether it listens and takes part in synchronizing.
    """

    counters: Counters
    ready: bool

    @property
    def store_requests(self) -> Mapping[str, int]:
        """The number of requests to the store, by operation."""
        ...

    @property
    def problems(self) -> Sequence[str]:
        """What does not work while the gateway serves on: names of background tasks, folders, the local disk."""
        ...

    def tasks(self) -> Sequence[TaskStatus]:
        """Return the states of all background tasks."""
        ...

    def status(self) -> dict[str, Any]:
        """Return the JSON of /api/status."""
        ...

    async def status_in_steps(self) -> dict[str, Any]:
        """Return the same. Others get their turns meanwhile."""
        ...

    async def check_store(self) -> None:
        """Raise StoreError unless the store answers."""
        ...
