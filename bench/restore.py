"""`python -m bench.restore`: ways to get a folder back, compared in one run on one machine.

A real Syncthing fills a bucket through the gateway. Then the folder is restored from the store, fetched by a fresh
Syncthing through the gateway, and decrypted by `syncthing decrypt` from a copy of the objects on the local disk. rclone
with its crypt remote and restic, where they are, store the same folder in the same bucket and restore it. Every result
is compared with the original. Only ratios within one run count. Figures are never asserted.

Linux only: it reads /proc.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from bench.machine import describe
from bench.measure import PEER, RECEIVER, STORE, Measurement, Meter
from bench.options import syncthing_option
from bench.programs import MakeCommands, prepare, rclone_crypt, restic, run_measured
from bench.receivers import ReceiverFailed, ReceiverUnavailable, store_environment
from bench.sharing import PASSWORD, assert_same_tree, download_objects, regular_files, share_folder
from bench.table import MEGABYTE
from bench.workloads import MIB, Shape
from untrusted_s3.compat.gateway_process import GatewayProcess
from untrusted_s3.compat.syncthing import Syncthing, syncthing_version
from untrusted_s3.errors import UntrustedS3Error
from untrusted_s3.store.embedded.server import EmbeddedStore

_FOLDER = "bench"
_PREFIX = "bench"
_TIMEOUT = 1800.0
_OTHERS: Mapping[str, MakeCommands] = {"rclone crypt": rclone_crypt, "restic": restic}
_HEADINGS = ("way", "seconds", "rate", "CPU s", "peak MiB", "S3 CPU s", "peer CPU s", "ours is faster by")
_LEGEND = """\
CPU s     of the program that restores; S3: SeaweedFS; peer: the gateway
peak MiB  resident memory of the program that restores"""


@dataclass(frozen=True)
class _Way:
    """A way to get the folder back, and its cost."""

    title: str
    measurement: Measurement


@click.command()
@syncthing_option
@click.option("--size", default=1024, show_default=True, type=click.IntRange(min=1), help="MiB of the large file.")
@click.option("--files", default=5000, show_default=True, type=click.IntRange(min=2), help="Files of 4 KiB.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write all figures here.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where all data is while it is needed, about six times SIZE.  [default: the system's for temporary files]",
)
def main(syncthing: Path, size: int, files: int, json_file: Path | None, directory: Path | None) -> None:
    """Measure ways to get a folder back side by side."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so everything is cleaned up
    try:
        machine = describe(syncthing_version(syncthing))
    except UntrustedS3Error as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{machine}\n")
    document = []
    for shape in (Shape("large", 1, size * MIB, ()), Shape("small", files, 4096, ())):
        with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as root:
            ways = []
            try:
                for way in _measure(shape, syncthing, Path(root)):
                    click.echo(f"{shape.title}: {way.title}: {way.measurement.seconds:.2f} s", err=True)
                    ways.append(way)
            except ReceiverFailed as error:
                raise click.ClickException(str(error)) from error
        click.echo(f"{shape.title}\n{_render(shape, ways)}\n")
        document.append({"shape": asdict(shape), "ways": [asdict(way) for way in ways]})
    click.echo(_LEGEND)
    if json_file is not None:
        json_file.write_text(json.dumps({"machine": machine, "work": document}, indent=2) + "\n")


def _measure(shape: Shape, binary: Path, root: Path) -> Iterator[_Way]:
    source = root / "source"
    shape.build(source)
    with EmbeddedStore.start(root / "seaweedfs") as store:
        with GatewayProcess(root / "gateway", store, f"{_PREFIX}/") as gateway:
            with Syncthing(binary, root / "sender", "sender") as sender:
                share_folder(sender, gateway, _FOLDER, source)
                sender.wait_completion(gateway.device_id, _FOLDER, _TIMEOUT)
                gateway.wait_folder(_FOLDER, _TIMEOUT, files=shape.files)
            yield _Way(
                "fresh Syncthing, through the gateway", _through_the_gateway(shape, binary, root, gateway, store)
            )
        for command, title in (("restore", "untrusted-s3 restore"), ("verify", "untrusted-s3 verify (writes nothing)")):
            arguments = [str(root / "restored")] if command == "restore" else []
            _touch_memory(shape, root)
            yield _Way(title, _ours(command, arguments, store))
        assert_same_tree(source, root / "restored")
        for title, make in _OTHERS.items():
            yield from _other(title, make, shape, root, store)
        download_objects(gateway, _FOLDER, root / "objects")
    _touch_memory(shape, root)
    yield _Way("syncthing decrypt of a local copy", _decrypt(binary, root))
    assert regular_files(source, mtimes=False) == regular_files(root / "decrypted", mtimes=False)


