"""`untrusted-s3 vectors`: check this installation's crypto against known answers."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from untrusted_s3.cli.options import common_options, json_option, option
from untrusted_s3.cli.output import print_json
from untrusted_s3.errors import DataError, UsageError

if TYPE_CHECKING:
    from untrusted_s3.vectors_check.implementation import Implementation
    from untrusted_s3.vectors_check.run import GroupResult

_LIBRARIES = ("cryptography", "miscreant", "PyNaCl")
_WIDTH = 18


@click.command()
@option(
    "--vectors",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Directory of other files of the same format.  [default: the files of this installation]",
)
@option(
    "--junit",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Also write a JUnit report to this file.",
)
@json_option
@common_options
@click.pass_context
def vectors(context: click.Context, directory: Path | None, junit: Path | None, as_json: bool) -> None:
    """Check this installation's crypto against known answers.

    The answers come from RFCs and from real Syncthing. Each question is put to this program's own code and, for a
    second opinion, to other libraries. The exit code is 1 if an answer is wrong.
    """
    # Imported here, because a gateway's process must load nothing that can decrypt.
    from untrusted_s3.vectors_check.cases import default_directory
    from untrusted_s3.vectors_check.junit import junit_report
    from untrusted_s3.vectors_check.run import load_groups, run_groups

    groups = load_groups(directory or default_directory())
    results = []
    for result in run_groups(groups, _implementations()):
        results.append(result)
        if not as_json:
            _print_line(result)
    well = not any(result.faults for result in results)
    if as_json:
        print_json(_document(results, well))
    else:
        _print_sum(results)
    if junit is not None:
        try:
            junit.write_bytes(junit_report(results, "untrusted-s3 vectors"))
        except OSError as error:
            raise UsageError(f"{junit} cannot be written: {error.strerror}") from error
    context.exit(0 if well else DataError.exit_code)


def _implementations() -> list[Implementation]:
    from untrusted_s3.vectors_check.ours import Ours

    try:
        from untrusted_s3.vectors_check.second_opinion import SecondOpinion
    except ImportError as error:
        click.echo(f"no second opinion: {error} (pip install 'untrusted-s3[vectors]')", err=True)
        return [Ours()]
    return [Ours(), SecondOpinion()]


def _print_line(result: GroupResult) -> None:
    verdict = "FAIL" if result.faults else "ok"
    click.echo(
        f"{verdict:<4}  {result.operation:<{_WIDTH}}  {result.cases:>4} cases, {result.refusals:>3} to refuse"
        f"  ({', '.join(result.libraries)})"
    )
    for answer in result.faults:
        click.echo(f"      {answer.case.id} [{answer.libraries}]: {answer.fault}")


def _print_sum(results: Sequence[GroupResult]) -> None:
    answers = sum(len(result.answers) for result in results)
    faults = sum(len(result.faults) for result in results)
    libraries = ", ".join(f"{name} {number}" for name, number in _versions().items())
    click.echo(f"{answers - faults:,} of {answers:,} answers are right ({libraries})")


def _versions() -> dict[str, str]:
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _document(results: Sequence[GroupResult], well: bool) -> dict[str, Any]:
    return {
        "ok": well,
        "libraries": _versions(),
        "groups": [
            {
                "operation": result.operation,
                "cases": result.cases,
                "refusals": result.refusals,
                "implementations": list(result.libraries),
                "answers": len(result.answers),
                "faults": [
                    {"case": answer.case.id, "implementation": answer.libraries, "fault": answer.fault}
                    for answer in result.faults
                ],
            }
            for result in results
        ],
    }
