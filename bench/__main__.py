"""`python -m bench`: the gateway, native Syncthing and an S3 mount, compared in one run on one machine.

Each receiver takes a large file and many small ones from a real Syncthing and gives them to another. A bare client
shows what the S3 server can do. Every run has fresh processes and directories. Only ratios within one run count, and
only on an idle machine. Figures are never asserted.

Linux only: it reads /proc.
"""

from __future__ import annotations

import functools
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError

import click
from click.core import ParameterSource

from bench.far import ROUND_TRIPS
from bench.far import measure as measure_far
from bench.far_store import Distance
from bench.machine import describe
from bench.measure import Measurement
from bench.options import syncthing_option
from bench.receivers import MakeReceiver, ReceiverFailed, ReceiverUnavailable, gateway, native, s3fs
from bench.scale import measure as measure_scale
from bench.table import LEGEND, Row, Work, render
from bench.workloads import INGEST, MIB, SERVE, Report, Shape, put_and_get, size_text, synchronise
from untrusted_s3.compat.syncthing import syncthing_version
from untrusted_s3.errors import UntrustedS3Error

_RECEIVERS: dict[str, tuple[MakeReceiver, str, str]] = {
    "gateway": (gateway, "gateway", "untrusted_s3"),
    "native": (native, "native", "Syncthing on local disk"),
    "s3fs": (s3fs, "mount", "Syncthing on s3fs"),
}
_BARE = "bare"
_FAR_SIZE, _FAR_FILES = 256, 2000  # four distances take a while
_RECEIVER_NAMES = (*_RECEIVERS, _BARE)
_WORK_NAMES = tuple(f"{work}-{shape}" for shape in ("large", "small") for work in (INGEST, SERVE))


@dataclass(frozen=True)
class _Candidate:
    """A measurement: `run` does it in an empty directory, `title` is its name in the table, `kind` is as in Row."""

    title: str
    kind: str
    run: Callable[[Path, Report], None]


