"""The pages: what each path answers, by the state of the gateway."""

from __future__ import annotations

import asyncio

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from untrusted_s3.errors import StoreError
from untrusted_s3.gateway.http.served import ServedGateway
from untrusted_s3.structured_logging import printable

_STORE_TIMEOUT = 5.0  # seconds


class Pages:
    """The handlers of all paths."""

    def __init__(self, gateway: ServedGateway) -> None:
        self._gateway = gateway

    def routes(self) -> list[web.RouteDef]:
        """Return the paths with their handlers."""
        return [
            web.get("/healthz", self.health),
            web.get("/readyz", self.readiness),
            web.get("/metrics", self.metrics),
            web.get("/api/status", self.status),
        ]

    async def health(self, request: web.Request) -> web.Response:
        """Answer as long as the process is alive."""
        return web.Response(text="alive\n")

    async def readiness(self, request: web.Request) -> web.Response:
        """Answer 200 while the gateway serves, and name the background tasks that fail; else 503."""
        if not self._gateway.ready:
            return web.Response(status=503, text="starting or stopping\n")
        try:
            async with asyncio.timeout(_STORE_TIMEOUT):
                await self._gateway.check_store()
        except (StoreError, TimeoutError) as error:
            return web.Response(status=503, text=f"the store does not answer: {error}\n")
        failing = self._gateway.failing_tasks
        if failing:
            return web.Response(text=f"ready, degraded: {', '.join(map(printable, failing))}\n")
        return web.Response(text="ready\n")

    async def metrics(self, request: web.Request) -> web.Response:
        """Answer with all metrics in the text format of Prometheus."""
        body = generate_latest(self._gateway.counters.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def status(self, request: web.Request) -> web.Response:
        """Answer with the status as JSON."""
        return web.json_response(self._gateway.status())
