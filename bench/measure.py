"""Wall time, CPU time and memory of processes, from Linux's /proc; see proc(5)."""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

RECEIVER, MOUNT, STORE, PEER = "receiver", "s3fs", "seaweedfs", "peer"
"""The roles of processes in a measurement. The receiver's cost includes the mount's."""

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Measurement:
    """The cost of some work: wall time, and by role the CPU seconds (user and system) and the peak resident bytes."""

    seconds: float
    cpu_seconds: dict[str, float]
    peak_bytes: dict[str, int]

    @property
    def receiver_cpu_seconds(self) -> float | None:
        """The CPU seconds of the receiver and the mount, or None if only the store took part."""
        parts = [self.cpu_seconds[part] for part in (RECEIVER, MOUNT) if part in self.cpu_seconds]
        return sum(parts) if parts else None

    @property
    def receiver_peak_bytes(self) -> int | None:
        """The sum of the peaks of the receiver and the mount, which may be of different moments."""
        parts = [self.peak_bytes[part] for part in (RECEIVER, MOUNT) if part in self.peak_bytes]
        return sum(parts) if parts else None


class Meter:
    """A measurement that starts when it is made; `processes` has the process ID of each role."""

    def __init__(self, processes: Mapping[str, int]) -> None:
        self._processes = dict(processes)
        for pid in self._processes.values():
            _reset_peak(pid)
        self._cpu = {part: _cpu_seconds(pid) for part, pid in self._processes.items()}
        self._started = time.monotonic()

    def stop(self) -> Measurement:
        """Return the cost since the start. The processes must still run."""
        seconds = time.monotonic() - self._started
        return Measurement(
            seconds,
            {part: _cpu_seconds(pid) - self._cpu[part] for part, pid in self._processes.items()},
            {part: peak_bytes(pid) for part, pid in self._processes.items()},
        )


def whole_life(pid: int, seconds: float) -> Measurement:
    """Return what a receiver has cost since its start `seconds` ago."""
    return Measurement(seconds, {RECEIVER: _cpu_seconds(pid)}, {RECEIVER: peak_bytes(pid)})


def median(measurements: Sequence[Measurement]) -> Measurement:
    """Return the median of each figure over repeated measurements of the same work."""
    first = measurements[0]
    return Measurement(
        statistics.median(each.seconds for each in measurements),
        {part: statistics.median(each.cpu_seconds[part] for each in measurements) for part in first.cpu_seconds},
        {part: int(statistics.median(each.peak_bytes[part] for each in measurements)) for part in first.peak_bytes},
    )


def _cpu_seconds(pid: int) -> float:
    # The second field is the program's name in parentheses, which may hold spaces.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    user, system = fields[11:13]
    return (int(user) + int(system)) / _TICKS_PER_SECOND


def peak_bytes(pid: int) -> int:
    """Return the peak of resident bytes. Raises OSError if the process has ended."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"process {pid} has ended")


def _reset_peak(pid: int) -> None:
    """Restart the peak. If the kernel does not allow it, the peak is that of the process's whole life."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")
