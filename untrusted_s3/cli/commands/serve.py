"""`untrusted-s3 serve`: the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import structlog
import uvloop
from click.core import ParameterSource

from untrusted_s3 import limits
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.console import Console, watch_without_terminal, welcome
from untrusted_s3.cli.identity import IdentityOptions, identity_options
from untrusted_s3.cli.invocation import Invocation
from untrusted_s3.cli.options import (
    CONFIGURATION_FILE,
    StoreOptions,
    common_options,
    http_option,
    option,
    parse_host_port,
    store_options,
)
from untrusted_s3.cli.store import open_bucket
from untrusted_s3.connections.registry import SCHEMES
from untrusted_s3.gateway.gateway import Gateway, GatewaySettings
from untrusted_s3.store.probe import probe_conditional_writes

_logger = structlog.get_logger()

# 22000 is the port of the user's own Syncthing on the same machine.
DEFAULT_LISTEN = "tcp://0.0.0.0:22001"
_DAY = 86_400.0


@click.command()
@option(
    "--listen",
    metavar="tcp://HOST:PORT",
    multiple=True,
    default=(DEFAULT_LISTEN,),
    show_default=True,
    help="Where devices connect; may be repeated.",
)
@http_option("Health, metrics and status; none for no HTTP.")
@option("--name", default="untrusted-s3", show_default=True, help="The device name that peers see.")
@option(
    "--buffer-memory",
    type=click.IntRange(min=limits.MIN_BUFFER_MEMORY // limits.MIB),
    default=limits.DEFAULT_BUFFER_MEMORY // limits.MIB,
    show_default=True,
    metavar="MIB",
    help="Memory for blocks on their way.",
)
@option(
    "--history",
    type=click.IntRange(min=int(limits.MIN_HISTORY_RETENTION // _DAY)),
    default=int(limits.HISTORY_RETENTION // _DAY),
    show_default=True,
    metavar="DAYS",
    help="How long the log and checkpoints are kept that tell what folders were.",
)
@option(
    "--single-writer",
    is_flag=True,
    help="This is the only gateway on the bucket: start even if the store lacks conditional writes.",
)
@option(
    "--welcome",
    "always_welcome",
    is_flag=True,
    help="Say what to do in Syncthing even where standard error is no terminal.",
)
@option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Local state; may be deleted at any time.  [default: DATA/state]",
)
@store_options
@identity_options
@common_options
@click.pass_context
def serve(
    context: click.Context,
    listen: tuple[str, ...],
    http: str,
    name: str,
    buffer_memory: int,
    history: int,
    single_writer: bool,
    always_welcome: bool,
    state: Path | None,
    store: StoreOptions,
    identity: IdentityOptions,
) -> None:
    """Run the gateway until SIGINT or SIGTERM.

    A second signal stops it without delay.
    """
    for address in listen:
        SCHEMES.parse(address)
    if http != "none":
        parse_host_port(http, "--http")
    settings = GatewaySettings(
        listen=listen,
        http=None if http == "none" else http,
        name=name,
        state_directory=state or store.data / "state",
        buffer_memory=buffer_memory * limits.MIB,
        history=history * _DAY,
        tuning=context.ensure_object(Invocation).settings,
    )
    try:
        same_signal = context.ensure_object(Invocation).settings.upkeep.same_signal
        watch = _watcher(context, always_welcome)
        uvloop.run(_serve(store, identity, settings, single_writer, watch, same_signal))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _options_in_use(context: click.Context) -> list[str]:
    """The options that another command needs to find the same store."""
    options = []
    if CONFIGURATION_FILE in context.meta:
        options += ["--config", str(context.meta[CONFIGURATION_FILE])]
    for name, flag in (("store", "--store"), ("endpoint_url", "--endpoint-url"), ("data", "--data")):
        if context.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            options += [flag, str(context.params[name])]
    return options


def _watcher(context: click.Context, always_welcome: bool) -> Callable[[Gateway], Awaitable[None]]:
    """What tells the operator about a running gateway, until it is cancelled."""
    command = ["untrusted-s3", "peers", "add", *_options_in_use(context)]
    live_line = context.ensure_object(Invocation).live_line

    def accept_command(device_id: DeviceID) -> str:
        return shlex.join([*command, str(device_id)])

    if live_line is not None and live_line.isatty():
        return Console(live_line, accept_command).watch

    async def watch(gateway: Gateway) -> None:
        if always_welcome:
            click.echo(welcome(gateway, sys.stdout.encoding))
        await watch_without_terminal(gateway, accept_command)

    return watch


async def _serve(
    store: StoreOptions,
    identity: IdentityOptions,
    settings: GatewaySettings,
    single_writer: bool,
    watch: Callable[[Gateway], Awaitable[None]],
    same_signal: float,
) -> None:
    signals = _Signals(same_signal)
    async with open_bucket(store, own_server=True) as bucket:
        # The embedded store is known to keep them apart; it makes rivals wait for seconds.
        if store.location is not None and not single_writer:
            await probe_conditional_writes(bucket)
        gateway = Gateway(bucket, await identity.open(bucket), settings)
        try:
            await gateway.start()
            signals.graceful = True
            watching = asyncio.ensure_future(watch(gateway))
            stopping = asyncio.create_task(signals.stop.wait())
            try:
                await asyncio.wait({watching, stopping}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                watching.cancel()
                stopping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            _logger.info("stopping; once more to stop without delay")
        finally:
            signals.graceful = False
            await gateway.stop()


class _Signals:
    """SIGINT and SIGTERM: while `graceful`, the first one sets `stop`; any later one cancels the task.

    One signal can arrive twice at once, from the terminal and by a program like make that passes it on: signals
    within `same_signal` seconds after the first one are ignored.
    """

    def __init__(self, same_signal: float) -> None:
        self.graceful = False
        self.stop = asyncio.Event()
        self._same_signal = same_signal
        self._stopped_at = float("-inf")
        self._task = asyncio.current_task()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._handle)

    def _handle(self) -> None:
        now = asyncio.get_running_loop().time()
        if self.graceful and not self.stop.is_set():
            self.stop.set()
            self._stopped_at = now
        elif now - self._stopped_at < self._same_signal:
            return
        elif self._task is not None:
            self._task.cancel()
