"""The command line: all commands, and what becomes of their errors."""

from __future__ import annotations

import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path

import click

from untrusted_s3 import __version__
from untrusted_s3.cli.commands.cat import cat
from untrusted_s3.cli.commands.compat import compat
from untrusted_s3.cli.commands.doctor import doctor
from untrusted_s3.cli.commands.folders import folders
from untrusted_s3.cli.commands.id import device_id
from untrusted_s3.cli.commands.ls import ls
from untrusted_s3.cli.commands.peers import peers
from untrusted_s3.cli.commands.restore import restore
from untrusted_s3.cli.commands.serve import serve
from untrusted_s3.cli.commands.status import status
from untrusted_s3.cli.commands.vectors import vectors
from untrusted_s3.cli.commands.verify import verify
from untrusted_s3.cli.options import Invocation
from untrusted_s3.errors import UntrustedS3Error
from untrusted_s3.structured_logging import redact_text

INTERRUPTED = 130  # 128 + SIGINT
BROKEN_PIPE = 141  # 128 + SIGPIPE


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="untrusted-s3 %(version)s")
def cli() -> None:
    """A Syncthing device that keeps encrypted folders in S3 and owns no disk.

    \b
    Exit codes: 0 all well; 1 something wrong in the data, or a fault of this program;
    2 usage or configuration; 3 the store cannot be reached or refuses; 4 wrong password;
    5 no gateway answers; 130 interrupted; 141 nobody reads the output.
    """


for _command in (
    serve,
    device_id,
    peers,
    folders,
    status,
    doctor,
    ls,
    cat,
    restore,
    verify,
    vectors,
    compat,
):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command line, without the program's name, and gives the exit code."""
    invocation = Invocation()
    try:
        exit_code = _run(sys.argv[1:] if arguments is None else list(arguments), invocation)
        sys.stdout.flush()
        return exit_code
    except UntrustedS3Error as error:
        return _report(str(error), error.exit_code, invocation)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "untrusted-s3"
        return _report(f"{error.format_message()} (see {command} --help)", 2, invocation)
    except click.ClickException as error:
        return _report(error.format_message(), 2, invocation)
    except (KeyboardInterrupt, click.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Python flushes standard output once more at exit; that must not fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        where = "" if invocation.debug else _keep_traceback()
        return _report(f"a fault of this program: {type(error).__name__}: {error}{where}", 1, invocation)


def _run(arguments: list[str], invocation: Invocation) -> int:
    # Not by click's own `main`: it would hide which errors came up.
    try:
        with cli.make_context("untrusted-s3", arguments, obj=invocation) as context:
            cli.invoke(context)
        return 0
    except click.exceptions.Exit as end:
        return end.exit_code


def _report(message: str, exit_code: int, invocation: Invocation) -> int:
    if invocation.debug:
        click.echo(redact_text(traceback.format_exc()), err=True, nl=False)
    click.echo(f"error: {redact_text(message)}", err=True)
    return exit_code


def _keep_traceback() -> str:
    try:
        descriptor, name = tempfile.mkstemp(prefix="untrusted-s3-", suffix=".log", text=True)
        with os.fdopen(descriptor, "w") as file:
            file.write(redact_text(traceback.format_exc()))
    except OSError:
        return " (--debug shows the traceback)"
    return f" (traceback in {Path(name)}; --debug shows it here)"
