"""`python -m bench --scale`: many files of 1 KiB from one real Syncthing, and whether the pace stays even to the last.

The run has ten parts with as many files each. Of each part it tells the rate, the CPU time a file, the peak of
resident memory, how late the event loop was at most, and what lies in the log. After the last file it tells when a lone
change is announced, and how long a gateway takes to start without its state. Figures are never asserted.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.measure import PEER, RECEIVER, STORE, Measurement, Meter, whole_life
from bench.sharing import PASSWORD, stored_keys
from bench.table import Row, Work
from untrusted_s3.compat.gateway_process import GatewayProcess
from untrusted_s3.compat.syncthing import Syncthing
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import FolderKeys

_FOLDER = "scale"
_FILE_SIZE = 1024
_IN_A_DIRECTORY = 1000
_PARTS = 10
_POLL_SECONDS = 1.0
_LONE_CHANGES = 3
_PAUSE_SECONDS = 5.0
_MEMORY_DIRECTORY = Path("/dev/shm")
_LAG = 'untrusted_s3_loop_lag_seconds_bucket{le="'
_MIB = 1 << 20
_HEADINGS = (
    "files", "pending", "seconds", "files/s", "CPU ms a file", "peak MiB", "loop late at most", "S3 CPU ms a file",
    "peer CPU ms a file", "segments", "MiB", "checkpoints", "MiB",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """A part of the run.

    Attributes:
        files: How many files the folder has after it.
        new: How many of them came in it.
        pending: How many were announced and not there yet.
        cost: What it took.
        late: The seconds by which the event loop was late at most, rounded up to a bound of the histogram.
        segments: The number of log segments in the store and their bytes.
        checkpoints: The number of checkpoints in the store and their bytes.
    """

    files: int
    new: int
    pending: int
    cost: Measurement
    late: float
    segments: tuple[int, int]
    checkpoints: tuple[int, int]


@dataclass
class Scale:
    """The results.

    Attributes:
        parts: The parts of the run.
        lone_changes: The seconds after which each of some lone changes was announced.
        start: The seconds, the CPU time and the peak of resident bytes of a start without local state.
    """

    files: int
    parts: list[Part]
    lone_changes: list[float]
    start: Measurement | None = None

    def workloads(self) -> list[Work]:
        """Return the parts as workloads of the bench."""
        works = []
        for number, part in enumerate(self.parts, 1):
            title = f"ingest {self.files:,} files of 1 KiB, part {number} of {_PARTS}"
            work = Work(f"scale-{number}", title, part.new, part.new * _FILE_SIZE)
            work.rows.append(Row("untrusted_s3", "gateway", [part.cost]))
            works.append(work)
        return works

    def to_json(self) -> dict[str, Any]:
        """Return all figures."""
        return asdict(self)


def measure(syncthing: Path, files: int, directory: Path | None, timeout: float, echo: Callable[[str], None]) -> Scale:
    """Measure the ingest of so many files. Each line of the table goes to `echo` as soon as it is known.

    `timeout` is how long no file may come. Raises UntrustedS3Error or OSError.
    """
    result = Scale(files, [], [])
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as root,
        _in_memory(directory) as memory,
        EmbeddedStore.start(Path(root, "seaweedfs")) as store,
        GatewayProcess(Path(root, "gateway"), store, "scale/") as gateway,
        Syncthing(syncthing, memory / "sender", "sender") as sender,
    ):
        source = Path(root, "source")
        make_files(source, files)
        echo("the files are made")
        _prepare(sender, gateway, source, timeout)
        echo("the files are scanned\n")
        echo(_line(_HEADINGS))
        processes = {RECEIVER: gateway.pid, STORE: store.pid, PEER: sender.pid}
        for part in _parts(sender, gateway, processes, files, timeout):
            result.parts.append(part)
            echo(_line(_cells(part)))
        echo("")
        for number in range(_LONE_CHANGES):
            change = source / f"lone {number}"
            result.lone_changes.append(_lone_change(sender, gateway, change, files + number + 1, timeout))
            echo(f"a lone change is announced after {result.lone_changes[-1]:.2f} s")
            time.sleep(_PAUSE_SECONDS)
        result.start = _cold_start(gateway, files + _LONE_CHANGES, timeout)
        echo(
            f"a start without local state takes {result.start.seconds:.1f} s, "
            f"{result.start.cpu_seconds[RECEIVER]:.1f} CPU s, {result.start.peak_bytes[RECEIVER] / _MIB:.0f} MiB"
        )
    return result


@contextmanager
def _in_memory(directory: Path | None) -> Iterator[Path]:
    """Give a directory for the sender's database, in memory where the system has one: it is not what is measured."""
    place = _MEMORY_DIRECTORY if os.access(_MEMORY_DIRECTORY, os.W_OK) else directory
    with tempfile.TemporaryDirectory(prefix="bench-", dir=place) as path:
        yield Path(path)


