"""The HTTP side: /healthz, /readyz, /metrics and /api/status (docs/http.md)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Protocol

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from untrusted_s3.counters import Counters
from untrusted_s3.errors import AddressUnavailable, StoreError, UsageError
from untrusted_s3.store.s3 import S3Bucket

_READY_TIMEOUT = 5.0


class ServedGateway(Protocol):
    """What is served of a gateway."""

    bucket: S3Bucket
    counters: Counters
    ready: bool

    def status(self) -> dict[str, Any]:
        """The JSON of /api/status."""
        ...

    async def check_store(self) -> None:
        """Raises StoreError unless the store answers."""
        ...


class HTTPServer:
    """Serves a gateway's health, metrics and status on HOST:PORT."""

    def __init__(self, gateway: ServedGateway, address: str) -> None:
        """Raises UsageError for an address that is none."""
        host, separator, port = address.rpartition(":")
        if not separator or not port.isdigit() or int(port) > 65_535:
            raise UsageError(f"--http must look like HOST:PORT, not {address!r}")
        self._gateway = gateway
        self._host, self._port = host.strip("[]"), int(port)
        self._runner: web.AppRunner | None = None
        ProcessCollector(registry=gateway.counters.registry)
        gateway.counters.registry.register(_GatewayCollector(gateway))

    async def start(self) -> None:
        """Begins to serve. Raises UsageError where the address cannot be used."""
        app = web.Application()
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/api/status", self._status)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host or None, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise AddressUnavailable(f"{self._host}:{self._port}", "http", error.strerror or str(error)) from error

    async def stop(self) -> None:
        """Stops serving."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _healthz(self, request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _readyz(self, request: web.Request) -> web.Response:
        if not self._gateway.ready:
            return web.Response(status=503, text="starting or stopping\n")
        try:
            async with asyncio.timeout(_READY_TIMEOUT):
                await self._gateway.check_store()
        except (StoreError, TimeoutError) as error:
            return web.Response(status=503, text=f"the store does not answer: {error}\n")
        return web.Response(text="ready\n")

    async def _metrics(self, request: web.Request) -> web.Response:
        body = generate_latest(self._gateway.counters.registry)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(self._gateway.status())


class _GatewayCollector(Collector):
    """Gauges that are read off the gateway when they are asked for."""

    def __init__(self, gateway: ServedGateway) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        status = self._gateway.status()
        for name, description in (
            ("files", "Files in the folder"),
            ("directories", "Directories and symlinks in the folder"),
            ("deleted", "Deleted entries that the folder remembers"),
            ("bytes", "Bytes of encrypted file data in the folder"),
            ("sequence", "Highest sequence number announced"),
            ("pending_files", "Files announced by peers and not in the store yet"),
            ("pending_bytes", "Bytes of the pending files"),
        ):
            gauge = GaugeMetricFamily(f"untrusted_s3_folder_{name}", description, labels=["folder"])
            for folder in status["folders"]:
                gauge.add_metric([folder["id"]], folder[name])
            yield gauge
        connected = GaugeMetricFamily("untrusted_s3_peer_connected", "1 while the peer is connected", labels=["device"])
        for peer in status["peers"]:
            connected.add_metric([peer["device_id"]], peer["connected"])
        yield connected
        requests = CounterMetricFamily("untrusted_s3_store_requests", "Requests to the store", labels=["operation"])
        for operation, count in self._gateway.bucket.requests.items():
            requests.add_metric([operation], count)
        yield requests

    def describe(self) -> list[Metric]:
        return []
