"""Options that commands share, and where their values come from.

Every option is also an environment variable and a key of the configuration file: `--endpoint-url` is
UNTRUSTED_S3_ENDPOINT_URL and `endpoint-url`. The command line wins over the environment, the environment over the
file, the file over the default. Several values of one option are separated by spaces in the environment, and are a
list in the file.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar, cast

import click

from untrusted_s3.addresses import HostPort, parse_host_port
from untrusted_s3.cli.configuration import read_configuration
from untrusted_s3.cli.invocation import Invocation
from untrusted_s3.cli.terminal import LiveLine
from untrusted_s3.errors import UsageError
from untrusted_s3.settings import DEFAULT_BUFFER_MEMORY, DEFAULT_HISTORY, MIN_BUFFER_MEMORY, MIN_HISTORY, Settings
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.structured_logging import configure_logging
from untrusted_s3.units import DAY, MIB

CONFIGURATION_FILE: Final = "untrusted_s3.configuration_file"  # a key of click's Context.meta
ENVIRONMENT_PREFIX: Final = "UNTRUSTED_S3_"
DEFAULT_HTTP: Final = "127.0.0.1:8385"
# Syncthing's default port is 22000; the same machine may run one.
DEFAULT_LISTEN: Final = "tcp://0.0.0.0:22001"
NO_HTTP: Final = "none"

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Setting(click.Option):
    """An option, an environment variable and a key of the configuration file, all of one name.

    `key` is that name. It differs from the option's name if another command has an option of that name with another
    meaning.
    """

    def __init__(self, declarations: list[str], key: str | None = None, **attributes: Any) -> None:
        super().__init__(declarations, **attributes)
        self.key = key or max(self.opts, key=len).lstrip("-")
        self.envvar = ENVIRONMENT_PREFIX + self.key.replace("-", "_").upper()
        self.show_envvar = True


option = cast(Callable[..., Decorator], functools.partial(click.option, cls=Setting))


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Which store to use, and how.

    Attributes:
        location: The bucket; None for the embedded store in `data`.
        endpoint_url: The S3 server; None for Amazon's.
        create_bucket: Whether to create a missing bucket.
        data: Where the embedded store, the identity and the local state are by default.
        settings: What options do not set.
    """

    location: StoreLocation | None
    endpoint_url: str | None
    create_bucket: bool
    data: Path
    settings: Settings

    @property
    def embedded_directory(self) -> Path:
        """Where the embedded store keeps its data."""
        return self.data / "seaweedfs"


def common_options(function: Function) -> Function:
    """Add --config, --log-level, --log-format and --debug, which every command has."""

    @functools.wraps(function)
    def wrapper(*args: Any, log_level: str, log_format: Any, **parameters: Any) -> Any:
        live_line = LiveLine(sys.stderr)
        current_invocation().live_line = live_line
        configure_logging(log_level, log_format, cast(TextIO, live_line))
        return function(*args, **parameters)

    decorators = [
        option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            is_eager=True,
            expose_value=False,
            callback=_apply_configuration,
            help="TOML file whose keys are named like the options.",
        ),
        option(
            "--log-level",
            type=click.Choice(["debug", "info", "warning", "error"]),
            default="info",
            show_default=True,
            help="Log nothing below this level.",
        ),
        option(
            "--log-format",
            type=click.Choice(["auto", "console", "json"]),
            default="auto",
            show_default=True,
            help="auto: console on a terminal, else json.",
        ),
        option(
            "--debug",
            is_flag=True,
            expose_value=False,
            callback=_note_debug,
            help="Show tracebacks of errors.",
        ),
    ]
    return cast(Function, apply_options(decorators, wrapper))