def make_files(root: Path, files: int) -> None:
    """Make so many files of 1 KiB below a new directory, always the same."""
    chance = random.Random(files)
    for number in range(files):
        directory = root / f"{number // _IN_A_DIRECTORY:04d}"
        if number % _IN_A_DIRECTORY == 0:
            directory.mkdir(parents=True)
        (directory / f"file {number}").write_bytes(chance.randbytes(_FILE_SIZE))


def _prepare(sender: Syncthing, gateway: GatewayProcess, source: Path, timeout: float) -> None:
    """Share the folder and scan it, while the gateway is not connected."""
    gateway.add_peer(sender.device_id)
    sender.add_device(gateway.device_id, "gateway", [gateway.listen_address], untrusted=True)
    sender.pause_device(gateway.device_id)
    sender.patience = timeout
    gateway.patience = timeout
    sender.add_folder(_FOLDER, source, {gateway.device_id: PASSWORD})
    sender.wait_in_sync(_FOLDER)  # the first scan begins by itself
    sender.scan(_FOLDER)


def _parts(
    sender: Syncthing, gateway: GatewayProcess, processes: Mapping[str, int], files: int, timeout: float
) -> Iterator[Part]:
    os.sync()
    sender.resume_device(gateway.device_id)
    known, late = 0, _lateness(gateway.metrics())
    for number in range(1, _PARTS + 1):
        meter = Meter(processes)
        there, pending = _wait_files(gateway, files * number // _PARTS, timeout)
        cost = meter.stop()
        late_before, late = late, _lateness(gateway.metrics())
        keys = FolderKeys.of(_FOLDER)
        yield Part(
            there,
            there - known,
            pending,
            cost,
            _latest(late_before, late),
            _counted(gateway, keys.segments),
            _counted(gateway, keys.checkpoints),
        )
        known = there


def _wait_files(gateway: GatewayProcess, files: int, timeout: float) -> tuple[int, int]:
    """Wait until the folder has so many files. Return how many it has, and how many are pending."""
    last, since = -1, time.monotonic()
    while True:
        status = gateway.wait_for("its status", gateway.status, timeout)
        folder: dict[str, int] = next((one for one in status["folders"] if one["id"] == _FOLDER), {})
        there = folder.get("files", 0)
        if there >= files:
            return there, folder["pending_files"]
        if there != last:
            last, since = there, time.monotonic()
        if time.monotonic() > since + timeout:
            raise OSError(f"no file has come for {timeout:.0f} s, after {there:,}")
        time.sleep(_POLL_SECONDS)


def _lateness(metrics: Mapping[str, float]) -> dict[float, float]:
    """Return how often the event loop was late by at most so many seconds."""
    return {float(name.removeprefix(_LAG)[:-2]): count for name, count in metrics.items() if name.startswith(_LAG)}


def _latest(before: Mapping[float, float], after: Mapping[float, float]) -> float:
    """Return the lowest bound that no observation between two moments exceeds."""
    new = {bound: count - before[bound] for bound, count in after.items()}
    return min(bound for bound, count in new.items() if count == max(new.values()))


def _counted(gateway: GatewayProcess, below: str) -> tuple[int, int]:
    sizes = stored_keys(gateway, below).values()
    return len(sizes), sum(sizes)


def _lone_change(sender: Syncthing, gateway: GatewayProcess, path: Path, files: int, timeout: float) -> float:
    """Make a file. Return the seconds from the end of the scan until the sender knows that the gateway has it.

    Then the folder has `files` files.
    """
    path.write_bytes(random.randbytes(_FILE_SIZE))
    sender.rest("POST", "db/scan", folder=_FOLDER, sub=path.name)
    began = time.monotonic()
    gateway.wait_for("a lone change", lambda: gateway.folder(_FOLDER)["files"] >= files, timeout)
    sender.wait_completion(gateway.device_id, _FOLDER, timeout)
    return time.monotonic() - began


def _cold_start(gateway: GatewayProcess, files: int, timeout: float) -> Measurement:
    gateway.stop()
    shutil.rmtree(gateway.state)
    began = time.monotonic()
    gateway.start()
    _wait_files(gateway, files, timeout)
    return whole_life(gateway.pid, time.monotonic() - began)


def _cells(part: Part) -> tuple[str, ...]:
    (segments, segment_bytes), (checkpoints, checkpoint_bytes) = part.segments, part.checkpoints
    cpu = {role: seconds * 1000 / part.new for role, seconds in part.cost.cpu_seconds.items()}
    return (
        f"{part.files:,}",
        f"{part.pending:,}",
        f"{part.cost.seconds:.1f}",
        f"{part.new / part.cost.seconds:,.0f}",
        f"{cpu[RECEIVER]:.3f}",
        f"{part.cost.peak_bytes[RECEIVER] / _MIB:.0f}",
        f"{part.late:g}",
        f"{cpu[STORE]:.3f}",
        f"{cpu[PEER]:.3f}",
        f"{segments:,}",
        f"{segment_bytes / _MIB:,.0f}",
        f"{checkpoints:,}",
        f"{checkpoint_bytes / _MIB:,.0f}",
    )


def _line(cells: tuple[str, ...]) -> str:
    return "  ".join(cell.rjust(max(len(heading), 7)) for cell, heading in zip(cells, _HEADINGS, strict=True))
