"""Serves the pages over HTTP."""

from __future__ import annotations

from aiohttp import web
from prometheus_client import ProcessCollector

from untrusted_s3.addresses import HostPort, parse_host_port
from untrusted_s3.errors import AddressUnavailable
from untrusted_s3.gateway.http.metrics import GatewayCollector
from untrusted_s3.gateway.http.pages import Pages
from untrusted_s3.gateway.http.served import ServedGateway


class HTTPServer:
    """Serves a gateway's health, metrics and status on HOST:PORT; an empty host means all addresses."""

    def __init__(self, gateway: ServedGateway, address: str) -> None:
        """Raises UsageError for an address that cannot be parsed."""
        self._address = parse_host_port(address)
        self._app = web.Application()
        self._app.router.add_routes(Pages(gateway).routes())
        self._runner: web.AppRunner | None = None
        ProcessCollector(registry=gateway.counters.registry)
        gateway.counters.registry.register(GatewayCollector(gateway))

    async def start(self) -> None:
        """Begin to serve. Raises AddressUnavailable if the address cannot be used."""
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._address.host or None, self._address.port).start()
        except OSError as error:
            await self.stop()
            raise AddressUnavailable(str(self._address), "http", error.strerror or str(error)) from error

    async def stop(self) -> None:
        """Stop serving."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    @property
    def addresses(self) -> list[HostPort]:
        """Where it serves, with the real ports; empty while it is stopped."""
        return [HostPort(*address[:2]) for address in self._runner.addresses] if self._runner is not None else []
