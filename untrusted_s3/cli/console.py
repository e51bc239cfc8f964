"""What a running gateway tells its operator, on a terminal and elsewhere."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from untrusted_s3 import __version__
from untrusted_s3.addresses import HostPort, parse_address
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.output import size_text
from untrusted_s3.cli.terminal import LiveLine, can_ask, forget_typed, qr_code, read_answer
from untrusted_s3.errors import DataError, StoreError
from untrusted_s3.gateway.gateway import Gateway
from untrusted_s3.structured_logging import printable

_logger = structlog.get_logger()

_LIVE_INTERVAL = 1.0
_PROGRESS_INTERVAL = 30.0
_MAX_NAME = 40

_WELCOME = """
untrusted-s3 {version} keeps encrypted folders in {store}

Device ID: {device_id}

{qr}
On each device whose folders are to go there, in Syncthing:
  1. Click "Add Remote Device" and paste the device ID above.
  2. On the tab "Advanced", set "Addresses" to {address} and tick "Untrusted".
  3. On the tab "Sharing", tick the folder and enter an encryption password. Keep the password:
     nobody can read the folder from the store without it.
  4. Click "Save", and accept the device here when it connects.

"""

_INTRODUCTION = """
A device that is not accepted wants to connect:
  device ID  {device_id}
  its name   {name}
Compare the whole device ID with the one that the device itself shows.
"""
_QUESTION = "Accept this device? [y/N] "

AcceptCommand = Callable[[DeviceID], str]


class Console:
    """The terminal of a running gateway: a welcome, a live line, and questions about unknown devices."""

    def __init__(self, live_line: LiveLine, accept_command: AcceptCommand) -> None:
        self._live_line = live_line
        self._accept_command = accept_command
        self._answered: set[str] = set()

    async def watch(self, gateway: Gateway) -> None:
        """Print the welcome, then keep the live line and ask about unknown devices until cancelled."""
        self._live_line.write(welcome(gateway, self._live_line.encoding))
        self._live_line.flush()
        rates = _Rates(gateway)
        try:
            while True:
                status = gateway.status()
                for device in status["unknown_devices"]:
                    if device["device_id"] not in self._answered:
                        await self._ask(gateway, device)
                self._live_line.show(summary(status) + rates.text())
                await asyncio.sleep(_LIVE_INTERVAL)
        finally:
            self._live_line.show("")

    async def _ask(self, gateway: Gateway, device: dict[str, Any]) -> None:
        """Ask whether to accept a device, once a device."""
        self._answered.add(device["device_id"])
        device_id = DeviceID.parse(device["device_id"])
        if not can_ask():
            log_unknown(device, self._accept_command(device_id))
            return
        self._live_line.write(introduction(device_id, device["name"]))
        forget_typed()
        self._live_line.ask(_QUESTION)
        answer = await read_answer()
        self._live_line.leave()
        if (answer or "").lower() not in ("y", "yes"):
            log_unknown(device, self._accept_command(device_id))
        elif device_id in gateway.peers.unknown:
            try:
                await gateway.accept_device(device_id, device["name"])
            except (DataError, StoreError) as error:
                _logger.error("device not accepted", error=str(error), accept=self._accept_command(device_id))
            else:
                _logger.info("device accepted", device=str(device_id), name=device["name"])


def introduction(device_id: DeviceID, name: str) -> str:
    """Return what to know of a device before it is accepted: its whole device ID, and its name in quotes.

    A device chooses its name, and can choose a device ID whose first characters are those of another one.
    """
    return _INTRODUCTION.format(device_id=device_id, name=quoted(name))


def quoted(text: str) -> str:
    """Return a text that somebody else has chosen in quotes, on one line, without control characters and not long."""
    shown, cut = "", ""
    for character in text:
        escaped = f"\\{character}" if character in '"\\' else printable(character)
        if len(shown) + len(escaped) > _MAX_NAME:
            cut = "..."
            break
        shown += escaped
    return f'"{shown}"{cut}'


def welcome(gateway: Gateway, encoding: str) -> str:
    """Return the device ID, its QR code if `encoding` can show it, and what to click in Syncthing."""
    device_id = str(gateway.device_id)
    return _WELCOME.format(
        version=__version__,
        store=gateway.bucket.location,
        device_id=device_id,
        qr=qr_code(device_id, encoding),
        address=address_for_peers(gateway.listen_addresses),
    )


async def watch_without_terminal(gateway: Gateway, accept_command: AcceptCommand) -> None:
    """Log how to accept each unknown device, and progress while folders sync, until cancelled."""
    seen: set[str] = set()
    last_report = float("-inf")
    while True:
        status = gateway.status()
        for device in status["unknown_devices"]:
            if device["device_id"] not in seen:
                seen.add(device["device_id"])
                log_unknown(device, accept_command(DeviceID.parse(device["device_id"])))
        syncing = [folder for folder in status["folders"] if folder["state"] == "syncing"]
        if syncing and time.monotonic() - last_report >= _PROGRESS_INTERVAL:
            last_report = time.monotonic()
            for folder in syncing:
                _logger.info(
                    "syncing",
                    folder=folder["id"],
                    files=folder["files"],
                    bytes=folder["bytes"],
                    pending_files=folder["pending_files"],
                    pending_bytes=folder["pending_bytes"],
                )
        await asyncio.sleep(_LIVE_INTERVAL)


def log_unknown(device: dict[str, Any], command: str) -> None:
    """Log how to accept a device; `command` does it."""
    _logger.warning("unknown device", name=device["name"], address=device["address"], accept=command)


def summary(status: dict[str, Any]) -> str:
    """Return a gateway's status on one line."""
    folders, peers = status["folders"], status["peers"]
    pending = sum(folder["pending_files"] for folder in folders)
    parts = [
        f"{sum(peer['connected'] for peer in peers)}/{len(peers)} devices",
        f"{len(folders)} folder{'' if len(folders) == 1 else 's'}",
        f"{sum(folder['files'] for folder in folders):,} files {size_text(sum(folder['bytes'] for folder in folders))}",
        f"{pending:,} to come {size_text(sum(folder['pending_bytes'] for folder in folders))}"
        if pending
        else "up to date",
    ]
    failed = [folder["id"] for folder in folders if folder["error"]]
    if failed:
        parts.append(f"error in {printable(', '.join(failed))}")
    return " | ".join(parts)


