"""Options that commands share, and where their values come from.

Every option is also an environment variable and a key of the configuration file: `--endpoint-url` is
UNTRUSTED_S3_ENDPOINT_URL and `endpoint-url`. The command line wins over the environment, the environment over the
file, the file over the default. Several values of one option are separated by spaces in the environment, and are a
list in the file.
"""

from __future__ import annotations

import functools
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar, cast

import click

from untrusted_s3.cli.invocation import Invocation
from untrusted_s3.cli.terminal import LiveLine
from untrusted_s3.errors import UsageError
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.structured_logging import configure_logging

CONFIGURATION_FILE = "untrusted_s3.configuration_file"  # a key of click's Context.meta
ENVIRONMENT_PREFIX = "UNTRUSTED_S3_"
DEFAULT_HTTP = "127.0.0.1:8385"

Function = TypeVar("Function", bound=Callable[..., Any])
Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Setting(click.Option):
    """An option, an environment variable and a key of the configuration file, all of one name.

    `key` is that name where it must differ from the option's, because another command has an option of that name
    with another meaning.
    """

    def __init__(self, declarations: list[str], key: str | None = None, **attributes: Any) -> None:
        super().__init__(declarations, **attributes)
        self.key = key or max(self.opts, key=len).lstrip("-")
        self.envvar = ENVIRONMENT_PREFIX + self.key.replace("-", "_").upper()
        self.show_envvar = True


option = cast(Callable[..., Decorator], functools.partial(click.option, cls=Setting))


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Which store to use. Without a location, the embedded one under `data`."""

    location: StoreLocation | None
    endpoint_url: str | None
    create_bucket: bool
    data: Path

    @property
    def embedded_directory(self) -> Path:
        """Where the embedded store keeps its data."""
        return self.data / "seaweedfs"


def parse_host_port(text: str, what: str) -> tuple[str, int]:
    """Host (perhaps empty) and port of `HOST:PORT` or `[HOST]:PORT`. Raises UsageError; `what` names the option."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"{what} must look like HOST:PORT, not {text!r}")
    if (":" in host or "/" in host) and not bracketed:
        raise UsageError(f"{what}: an IPv6 address needs brackets, as in [::1]:{port}, in {text!r}")
    return host.strip("[]"), int(port)


def common_options(function: Function) -> Function:
    """--config, --log-level, --log-format, --debug: for every command."""

    @functools.wraps(function)
    def wrapper(*args: Any, log_level: str, log_format: Any, **parameters: Any) -> Any:
        live_line = LiveLine(sys.stderr)
        click.get_current_context().ensure_object(Invocation).live_line = live_line
        configure_logging(log_level, log_format, cast(TextIO, live_line))
        return function(*args, **parameters)

    decorators = [
        option(
            "--config",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            is_eager=True,
            expose_value=False,
            callback=_read_configuration,
            help="TOML file whose keys are named like the options.",
        ),
        option(
            "--log-level",
            type=click.Choice(["debug", "info", "warning", "error"]),
            default="info",
            show_default=True,
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
    return cast(Function, _apply(decorators, wrapper))


def store_options(function: Function) -> Function:
    """--store, --endpoint-url, --create-bucket and --data, given to the command as one StoreOptions named `store`."""

    @functools.wraps(function)
    def wrapper(
        *args: Any, store: str | None, endpoint_url: str | None, create_bucket: bool, data: Path, **parameters: Any
    ) -> Any:
        if store is None and endpoint_url is not None:
            raise UsageError("--endpoint-url needs --store: which bucket at that endpoint?")
        location = StoreLocation.parse(store) if store is not None else None
        return function(*args, store=StoreOptions(location, endpoint_url, create_bucket, data), **parameters)

    decorators = [
        option("--store", metavar="s3://BUCKET[/PREFIX]", help="The bucket; without it, the embedded store."),
        option("--endpoint-url", metavar="URL", help="The S3 server, where it is not Amazon's."),
        option("--create-bucket", is_flag=True, help="Create the bucket if it is not there."),
        option(
            "--data",
            type=click.Path(file_okay=False, path_type=Path),
            default="data",
            show_default=True,
            help="Where the embedded store, the identity and the local state are by default.",
        ),
    ]
    return cast(Function, _apply(decorators, wrapper))


def http_option(help_text: str) -> Callable[[Function], Function]:
    """--http."""
    return cast(
        Callable[[Function], Function],
        option("--http", metavar="HOST:PORT", default=DEFAULT_HTTP, show_default=True, help=help_text),
    )


def json_option(function: Function) -> Function:
    """--json, given to the command as `as_json`."""
    return cast(Function, option("--json", "as_json", is_flag=True, help="JSON instead of a table.")(function))


def _apply(decorators: list[Any], function: Callable[..., Any]) -> Callable[..., Any]:
    for decorate in reversed(decorators):
        function = decorate(function)
    return function


def _note_debug(context: click.Context, parameter: click.Parameter, debug: bool) -> None:
    context.ensure_object(Invocation).debug = debug


def _read_configuration(context: click.Context, parameter: click.Parameter, path: Path | None) -> None:
    if path is None:
        return
    context.meta[CONFIGURATION_FILE] = path
    values = read_configuration(path, {setting.key for setting in _all_settings(context.find_root())})
    given = {
        str(setting.name): _as_default(setting, values[setting.key], path)
        for setting in _settings(context.command)
        if setting.key in values
    }
    context.default_map = {**(context.default_map or {}), **given}


def read_configuration(path: Path, known: set[str]) -> dict[str, Any]:
    """The keys of a configuration file and their values; sections are for the reader's eye alone.

    Raises UsageError for a file that is no TOML, and for a key that is not among `known` or is given twice.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no valid TOML: {error}") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from error
    values: dict[str, Any] = {}
    sections = [value for value in document.values() if isinstance(value, dict)]
    for section in [document, *sections]:
        for name, value in section.items():
            if isinstance(value, dict) and section is document:
                continue
            key = name.replace("_", "-")
            if key not in known or key == "config":
                raise UsageError(f"{path}: unknown key {name!r}; keys are named like the options of the command line")
            if key in values:
                raise UsageError(f"{path}: {name!r} is given twice")
            values[key] = value
    return values


def _as_default(setting: Setting, value: Any, path: Path) -> Any:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str | int | bool) for item in values) or (
        isinstance(value, list) and not setting.multiple
    ):
        raise UsageError(f"{path}: {setting.key!r} takes {'a list of texts' if setting.multiple else 'one value'}")
    return values if setting.multiple else value


def _settings(command: click.Command) -> list[Setting]:
    return [parameter for parameter in command.params if isinstance(parameter, Setting)]


def _all_settings(context: click.Context) -> Iterator[Setting]:
    for command in all_commands(context):
        yield from _settings(command)


def all_commands(context: click.Context) -> Iterator[click.Command]:
    """Yield the command of `context` and, if it is a group, all commands in it. Imports the modules of all."""
    command = context.command
    yield command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None:
                yield from all_commands(click.Context(inner, parent=context, info_name=name))
