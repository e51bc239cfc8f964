"""Two runs of the bench, compared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from bench.compare import main
from bench.measure import RECEIVER, Measurement
from bench.table import Row, Work


def run_of(seconds: float, cpu: float, native_seconds: float) -> dict[str, Any]:
    def measurement(seconds: float, cpu: float) -> Measurement:
        return Measurement(seconds, {RECEIVER: cpu}, {RECEIVER: 100 << 20})

    rows = [
        Row("untrusted_s3", "gateway", [measurement(seconds, cpu)]),
        Row("Syncthing on local disk", "native", [measurement(native_seconds, 2.0)]),
        Row("Syncthing on s3fs", "mount", error="not here"),
    ]
    work = Work("serve-large", "serve 1 file of 1,024 MiB", 1, 1 << 30, rows)
    return {"machine": "a machine", "options": {"size": 1024}, "workloads": [work.to_json()]}


def compare(directory: Path, old: object, new: object, *options: str) -> Result:
    for name, document in (("old", old), ("new", new)):
        (directory / name).write_text(json.dumps(document))
    return CliRunner().invoke(main, [str(directory / "old"), str(directory / "new"), *options])


def test_a_regression_is_seen(tmp_path: Path) -> None:
    result = compare(tmp_path, run_of(10, 2, 10), run_of(15, 2, 10), "--most", "1.2")
    assert result.exit_code == 1
    (line,) = (line for line in result.output.splitlines() if line.endswith("worse"))
    assert "speed_to_native" in line and "1.00" in line and "0.67" in line


def test_a_slower_machine_is_no_regression(tmp_path: Path) -> None:
    result = compare(tmp_path, run_of(10, 2, 10), run_of(20, 2.1, 20), "--most", "1.2")
    assert result.exit_code == 0, result.output
    assert "CPU s of receiver" in result.output and "peak MiB of receiver" in result.output


def test_more_cpu_is_worse_and_less_is_not(tmp_path: Path) -> None:
    assert compare(tmp_path, run_of(10, 2, 10), run_of(10, 3, 10), "--most", "1.2").exit_code == 1
    assert compare(tmp_path, run_of(10, 3, 10), run_of(10, 2, 10), "--most", "1.2").exit_code == 0


@pytest.mark.parametrize("document", [[], {}, {"workloads": None}, {"workloads": []}, 5], ids=str)
def test_what_is_no_run(tmp_path: Path, document: object) -> None:
    result = compare(tmp_path, document, run_of(10, 2, 10))
    assert result.exit_code == 1 and result.output.startswith(("Error: ", "old: "))
    assert "Error: " in result.output


def test_a_program_beside_ours_that_became_relatively_faster_is_seen(tmp_path: Path) -> None:
    def run(ours: float, *others: float) -> dict[str, Any]:
        def row(name: str, kind: str, seconds: float) -> Row:
            return Row(name, kind, [Measurement(seconds, {RECEIVER: 1.0}, {RECEIVER: 1})])

        rows = [row("untrusted_s3", "gateway", ours), *(row("another", "peer", seconds) for seconds in others)]
        return {"workloads": [Work("restore-small-40ms", "restore", 2000, 1 << 23, rows).to_json()]}

    result = compare(tmp_path, run(5, 10, 20), run(5, 4, 20), "--most", "1.2")
    assert result.exit_code == 1
    (line,) = (line for line in result.output.splitlines() if line.endswith("worse"))
    assert "speed_to_peer" in line and "2.00" in line and "0.80" in line