def address_for_peers(listen_addresses: Sequence[str]) -> str:
    """Return what peers may type to reach the gateway: its first address, with a host if that is a wildcard."""
    address = parse_address(listen_addresses[0])
    endpoint = address.endpoint
    if endpoint.host in ("", "0.0.0.0", "::"):  # noqa: S104
        endpoint = HostPort(_own_address() or "THIS-HOST", endpoint.port)
    return f"{address.scheme}://{endpoint}"


def _own_address() -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Sends nothing: asks the kernel for the source address of packets to the Internet (TEST-NET-1, RFC 5737).
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address: str = probe.getsockname()[0]
        return address


class _Rates:
    """Bytes of blocks per second, in and out, since the last call."""

    def __init__(self, gateway: Gateway) -> None:
        self._registry = gateway.counters.registry
        self._last = self._read()

    def text(self) -> str:
        """Return the end of the live line; empty if no block was received or sent."""
        before, self._last = self._last, self._read()
        seconds = max(self._last[0] - before[0], 0.001)
        received, sent = (self._last[1] - before[1]) / seconds, (self._last[2] - before[2]) / seconds
        return f" | in {size_text(received)}/s, out {size_text(sent)}/s" if received or sent else ""

    def _read(self) -> tuple[float, float, float]:
        value = self._registry.get_sample_value
        return (
            time.monotonic(),
            value("untrusted_s3_block_bytes_received_total") or 0.0,
            value("untrusted_s3_block_bytes_sent_total") or 0.0,
        )