def _touch_memory(shape: Shape, root: Path) -> None:
    """Make the kernel own as much free memory as the next way will write.

    On a virtual machine the host may take free memory back, and getting it again can take seconds a GiB. The first way
    would pay for all.
    """
    scratch = root / "scratch"
    with scratch.open("wb") as file:
        for _ in range(shape.total // MIB + 1):
            file.write(bytes(MIB))
    scratch.unlink()


def _through_the_gateway(
    shape: Shape, binary: Path, root: Path, gateway: GatewayProcess, store: EmbeddedStore
) -> Measurement:
    """Measure from the moment when the device may connect, with nothing left to scan, until it has everything."""
    with Syncthing(binary, root / "puller", "puller") as puller:
        share_folder(puller, gateway, _FOLDER, root / "pulled", paused=True)
        assert gateway.process is not None
        os.sync()
        meter = Meter({RECEIVER: puller.pid, PEER: gateway.process.pid, STORE: store.pid})
        puller.resume_device(gateway.device_id)
        puller.wait_in_sync(_FOLDER, shape.files, _TIMEOUT)
        measurement = meter.stop()
    assert_same_tree(root / "source", root / "pulled")
    return measurement


def _other(title: str, make: MakeCommands, shape: Shape, root: Path, store: EmbeddedStore) -> Iterator[_Way]:
    """Let another program store the folder and restore it; say so if it is not there."""
    source, directory = root / "source", root / title
    directory.mkdir()
    try:
        commands = make(store, store.endpoint_url, source, directory)
    except ReceiverUnavailable as error:
        click.echo(f"left out: {error}", err=True)
        return
    prepare(commands)
    run_measured(commands.there, commands.environment, {})
    _touch_memory(shape, root)
    yield _Way(title, run_measured(commands.back, commands.environment, {STORE: store.pid}))
    assert regular_files(source, mtimes=False) == regular_files(commands.restored, mtimes=False)
    shutil.rmtree(directory)


def _ours(command: str, arguments: Sequence[str], store: EmbeddedStore) -> Measurement:
    """Measure the whole life of the process."""
    options = [f"--store=s3://{store.bucket}/{_PREFIX}", f"--endpoint-url={store.endpoint_url}", f"--folder={_FOLDER}"]
    environment = {**store_environment(store), "UNTRUSTED_S3_PASSWORD": PASSWORD}
    return run_measured(
        [sys.executable, "-m", "untrusted_s3", command, *options, *arguments], environment, {STORE: store.pid}
    )


def _decrypt(binary: Path, root: Path) -> Measurement:
    to = root / "decrypted"
    to.mkdir()
    options = [f"--folder-id={_FOLDER}", f"--password={PASSWORD}", f"--to={to}", str(root / "objects")]
    return run_measured([str(binary), "decrypt", *options], {**os.environ, "HOME": str(root)}, {})


def _render(shape: Shape, ways: Sequence[_Way]) -> str:
    ours = next(way.measurement.seconds for way in ways if way.title == "untrusted-s3 restore")
    cells = [list(_HEADINGS)]
    for way in ways:
        measured = way.measurement
        large = shape.files == 1
        rate = shape.total / MEGABYTE / measured.seconds if large else shape.files / measured.seconds
        cpu = [measured.cpu_seconds.get(part) for part in (RECEIVER, STORE, PEER)]
        texts = ["-" if value is None else f"{value:.2f}" for value in cpu]
        peak = f"{measured.peak_bytes[RECEIVER] / MIB:,.0f}"
        unit = "MB/s" if large else "files/s"
        seconds = f"{measured.seconds:.2f}"
        ratio = f"{measured.seconds / ours:.2f}"
        cells.append([way.title, seconds, f"{rate:,.0f} {unit}", texts[0], peak, *texts[1:], ratio])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in cells)


if __name__ == "__main__":
    main()
