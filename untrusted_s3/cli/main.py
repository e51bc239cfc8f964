"""The command line: all commands, and what their errors look like."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Any, Final

import click

from untrusted_s3 import __version__
from untrusted_s3.cli.invocation import Invocation
from untrusted_s3.cli.lazy_group import LazyCommand, LazyGroup
from untrusted_s3.errors import (
    BROKEN_PIPE,
    EXIT_CODES,
    FAILED,
    INTERRUPTED,
    SUCCESS,
    USAGE,
    OutputFailed,
    UntrustedS3Error,
    UsageError,
)
from untrusted_s3.settings import Settings

_NAME: Final = "untrusted-s3"
# Shells set it, by click's rule of names, to get their script or the words that may follow (README.md, "Commands").
COMPLETION_VARIABLE: Final = "_UNTRUSTED_S3_COMPLETE"


def _command(module: str, name: str, help_text: str) -> LazyCommand:
    return LazyCommand(f"untrusted_s3.cli.commands.{module}", name, help_text)


# Only modules that every command needs are imported above: `--help` and `--version` load nothing else.
_COMMANDS = {
    "cat": _command("cat", "cat", "Write a file of a folder to standard output."),
    "check": _command("check", "check", "Check the store without any password."),
    "compat": _command("compat", "compat", "Test a Syncthing program together with this one."),
    "doctor": _command("doctor", "doctor", "Check whether the store does what a gateway needs."),
    "folders": _command("folders", "folders", "List, change, import, export, remove and take back folders."),
    "gc": _command("gc", "gc", "Delete what no folder's history needs any more."),
    "id": _command("id", "device_id", "Print this gateway's device ID."),
    "keep": _command("keep", "keep", "Show or set how much of the history is kept."),
    "ls": _command("ls", "ls", "List a folder, straight from the store."),
    "peers": _command("peers", "peers", "List, accept, change and remove devices."),
    "repair": _command("repair", "repair", "Mend what a check finds damaged or missing."),
    "replicate": _command("replicate", "replicate_", "Copy the store into another bucket, object by object as it is."),
    "restore": _command("restore", "restore", "Restore a folder to a directory."),
    "serve": _command("serve", "serve", "Run the gateway until SIGINT or SIGTERM."),
    "stats": _command("stats", "stats", "Show what the store holds, and about what it costs."),
    "status": _command("status", "status", "Show what a running gateway does."),
    "vectors": _command("vectors", "vectors", "Check this installation's crypto against known answers."),
    "versions": _command("versions", "versions", "List the versions of a file that can be restored."),
    "verify": _command("verify", "verify", "Read, decrypt and check all of a folder."),
}


@click.group(
    cls=LazyGroup,
    lazy_commands=_COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="A Syncthing device that keeps encrypted folders in S3 and owns no disk.",
    epilog=f"Exit codes: {'; '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}.",
)
@click.version_option(__version__, message="untrusted-s3 %(version)s")
def cli() -> None:
    pass


def main(arguments: Sequence[str] | None = None, settings: Settings | None = None) -> int:
    """Run a command line, given without the program's name, and return the exit code.

    `settings` are what no option sets.
    """
    invocation = Invocation(settings or Settings())
    _prepare_streams()
    try:
        exit_code = _run(sys.argv[1:] if arguments is None else list(arguments), invocation)
        sys.stdout.flush()
        return exit_code
    except OutputFailed as error:
        _drop_output()
        return _report(str(error), error.exit_code, invocation)
    except UntrustedS3Error as error:
        from untrusted_s3.cli.advice import explain

        return _report(explain(error), error.exit_code, invocation)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else _NAME
        return _report(f"{error.format_message()} (see {command} --help)", USAGE, invocation)
    except click.ClickException as error:
        return _report(error.format_message(), USAGE, invocation)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return BROKEN_PIPE
    except Exception as error:
        where = "" if invocation.debug else _keep_traceback()
        return _report(f"internal error: {type(error).__name__}: {error}{where}", FAILED, invocation)


class _StandardOutput(io.FileIO):
    """Standard output. Raises OutputFailed, which nobody takes for the failure of another file."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            raise
        except OSError as error:
            reason = "it is closed" if error.errno == errno.EBADF else error.strerror
            raise OutputFailed(f"cannot write to standard output: {reason}") from error


def _prepare_streams() -> None:
    """Replace closed standard streams, and have characters escaped that the encoding of standard output lacks."""
    if sys.stderr is None:  # closed by the caller
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is not None and sys.stdout is not sys.__stdout__:
        return  # the caller of `main` has its own
    if sys.stdout is None:
        descriptor, encoding, terminal = os.open(os.devnull, os.O_RDONLY), "utf-8", False
    else:
        descriptor, encoding, terminal = sys.stdout.fileno(), sys.stdout.encoding, sys.stdout.isatty()
    output = io.BufferedWriter(_StandardOutput(descriptor, "w", closefd=False))
    sys.stdout = io.TextIOWrapper(output, encoding, "backslashreplace", line_buffering=terminal)


def _drop_output() -> None:
    """Python flushes standard output once more at exit; that must not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(arguments: list[str], invocation: Invocation) -> int:
    instruction = os.environ.get(COMPLETION_VARIABLE)
    if instruction:
        from click.shell_completion import shell_complete

        if shell_complete(cli, {"obj": invocation}, _NAME, COMPLETION_VARIABLE, instruction) == SUCCESS:
            return SUCCESS
        raise UsageError(f"{COMPLETION_VARIABLE} must be bash_source, zsh_source or fish_source")
    # click's own `main` would hide which errors came up.
    try:
        with cli.make_context(_NAME, arguments, obj=invocation) as context:
            cli.invoke(context)
        return SUCCESS
    except click.exceptions.Exit as end:
        return end.exit_code


def _report(message: str, exit_code: int, invocation: Invocation) -> int:
    from untrusted_s3.structured_logging import redact_text

    if invocation.debug:
        import traceback

        click.echo(redact_text(traceback.format_exc()), err=True, nl=False)
    click.echo(f"error: {redact_text(message)}", err=True)
    return exit_code


def _keep_traceback() -> str:
    """Write the traceback to a file, and return the words that say where it is."""
    import tempfile
    import traceback

    from untrusted_s3.structured_logging import redact_text

    try:
        descriptor, name = tempfile.mkstemp(prefix="untrusted-s3-", suffix=".log", text=True)
        with os.fdopen(descriptor, "w") as file:
            file.write(redact_text(traceback.format_exc()))
    except OSError:
        return " (--debug shows the traceback)"
    return f" (traceback in {name}; --debug shows it here)"