@click.command()
@syncthing_option
@click.option(
    "--size",
    default=1024,
    show_default=True,
    type=click.IntRange(min=16),
    help="MiB of the large file, a multiple of 16.",
)
@click.option("--files", default=5000, show_default=True, type=click.IntRange(min=2), help="Files of 4 KiB.")
@click.option("--repeat", default=1, show_default=True, type=click.IntRange(min=1), help="Runs; medians are shown.")
@click.option(
    "--only",
    multiple=True,
    type=click.Choice([*_RECEIVER_NAMES, *_WORK_NAMES]),
    help="A receiver or a workload; may be repeated.",
)
@click.option(
    "--round-trip",
    default=0.0,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Milliseconds to the store and back.",
)
@click.option(
    "--bandwidth",
    default=0.0,
    type=click.FloatRange(min=0),
    help="MiB a second to the store, and as many back.  [default: no limit]",
)
@click.option(
    "--far",
    is_flag=True,
    help="At 0, 20, 40 and 100 ms, with restore, beside rclone crypt and restic; by default 256 MiB and 2,000 files.",
)
@click.option("--scale", is_flag=True, help="Ingest FILES of 1 KiB in ten parts instead: is the pace even to the last?")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
@click.option("--timeout", default=1800.0, show_default=True, help="Seconds after which a run counts as failed.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where all data is while it is needed, about five times SIZE.  [default: the system's for temporary files]",
)
def main(
    syncthing: Path,
    size: int,
    files: int,
    repeat: int,
    only: tuple[str, ...],
    round_trip: float,
    bandwidth: float,
    far: bool,
    scale: bool,
    json_file: Path | None,
    timeout: float,
    directory: Path | None,
) -> None:
    """Measure receivers of a Syncthing folder side by side."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so everything is cleaned up
    if far:
        given = click.get_current_context().get_parameter_source
        size = _FAR_SIZE if given("size") is ParameterSource.DEFAULT else size
        files = _FAR_FILES if given("files") is ParameterSource.DEFAULT else files
    if size % 16:
        raise click.BadParameter("must be a multiple of 16", param_hint="--size")
    receivers = [name for name in _RECEIVER_NAMES if name in only] or list(_RECEIVER_NAMES)
    wanted = [name for name in _WORK_NAMES if name in only] or list(_WORK_NAMES)
    shapes = [
        Shape("large", 1, size * MIB, (8 * MIB, 16 * MIB)),
        Shape("small", files, 4096, (4096,)),
    ]
    try:
        version = syncthing_version(syncthing)
        machine = describe(version)
    except UntrustedS3Error as error:
        raise click.ClickException(str(error)) from error
    distance = Distance(round_trip / 1000, bandwidth * MIB)
    if distance and not far:
        machine += f"; {distance}"
    click.echo(machine, err=True)
    if scale:
        _measure_scale(syncthing, files, directory, timeout, machine, json_file)
        return

    works: list[Work] = []
    well = True
    if far:
        shapes = [shape for shape in shapes if any(name.endswith(shape.name) for name in wanted)]
        round_trips = [round_trip] if round_trip else ROUND_TRIPS
        distances = [Distance(number / 1000, bandwidth * MIB) for number in round_trips]
        say = functools.partial(click.echo, err=True)
        works = measure_far(shapes, distances, syncthing, repeat, directory, timeout, say)
        well = not any(row.error for work in works for row in work.rows if row.kind == "gateway")
    for shape in [] if far else shapes:
        of_shape = {
            work: Work(f"{work}-{shape.name}", f"{work} {shape.title}", shape.files, shape.total)
            for work in (INGEST, SERVE)
            if f"{work}-{shape.name}" in wanted
        }
        if of_shape:
            works += of_shape.values()
            with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as root:
                source = Path(root, "source")
                shape.build(source)
                candidates = list(
                    _candidates(shape, source, receivers, syncthing, timeout, distance, serve=SERVE in of_shape)
                )
                well &= _measure(shape, of_shape, Path(root), candidates, repeat)

    click.echo(f"{machine}\n\n{render(works)}\n{LEGEND}")
    if json_file is not None:
        document = {
            "machine": machine,
            "options": {
                "syncthing": version,
                "size": size,
                "files": files,
                "repeat": repeat,
                "round_trip_ms": round_trip,
                "bandwidth_mib": bandwidth,
            },
            "workloads": [work.to_json() for work in works],
        }
        json_file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    if not well:
        sys.exit(1)


def _measure_scale(
    syncthing: Path, files: int, directory: Path | None, timeout: float, machine: str, json_file: Path | None
) -> None:
    try:
        found = measure_scale(syncthing, files, directory, timeout, click.echo)
    except (UntrustedS3Error, OSError) as error:
        raise click.ClickException(str(error)) from error
    if json_file is not None:
        works = [work.to_json() for work in found.workloads()]
        document = {"machine": machine, "options": {"files": files}, "scale": found.to_json(), "workloads": works}
        json_file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _measure(
    shape: Shape,
    works: Mapping[str, Work],
    root: Path,
    candidates: Sequence[_Candidate],
    repeat: int,
) -> bool:
    """Run all candidates in turn, `repeat` times, so a slow phase of the machine affects all of them."""
    rows = {candidate.title: {work: Row(candidate.title, candidate.kind) for work in works} for candidate in candidates}
    for work in works:
        works[work].rows += [by_work[work] for by_work in rows.values()]
    well = True
    for number in range(repeat):
        for candidate in candidates:
            click.echo(f"{shape.title}, run {number + 1} of {repeat}: {candidate.title}", err=True)
            well &= _run(candidate, rows[candidate.title], root / "run")
    return well


def _run(candidate: _Candidate, rows: Mapping[str, Row], directory: Path) -> bool:
    """Run one candidate in a directory of its own. Return false if it failed."""
    missing = set(rows)

    def report(work: str, measurement: Measurement) -> None:
        if work in rows:
            missing.discard(work)
            rows[work].runs.append(measurement)
            click.echo(f"    {work}: {measurement.seconds:.2f} s", err=True)

    directory.mkdir()
    try:
        candidate.run(directory, report)
        return True
    except (ReceiverUnavailable, ReceiverFailed, UntrustedS3Error, AssertionError, OSError, SubprocessError) as error:
        click.echo(f"    {error}", err=True)
        unavailable = isinstance(error, ReceiverUnavailable)
        for work in missing:
            rows[work].error = f"{'not here' if unavailable else 'failed'}: {str(error).partition(chr(10))[0]}"
        return unavailable
    finally:
        shutil.rmtree(directory)


def _candidates(
    shape: Shape,
    source: Path,
    names: Sequence[str],
    binary: Path,
    timeout: float,
    distance: Distance,
    *,
    serve: bool,
) -> Iterator[_Candidate]:
    for name in names:
        if name == _BARE:
            for size in shape.put_sizes:
                run = functools.partial(put_and_get, shape, size, distance=distance)
                yield _Candidate(f"bare client, {size_text(size)}", "limit", run)
        else:
            make, kind, title = _RECEIVERS[name]
            run = functools.partial(
                synchronise, shape, source, make, binary, serve=serve, timeout=timeout, distance=distance
            )
            yield _Candidate(title, kind, run)


if __name__ == "__main__":
    main()
