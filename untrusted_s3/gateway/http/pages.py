"""The pages: what each path answers, by the state of the gateway.

The answers of /healthz and /readyz hold fixed phrases and the names of folders and tasks, never the text of an error.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from untrusted_s3.connections.reasons import public_reason
from untrusted_s3.gateway.http.metrics import Snapshot, metrics_text
from untrusted_s3.gateway.http.served import ServedGateway
from untrusted_s3.settings import HTTPSettings
from untrusted_s3.structured_logging import printable
from untrusted_s3.supervisor import TaskSet
from untrusted_s3.threads import in_thread

Page = Callable[[], Awaitable[web.Response]]


class Pages:
    """The pages of all paths."""

    def __init__(self, gateway: ServedGateway, settings: HTTPSettings) -> None:
        self._gateway = gateway
        self._store = _StoreCheck(gateway.check_store, settings)

    @property
    def by_path(self) -> Mapping[str, Page]:
        """All paths."""
        return {
            "/healthz": self.health,
            "/readyz": self.readiness,
            "/metrics": self.metrics,
            "/api/status": self.status,
        }

    async def health(self) -> web.Response:
        """Answer as long as the process is alive."""
        return web.Response(text="alive\n")

    async def readiness(self) -> web.Response:
        """Answer 200 while the gateway serves, and name what does not work; else 503."""
        if not self._gateway.ready:
            return web.Response(status=503, text="starting or stopping\n")
        reason = await self._store.failure()
        if reason is not None:
            return web.Response(status=503, text=f"{reason}\n")
        problems = self._gateway.problems
        if problems:
            return web.Response(text=f"ready, degraded: {', '.join(map(printable, problems))}\n")
        return web.Response(text="ready\n")

    async def metrics(self) -> web.Response:
        """Answer with all metrics in the text format of Prometheus."""
        body = await in_thread(metrics_text, self._gateway.counters.registry, await Snapshot.of(self._gateway))
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(self) -> web.Response:
        """Answer with the status as JSON."""
        text = await in_thread(_json_text, await self._gateway.status_in_steps())
        return web.json_response(text=text)

    async def close(self) -> None:
        """End a check of the store that is under way."""
        await self._store.close()


def _json_text(status: dict[str, Any]) -> str:
    """Return the JSON of a status. Each folder and device is written by itself: to write it holds Python's lock."""
    fields = []
    for name, value in status.items():
        text = f"[{', '.join(map(json.dumps, value))}]" if isinstance(value, list) else json.dumps(value)
        fields.append(f"{json.dumps(name)}: {text}")
    return f"{{{', '.join(fields)}}}"


class _StoreCheck:
    """Whether the store answers. Those who ask at once share one request, and its result is kept for a while."""

    def __init__(self, check: Callable[[], Awaitable[None]], settings: HTTPSettings) -> None:
        self._check = check
        self._settings = settings
        self._tasks = TaskSet()
        self._running: asyncio.Task[str | None] | None = None
        self._valid_until = float("-inf")

    async def failure(self) -> str | None:
        """Return why the store is not available, or None if it answers."""
        now = asyncio.get_running_loop().time()
        if self._running is None or (self._running.done() and now >= self._valid_until):
            self._running = self._tasks.start(self._ask())
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        await self._tasks.cancel()
        self._running = None

    async def _ask(self) -> str | None:
        reason = None
        try:
            async with asyncio.timeout(self._settings.store_timeout):
                await self._check()
        except Exception as error:
            reason = public_reason(error)
        self._valid_until = asyncio.get_running_loop().time() + self._settings.store_check_lifetime
        return reason
