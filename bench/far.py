"""`python -m bench --far`: one folder to a store and back, at several distances, beside rclone crypt and restic.

A gateway takes the folder from a real Syncthing, gives it to another one, and `untrusted-s3 restore` gets it straight
from the store. A native device has it on the local disk, wherever the store is. rclone and restic copy it to the same
kind of store and back.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import SubprocessError

from bench.far_store import Distance
from bench.measure import STORE, Measurement
from bench.programs import MakeCommands, prepare, rclone_crypt, restic, restore_command, run_measured
from bench.receivers import Receiver, ReceiverFailed, ReceiverUnavailable, gateway, native, new_store
from bench.sharing import assert_same_tree
from bench.table import Row, Work
from bench.workloads import INGEST, SERVE, Report, Shape, synchronise
from untrusted_s3.errors import UntrustedS3Error

RESTORE = "restore"
ROUND_TRIPS = (0.0, 20.0, 40.0, 100.0)
"""Distances of the store, in milliseconds to it and back."""

_PROGRAMS: Mapping[str, MakeCommands] = {"rclone crypt": rclone_crypt, "restic": restic}


@dataclass(frozen=True)
class _Candidate:
    """Somebody who does some of the work: `run` does it in an empty directory. `kind` is as in Row."""

    title: str
    kind: str
    works: Sequence[str]
    run: Callable[[Path, Report], None]


def measure(
    shapes: Sequence[Shape],
    distances: Sequence[Distance],
    syncthing: Path,
    repeat: int,
    directory: Path | None,
    timeout: float,
    say: Callable[[str], None],
) -> list[Work]:
    """Measure all shapes at all distances, and tell what is done."""
    works: list[Work] = []
    for shape in shapes:
        with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as root:
            source = Path(root, "source")
            shape.build(source)
            for distance in distances:
                candidates = list(_candidates(shape, source, distance, syncthing, timeout))
                works += _at(shape, distance, candidates, repeat, Path(root, "run"), say)
    return works


def _candidates(
    shape: Shape, source: Path, distance: Distance, syncthing: Path, timeout: float
) -> Iterator[_Candidate]:
    ours = functools.partial(_ours, shape, source, syncthing, distance, timeout)
    yield _Candidate("untrusted_s3", "gateway", (INGEST, SERVE, RESTORE), ours)
    on_disk = functools.partial(_native, shape, source, syncthing, timeout)
    yield _Candidate("Syncthing on local disk", "native", (INGEST, SERVE), on_disk)
    for title, make in _PROGRAMS.items():
        yield _Candidate(title, "peer", (INGEST, RESTORE), functools.partial(_program, make, source, distance))


def _at(
    shape: Shape,
    distance: Distance,
    candidates: Sequence[_Candidate],
    repeat: int,
    directory: Path,
    say: Callable[[str], None],
) -> Sequence[Work]:
    """Return the workloads of one shape at one distance, each with a row for everybody who does it."""
    where = str(distance) if distance else "store near"
    name = f"{shape.name}-{distance.round_trip * 1000:.0f}ms"
    works = {
        work: Work(f"{work}-{name}", f"{work} {shape.title}, {where}", shape.files, shape.total)
        for work in (INGEST, SERVE, RESTORE)
    }
    rows = {one.title: {work: Row(one.title, one.kind) for work in one.works} for one in candidates}
    for work in works:
        works[work].rows += [by_work[work] for by_work in rows.values() if work in by_work]
    for number in range(repeat):
        for candidate in candidates:
            say(f"{shape.title}, {where}, run {number + 1} of {repeat}: {candidate.title}")
            _run(candidate, rows[candidate.title], directory, say)
    return list(works.values())


def _run(candidate: _Candidate, rows: Mapping[str, Row], directory: Path, say: Callable[[str], None]) -> None:
    missing = set(rows)

    def report(work: str, cost: Measurement) -> None:
        missing.discard(work)
        rows[work].runs.append(cost)
        say(f"    {work}: {cost.seconds:.2f} s")

    directory.mkdir()
    try:
        candidate.run(directory, report)
    except (ReceiverUnavailable, ReceiverFailed, UntrustedS3Error, AssertionError, OSError, SubprocessError) as error:
        say(f"    {error}")
        word = "not here" if isinstance(error, ReceiverUnavailable) else "failed"
        for work in missing:
            rows[work].error = f"{word}: {str(error).partition(chr(10))[0]}"
    finally:
        shutil.rmtree(directory)


def _ours(
    shape: Shape,
    source: Path,
    syncthing: Path,
    distance: Distance,
    timeout: float,
    directory: Path,
    report: Report,
) -> None:
    def restore(receiver: Receiver) -> None:
        assert receiver.store is not None
        store, url = receiver.store
        command, environment = restore_command(store, url, directory / "restored")
        report(RESTORE, run_measured(command, environment, {STORE: store.pid}))
        assert_same_tree(source, directory / "restored")

    make = functools.partial(
        synchronise, shape, source, gateway, syncthing, directory, report, serve=True, timeout=timeout
    )
    make(distance=distance, then=restore)


def _native(shape: Shape, source: Path, syncthing: Path, timeout: float, directory: Path, report: Report) -> None:
    synchronise(shape, source, native, syncthing, directory, report, serve=True, timeout=timeout)


def _program(make: MakeCommands, source: Path, distance: Distance, directory: Path, report: Report) -> None:
    with new_store(directory, distance) as (store, url):
        commands = make(store, url, source, directory)
        prepare(commands)
        report(INGEST, run_measured(commands.there, commands.environment, {STORE: store.pid}))
        report(RESTORE, run_measured(commands.back, commands.environment, {STORE: store.pid}))
        assert_same_tree(source, commands.restored)