def store_options(function: Function) -> Function:
    """Add --store, --endpoint-url, --create-bucket and --data, given to the command as a StoreOptions `store`."""

    @functools.wraps(function)
    def wrapper(
        *args: Any, store: str | None, endpoint_url: str | None, create_bucket: bool, data: Path, **parameters: Any
    ) -> Any:
        if store is None and endpoint_url is not None:
            raise UsageError("--endpoint-url needs --store: which bucket at that endpoint?")
        location = _parse_store(store) if store is not None else None
        options = StoreOptions(location, endpoint_url, create_bucket, data, current_invocation().settings)
        return function(*args, store=options, **parameters)

    decorators = [
        option("--store", metavar="s3://BUCKET[/PREFIX]", help="The bucket; without it, the embedded store."),
        option("--endpoint-url", metavar="URL", help="The S3 server, if not Amazon's."),
        option("--create-bucket", is_flag=True, help="Create the bucket if it does not exist."),
        option(
            "--data",
            type=click.Path(file_okay=False, path_type=Path),
            default="data",
            show_default=True,
            help="Where the embedded store, the identity and the local state are by default.",
        ),
    ]
    return cast(Function, apply_options(decorators, wrapper))


def http_option(help_text: str) -> Callable[[Function], Function]:
    """Return a decorator that adds --http."""
    return cast(
        Callable[[Function], Function],
        option("--http", metavar="HOST:PORT", default=DEFAULT_HTTP, show_default=True, help=help_text),
    )


def parse_http(text: str) -> HostPort:
    """Parse the value of --http. Raises UsageError."""
    try:
        return parse_host_port(text)
    except UsageError as error:
        raise UsageError(f"--http: {error}") from None


def buffer_memory_option(help_text: str) -> Decorator:
    """Return a decorator that adds --buffer-memory, given to the command as `buffer_memory` in MiB."""
    return option(
        "--buffer-memory",
        type=click.IntRange(min=MIN_BUFFER_MEMORY // MIB),
        default=DEFAULT_BUFFER_MEMORY // MIB,
        show_default=True,
        metavar="MIB",
        help=help_text,
    )


def history_option(help_text: str) -> Decorator:
    """Return a decorator that adds --history, given to the command as `history` in days."""
    return option(
        "--history",
        type=click.IntRange(min=int(MIN_HISTORY // DAY)),
        default=int(DEFAULT_HISTORY // DAY),
        show_default=True,
        metavar="DAYS",
        help=help_text,
    )


def json_option(function: Function) -> Function:
    """Add --json, given to the command as `as_json`."""
    return cast(Function, option("--json", "as_json", is_flag=True, help="Print JSON.")(function))


def single_writer_option(function: Function) -> Function:
    """Add --single-writer, for a command that may create records, given to it as `single_writer`."""
    text = "The store cannot write on conditions, and no other program writes to it now."
    return cast(Function, option("--single-writer", is_flag=True, help=text)(function))


def apply_options(decorators: list[Any], function: Callable[..., Any]) -> Callable[..., Any]:
    """Apply decorators so that `--help` shows their options in the order of the list."""
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def current_invocation() -> Invocation:
    """Return the Invocation of the command that runs."""
    return click.get_current_context().ensure_object(Invocation)


def all_commands(context: click.Context) -> Iterator[click.Command]:
    """Yield the command of `context` and, if it is a group, all commands in it. Imports the modules of all."""
    command = context.command
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from all_commands(click.Context(inner, parent=context, info_name=name))


def _parse_store(url: str) -> StoreLocation:
    try:
        return StoreLocation.parse(url)
    except UsageError as error:
        raise UsageError(f"--store: {error}") from None


def _note_debug(context: click.Context, parameter: click.Parameter, debug: bool) -> None:
    context.ensure_object(Invocation).debug = debug


def _apply_configuration(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    """Make the values of a configuration file the defaults of the command's options."""
    if path is None:
        return
    context.meta[CONFIGURATION_FILE] = path
    # A file may have keys of all commands.
    known = {setting.key for command in all_commands(context.find_root()) for setting in _settings_of(command)}
    values = read_configuration(path, known)
    given = {
        str(setting.name): _as_default(setting, values[setting.key], path)
        for setting in _settings_of(context.command)
        if setting.key in values
    }
    context.default_map = {**(context.default_map or {}), **given}


def _as_default(setting: Setting, value: Any, path: Path) -> Any:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | bool) for item in values) or (
        isinstance(value, list) and not setting.multiple
    ):
        raise UsageError(f"{path}: {setting.key!r} takes {'a list of texts' if setting.multiple else 'one value'}")
    return values if setting.multiple else value


def _settings_of(command: click.Command) -> list[Setting]:
    return [parameter for parameter in command.params if isinstance(parameter, Setting)]
