"""`untrusted-s3 serve`: the gateway."""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import structlog
import uvloop
from click.core import ParameterSource

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.console import Console, watch_without_terminal, welcome
from untrusted_s3.cli.identity import IdentityOptions, identity_options
from untrusted_s3.cli.options import (
    CONFIGURATION_FILE,
    DEFAULT_LISTEN,
    NO_HTTP,
    StoreOptions,
    buffer_memory_option,
    common_options,
    current_invocation,
    history_option,
    http_option,
    option,
    parse_http,
    store_options,
)
from untrusted_s3.cli.signals import StopSignals
from untrusted_s3.cli.size import SizeType
from untrusted_s3.cli.store import open_bucket
from untrusted_s3.connections.registry import SCHEMES
from untrusted_s3.gateway.gateway import Gateway
from untrusted_s3.gateway.settings import GatewaySettings
from untrusted_s3.gateway.state_lock import lock_state
from untrusted_s3.settings import DEFAULT_SCRUB, MIN_PENDING_DISK, SyncSettings
from untrusted_s3.store.probe import probe_conditional_writes, probe_presigned_expiry
from untrusted_s3.units import DAY, MIB

_WATCHER = "inform the operator"
_logger = structlog.get_logger()


@click.command()
@option(
    "--listen",
    metavar="tcp://HOST:PORT",
    multiple=True,
    default=(DEFAULT_LISTEN,),
    show_default=True,
    help="Where devices connect; may be repeated.",
)
@http_option("Where to serve health, metrics and status; none for no HTTP.")
@option(
    "--http-host",
    "http_hosts",
    metavar="NAME",
    multiple=True,
    help="A host name by which clients reach the HTTP pages, beside IP addresses and localhost; may be repeated.",
)
@option("--name", default="untrusted-s3", show_default=True, help="The device name that peers see.")
@buffer_memory_option("Memory for blocks being received and sent.")
@option(
    "--pending-disk",
    type=click.IntRange(min=MIN_PENDING_DISK // MIB),
    show_default=f"{SyncSettings().pending_disk // MIB}",
    metavar="MIB",
    help="Local disk for what devices have announced and is not stored yet; above that, their indexes wait.",
)
@option(
    "--max-store",
    type=SizeType(),
    metavar="SIZE",
    help="The most bytes of files in all folders together, such as 100GiB; above that, what needs room waits. Earlier"
    " versions do not count.  [default: any number]",
)
@history_option(
    "How far back --as-of can reach: how long log, checkpoints and earlier versions are kept at least. It is noted in"
    " the store, for all gateways; `untrusted-s3 keep --history` shortens it."
)
@option(
    "--gc/--no-gc",
    default=True,
    show_default=True,
    help="Delete objects that no folder's history needs any more, slowly; `untrusted-s3 gc` does it once.",
)
@option(
    "--scrub-days",
    type=click.IntRange(min=0),
    default=int(DEFAULT_SCRUB // DAY),
    show_default=True,
    metavar="DAYS",
    help="In how many days all objects are read once, to find damage; 0: never.",
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
    help="Print what to do in Syncthing even if standard error is not a terminal.",
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
    http_hosts: tuple[str, ...],
    name: str,
    buffer_memory: int,
    pending_disk: int | None,
    max_store: int | None,
    history: int,
    scrub_days: int,
    gc: bool,
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
    if http != NO_HTTP:
        parse_http(http)
    tuning = current_invocation().settings
    if pending_disk is not None:
        tuning = replace(tuning, sync=replace(tuning.sync, pending_disk=pending_disk * MIB))
    settings = GatewaySettings(
        listen=listen,
        http=None if http == NO_HTTP else http,
        name=name,
        state_directory=state or store.data / "state",
        buffer_memory=buffer_memory * MIB,
        history_days=history,
        history_is_wanted=context.get_parameter_source("history") is not ParameterSource.DEFAULT,
        scrub=scrub_days * DAY,
        collects_garbage=gc,
        max_store=max_store,
        http_hosts=http_hosts,
        tuning=tuning,
    )
    try:
        watch = _watcher(context, always_welcome)
        uvloop.run(_serve(store, identity, settings, single_writer, watch))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


def _options_in_use(context: click.Context) -> list[str]:
    """Return the options with which another command finds the same store."""
    options = []
    if CONFIGURATION_FILE in context.meta:
        options += ["--config", str(context.meta[CONFIGURATION_FILE])]
    for name, flag in (("store", "--store"), ("endpoint_url", "--endpoint-url"), ("data", "--data")):
        if context.get_parameter_source(name) in (ParameterSource.COMMANDLINE, ParameterSource.ENVIRONMENT):
            options += [flag, str(context.params[name])]
    return options


def _watcher(context: click.Context, always_welcome: bool) -> Callable[[Gateway], Coroutine[Any, Any, None]]:
    """Return what tells the operator about a running gateway until it is cancelled."""
    command = ["untrusted-s3", "peers", "add", *_options_in_use(context)]
    live_line = current_invocation().live_line

    def accept_command(device_id: DeviceID) -> str:
        return shlex.join([*command, str(device_id)])

    if live_line is not None and live_line.isatty():
        return Console(live_line, accept_command).watch

    async def watch(gateway: Gateway) -> None:
        if always_welcome:
            click.echo(welcome(gateway, sys.stdout.encoding))
        await watch_without_terminal(gateway, accept_command)

    return watch


async def _cancel(task: asyncio.Task[str]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _serve(
    store: StoreOptions,
    identity: IdentityOptions,
    settings: GatewaySettings,
    single_writer: bool,
    watch: Callable[[Gateway], Coroutine[Any, Any, None]],
) -> None:
    signals = StopSignals(settings.tuning.upkeep.same_signal)
    async with open_bucket(store, own_server=True, single_writer=single_writer) as bucket, AsyncExitStack() as stack:
        stack.enter_context(lock_state(settings.state_directory))
        trial = None
        # The embedded store is known to pass, and the probes would take seconds there.
        if store.location is not None:
            if not single_writer:
                await probe_conditional_writes(bucket)
            trial = asyncio.create_task(probe_presigned_expiry(bucket))
            stack.push_async_callback(_cancel, trial)
        gateway = Gateway(bucket, await identity.open(bucket), settings, in_doubt=bucket.in_doubt)
        try:
            await gateway.start(trial)
            if bucket.in_doubt and not gateway.folders.closed:
                bucket.checked()
            signals.graceful = True
            gateway.supervisor.start(_WATCHER, partial(watch, gateway))
            await signals.stop.wait()
            await gateway.supervisor.cancel(_WATCHER)
            _logger.info("stopping", hint="a second signal stops without delay")
        finally:
            signals.graceful = False
            await gateway.stop()
