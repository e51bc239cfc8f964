"""Serves the pages over HTTP."""

from __future__ import annotations

from collections.abc import Iterable

import structlog
from aiohttp import web
from prometheus_client import ProcessCollector

from untrusted_s3.addresses import HostPort, parse_host_port
from untrusted_s3.connections.reasons import INTERNAL_ERROR
from untrusted_s3.errors import AddressUnavailable
from untrusted_s3.gateway.http.connections import BoundedServer, ClientConnection
from untrusted_s3.gateway.http.hosts import AllowedHosts
from untrusted_s3.gateway.http.pages import Pages
from untrusted_s3.gateway.http.served import ServedGateway
from untrusted_s3.settings import HTTPSettings

_METHODS = ("GET", "HEAD")
_DEFAULTS = HTTPSettings()
_logger = structlog.get_logger()


class HTTPServer:
    """Serves a gateway's health, metrics and status on HOST:PORT; an empty host means all addresses.

    `hosts` are names by which clients may reach it, beside IP addresses, localhost and HOST.
    """

    def __init__(
        self, gateway: ServedGateway, address: str, hosts: Iterable[str] = (), settings: HTTPSettings = _DEFAULTS
    ) -> None:
        """Raises UsageError for an address that cannot be parsed."""
        self._address = parse_host_port(address)
        self._hosts = AllowedHosts((*hosts, self._address.host))
        self._settings = settings
        self._pages = Pages(gateway, settings)
        self._runner: web.ServerRunner | None = None
        ProcessCollector(registry=gateway.counters.registry)

    async def start(self) -> None:
        """Begin to serve. Raises AddressUnavailable if the address cannot be used."""
        self._runner = web.ServerRunner(BoundedServer(self._answer, self._settings), handle_signals=False)
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
        await self._pages.close()

    @property
    def addresses(self) -> list[HostPort]:
        """Where it serves, with the real ports; empty while it is stopped."""
        return [HostPort(*address[:2]) for address in self._runner.addresses] if self._runner is not None else []

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if isinstance(request.protocol, ClientConnection):
            request.protocol.head_received()
        response = await self._page(request)
        response.force_close()
        return response

    async def _page(self, request: web.BaseRequest) -> web.Response:
        if request.method not in _METHODS:
            return web.Response(status=405, text="only GET and HEAD\n", headers={"Allow": ", ".join(_METHODS)})
        # A target with a host of its own would have to be checked as well; only proxies are sent such.
        if not request.raw_path.startswith("/") or not self._hosts.allow(request.headers.getall("Host", ())):
            return web.Response(status=403, text="this host name is not allowed\n")
        page = self._pages.by_path.get(request.path)
        if page is None:
            return web.Response(status=404, text="not found\n")
        try:
            return await page()
        except Exception:
            _logger.exception("internal error in a page", path=request.path)
            return web.Response(status=500, text=f"{INTERNAL_ERROR}\n")
