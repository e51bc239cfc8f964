"""`python -m bench.large_changes`: the cost of each kind of change of a large file, in bytes, parts and requests.

A real Syncthing changes one file after the other, on a real SeaweedFS. Figures are never asserted.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import click

from bench.machine import describe
from bench.options import syncthing_option
from bench.sharing import rescan, share_folder
from untrusted_s3.compat.awkward_tree import random_file
from untrusted_s3.compat.gateway_process import GatewayProcess
from untrusted_s3.compat.syncthing import Syncthing, syncthing_version
from untrusted_s3.store.embedded.server import EmbeddedStore

FOLDER = "changes"
MIB = 1 << 20
_COLUMNS = ("change", "s", "MiB from peers", "MiB sent to the store", "parts sent", "parts copied", "requests")


@click.command()
@syncthing_option
@click.option("--size", default=1024, show_default=True, type=click.IntRange(min=128), help="MiB of the large file.")
@click.option(
    "--block-sizes/--no-block-sizes",
    default=True,
    show_default=True,
    help="Change a second file, of 249 to 501 MiB, across the steps of Syncthing's block size.",
)
@click.option(
    "--directory",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where all data is while it is needed, about four times SIZE.  [default: the system's for temporary files]",
)
def main(syncthing: Path, size: int, block_sizes: bool, directory: Path | None) -> None:
    """Change large files in every way and print a table of what it costs."""
    click.echo(f"{describe(syncthing_version(syncthing))}\n")
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as root,
        EmbeddedStore.start(Path(root, "seaweedfs")) as server,
        GatewayProcess(Path(root, "gateway"), server) as gateway,
        Syncthing(syncthing, Path(root, "device"), "device") as device,
    ):
        original = Path(root, "original")
        large, medium = original / "large", original / "medium"
        random_file(original / "small", 1000, seed=0)
        share_folder(device, gateway, FOLDER, original)
        rescan(device, gateway, FOLDER)
        table = _Table(device, gateway)
        table.add(f"new file of {size} MiB", lambda: random_file(large, size * MIB, seed=1))
        table.add("one byte changed in the middle", lambda: _overwrite(large, size // 2 * MIB))
        table.add("1 MiB appended", lambda: _append(large, MIB, seed=2))
        table.add("100 MiB appended", lambda: _append(large, 100 * MIB, seed=3))
        table.add("cut to half", lambda: os.truncate(large, large.stat().st_size // 2))
        table.add("mode and time changed", lambda: _touch(large))
        table.add("cut to 100 MiB: smaller blocks", lambda: os.truncate(large, 100 * MIB))
        if not block_sizes:
            return
        table.add("new file of 249 MiB", lambda: random_file(medium, 249 * MIB, seed=4))
        table.add("grown to 251 MiB: blocks stay", lambda: _append(medium, 2 * MIB, seed=5))
        table.add("grown to 501 MiB: larger blocks", lambda: _append(medium, 250 * MIB, seed=6))
        table.add("renamed: other names, other keys", lambda: medium.rename(original / "another name"))


class _Table:
    """A table that is printed line by line, one for each change."""

    def __init__(self, device: Syncthing, gateway: GatewayProcess) -> None:
        self._device, self._gateway = device, gateway
        _print_row(*_COLUMNS)
        _print_row(*("---" for _ in _COLUMNS))

    def add(self, title: str, change: Callable[[], object]) -> None:
        """Make a change, wait until the gateway has it, and print by how much its counters rose."""
        change()
        before, began = self._counts(), time.monotonic()
        rescan(self._device, self._gateway, FOLDER, 600)
        self._gateway.wait_folder(FOLDER)
        seconds, cost = time.monotonic() - began, self._counts()
        cost.subtract(before)
        requests = ", ".join(f"{count} {name}" for name, count in cost.items() if count and name.startswith("store:"))
        _print_row(
            title,
            f"{seconds:.1f}",
            f"{cost['block_bytes_received'] / MIB:.1f}",
            f"{cost['object_bytes_written'] / MIB:.1f}",
            cost["parts_sent"],
            cost["parts_copied"],
            requests.replace("store:", ""),
        )

    def _counts(self) -> Counter[str]:
        names = ("block_bytes_received", "object_bytes_written", "parts_sent", "parts_copied")
        counts = Counter({name: self._gateway.counter(name) for name in names})
        for name, count in self._gateway.store_requests().items():
            counts[f"store:{name}"] = count
        return counts


def _print_row(*cells: object) -> None:
    click.echo(f"| {' | '.join(map(str, cells))} |")


def _overwrite(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 1]))
    _touch(path)


def _append(path: Path, size: int, seed: int) -> None:
    more = path.parent.parent / "more"
    random_file(more, size, seed)
    with path.open("ab") as file:
        file.write(more.read_bytes())
    more.unlink()


def _touch(path: Path) -> None:
    status = path.stat()
    path.chmod(status.st_mode ^ 0o040)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1_000_000_000))


if __name__ == "__main__":
    main()
