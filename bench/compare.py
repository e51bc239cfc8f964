"""`python -m bench.compare OLD NEW`: two runs of the bench, written with `--json`, side by side.

Seconds of different runs cannot be compared, since the machine's speed changes. So what counts are the ratios to the
peers in the same run, and the CPU seconds. With `--most 1.2` it exits with status 1 if a figure is 1.2 times as bad.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

# Larger is better.
_RATES = ("speed_to_native", "speed_to_mount", "speed_to_limit", "speed_to_peer")


@dataclass(frozen=True)
class Figure:
    """A figure of one receiver in both runs."""

    work: str
    receiver: str
    name: str
    old: float
    new: float

    @property
    def worse(self) -> float:
        """How many times as bad the new figure is; below 1 if it is better."""
        better, worse = (self.new, self.old) if self.name in _RATES else (self.old, self.new)
        return worse / better if better else float("inf")


def figures(old: dict[str, Any], new: dict[str, Any]) -> Iterator[Figure]:
    """Yield the figures of the gateway that both runs have."""
    before = dict(_figures(old))
    for place, value in _figures(new):
        if place in before:
            yield Figure(*place, before[place], value)


def _figures(document: dict[str, Any]) -> Iterator[tuple[tuple[str, str, str], float]]:
    for work in document["workloads"]:
        for row in work["rows"]:
            if row["kind"] != "gateway" or row["median"] is None:
                continue
            place = work["title"], row["receiver"]
            for name, value in row["ratios"].items():
                yield (*place, name), value
            for role, seconds in row["median"]["cpu_seconds"].items():
                yield (*place, f"CPU s of {role}"), seconds
            for role, size in row["median"]["peak_bytes"].items():
                yield (*place, f"peak MiB of {role}"), size / (1 << 20)


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise click.ClickException(f"{path}: {error}") from error
    if not isinstance(document, dict) or not isinstance(document.get("workloads"), list):
        raise click.ClickException(f"{path}: not written by `python -m bench --json`")
    return document


@click.command()
@click.argument("old", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.argument("new", type=click.Path(dir_okay=False, exists=True, path_type=Path))
@click.option("--most", type=click.FloatRange(min=1), help="How many times as bad a figure may be.")
def main(old: Path, new: Path, most: float | None) -> None:
    """Compare two runs of the bench."""
    before, after = _read(old), _read(new)
    click.echo(f"old: {before.get('machine')}\nnew: {after.get('machine')}\n")
    if before.get("options") != after.get("options"):
        click.echo(f"The options differ: {before.get('options')}, {after.get('options')}\n")
    found = list(figures(before, after))
    if not found:
        raise click.ClickException("the runs have no figure of the gateway in common")
    bad = [one for one in found if most is not None and one.worse > most]
    for one in found:
        mark = "  worse" if one in bad else ""
        click.echo(f"{one.work}: {one.name:24} {one.old:10.2f} {one.new:10.2f}{mark}")
    if bad:
        sys.exit(1)


if __name__ == "__main__":
    main()
