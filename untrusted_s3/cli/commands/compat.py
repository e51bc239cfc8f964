"""`untrusted-s3 compat`: test a Syncthing program together with this one."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from untrusted_s3.cli.options import common_options, json_option, option
from untrusted_s3.cli.output import print_json
from untrusted_s3.errors import DataError, UsageError
from untrusted_s3.structured_logging import printable

if TYPE_CHECKING:
    from untrusted_s3.compat.checks import CheckResult

DEFAULT_TIME_LIMIT = 300.0
_VERDICTS = {"ok": "ok", "failed": "FAIL", "not run": "-"}
_WIDTH = 19


@click.command()
@option("--syncthing", metavar="PATH", required=True, help="The Syncthing program to test.")
@option(
    "--time-limit",
    key="compat-time-limit",
    type=click.FloatRange(min=1),
    default=DEFAULT_TIME_LIMIT,
    show_default=True,
    metavar="SECONDS",
    help="Give up after this time.",
)
@option("--keep", key="compat-keep", is_flag=True, help="Keep the temporary folder with all logs, and print its path.")
@json_option
@common_options
@click.pass_context
def compat(context: click.Context, syncthing: str, time_limit: float, keep: bool, as_json: bool) -> None:
    """Test a Syncthing program together with this one.

    Starts that program as two trusted devices, a gateway between them and an embedded store, all on the loopback
    interface and in a temporary folder. Nothing is announced to other devices. Prints a line for each check; the exit
    code is 1 if one fails.
    """
    # Imported here, because a gateway's process must load nothing that can decrypt.
    from untrusted_s3.compat.round_trip import RoundTrip
    from untrusted_s3.compat.versions import versions

    program = shutil.which(syncthing)
    if program is None:
        raise UsageError(f"--syncthing: there is no program {syncthing}")
    binary = Path(program).absolute()
    found = versions(binary)
    if not as_json:
        click.echo(", ".join(f"{name} {number}" for name, number in found.items()))
    started = time.monotonic()
    results: list[CheckResult] = []
    with _directory(keep) as directory, RoundTrip(binary, directory, time_limit) as run:
        for result in run.checks():
            results.append(result)
            if not as_json:
                _print_line(result)
    seconds = time.monotonic() - started
    well = not any(result.status == "failed" for result in results)
    if as_json:
        print_json(
            {
                "ok": well,
                "versions": found,
                "seconds": round(seconds, 3),
                "checks": [
                    {
                        "name": result.name,
                        "status": result.status,
                        "detail": result.detail,
                        "seconds": round(result.seconds, 3),
                    }
                    for result in results
                ],
            }
        )
    else:
        _print_sum(results, seconds)
    context.exit(0 if well else DataError.exit_code)


@contextlib.contextmanager
def _directory(keep: bool) -> Iterator[Path]:
    if not keep:
        with tempfile.TemporaryDirectory(prefix="untrusted-s3-compat-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    directory = Path(tempfile.mkdtemp(prefix="untrusted-s3-compat-"))
    try:
        yield directory
    finally:
        click.echo(f"kept: {directory}", err=True)


def _print_line(result: CheckResult) -> None:
    first, *others = (printable(line) for line in result.detail.split("\n"))
    click.echo(f"{_VERDICTS[result.status]:<4}  {result.name:<{_WIDTH}}  {result.seconds:>5.1f} s  {first}")
    for line in others:
        click.echo(f"      {line}")


def _print_sum(results: Sequence[CheckResult], seconds: float) -> None:
    counts = {status: sum(result.status == status for result in results) for status in _VERDICTS}
    others = "".join(f", {count} {status}" for status, count in counts.items() if count and status != "ok")
    click.echo(f"{counts['ok']} of {len(results)} checks are well{others} ({seconds:.1f} s)")
