"""The results as a table and as JSON, with the ratios that the goals use."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.measure import PEER, STORE, Measurement, median

MEGABYTE = 1_000_000
MIB = 1 << 20

_HEADINGS = (
    "receiver", "seconds", "rate", "CPU s", "peak MiB", "S3 CPU s", "peer CPU s",
    "speed/native", "speed/mount", "speed/S3 limit", "speed/peer", "CPU/native",
)  # fmt: skip

# The ratios of speed, and the kinds of rows to which they are.
_RATIOS = {
    "speed_to_native": "native",
    "speed_to_mount": "mount",
    "speed_to_limit": "limit",
    "speed_to_peer": "peer",
}

LEGEND = """\
rate          bytes of the original files; MB are 1,000,000 bytes
CPU s         of the receiver (user and system), s3fs included; S3: SeaweedFS; peer: sender, puller or bare client
peak MiB      resident memory of the receiver (VmHWM), s3fs included
speed/…       the row's rate divided by that of native Syncthing on a local disk, of the best S3 mount, and of the
              faster bare client, which writes or reads whole objects, and of the faster one of rclone and restic;
              CPU/…: the row's CPU seconds divided"""


@dataclass
class Row:
    """The runs of one receiver for one workload.

    `kind` is "gateway", "native", "mount", "limit" or "peer". `error` says why a run failed or was impossible.
    """

    receiver: str
    kind: str
    runs: list[Measurement] = field(default_factory=list)
    error: str | None = None

    @property
    def median(self) -> Measurement | None:
        return median(self.runs) if self.runs else None


@dataclass
class Work:
    """One workload with the results of each receiver. `total` is in bytes."""

    name: str
    title: str
    files: int
    total: int
    rows: list[Row] = field(default_factory=list)

    def ratios(self, row: Row) -> dict[str, float]:
        """Return the row's rate and CPU seconds divided by those of others, if both were measured."""
        measured = row.median
        if measured is None:
            return {}
        found = {}
        for name, kind in _RATIOS.items():
            best = self._fastest(kind)
            if best is not None:
                found[name] = best.seconds / measured.seconds
        native, cpu = self._fastest("native"), measured.receiver_cpu_seconds
        if native is not None and native.receiver_cpu_seconds and cpu is not None:
            found["cpu_to_native"] = cpu / native.receiver_cpu_seconds
        return found

    def _fastest(self, kind: str) -> Measurement | None:
        measured = [row.median for row in self.rows if row.kind == kind and row.median is not None]
        return min(measured, key=lambda each: each.seconds, default=None)

    def to_json(self) -> dict[str, Any]:
        rows = [
            {
                "receiver": row.receiver,
                "kind": row.kind,
                "error": row.error,
                "median": dataclasses.asdict(row.median) if row.median else None,
                "ratios": self.ratios(row),
                "runs": [dataclasses.asdict(run) for run in row.runs],
            }
            for row in self.rows
        ]
        return {"name": self.name, "title": self.title, "files": self.files, "bytes": self.total, "rows": rows}


def render(works: Sequence[Work]) -> str:
    """Return all tables, one below the other."""
    return "\n".join(line for work in works for line in _render(work))


def _render(work: Work) -> Iterator[str]:
    cells = [list(_HEADINGS), *(_cells(work, row) for row in work.rows if row.runs)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEADINGS))]
    widths[0] = max([widths[0], *(len(row.receiver) for row in work.rows)])
    yield work.title
    for line in cells:
        first, *rest = zip(line, widths, strict=True)
        yield "  ".join([first[0].ljust(first[1]), *(text.rjust(width) for text, width in rest)])
    for row in work.rows:
        if row.error is not None:
            yield f"{row.receiver.ljust(widths[0])}  {row.error}"
    yield ""


def _cells(work: Work, row: Row) -> list[str]:
    measured = row.median
    assert measured is not None
    if work.files == 1:
        rate = f"{work.total / measured.seconds / MEGABYTE:,.0f} MB/s"
    else:
        rate = f"{work.files / measured.seconds:,.0f} files/s"
    peak = measured.receiver_peak_bytes
    ratios = work.ratios(row)
    return [
        row.receiver,
        f"{measured.seconds:,.2f}",
        rate,
        _number(measured.receiver_cpu_seconds),
        "-" if peak is None else f"{peak / MIB:,.0f}",
        _number(measured.cpu_seconds.get(STORE)),
        _number(measured.cpu_seconds.get(PEER)),
        *(_number(ratios.get(name)) for name in _RATIOS),
        _number(ratios.get("cpu_to_native")),
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"
