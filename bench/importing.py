"""`python -m bench.importing --files N`: the disk of a native untrusted device, taken over. Nothing is sent again.

A trusted Syncthing shares files of 1 KiB with a native untrusted one. The disk of that one is imported into a store, in
two runs of which the first is killed half way. Then the trusted device connects to a gateway on that store. Shown are
what the second run took, and what the trusted device sent. Figures are never asserted.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from pathlib import Path

import click

from bench.machine import describe
from bench.measure import RECEIVER, STORE
from bench.options import syncthing_option
from bench.programs import run_measured
from bench.scale import make_files
from bench.sharing import PASSWORD, share_folder, stored_keys
from untrusted_s3.compat.commands import PROGRAM, command_environment, store_arguments
from untrusted_s3.compat.gateway_process import GatewayProcess
from untrusted_s3.compat.syncthing import Syncthing, syncthing_version
from untrusted_s3.errors import UntrustedS3Error
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import FolderKeys

_FOLDER = "imported"
_PREFIX = "importing/"
_POLL_SECONDS = 1.0
_MIB = 1 << 20


@click.command()
@syncthing_option
@click.option("--files", default=10_000, show_default=True, type=click.IntRange(min=2000), help="Files of 1 KiB.")
@click.option("--timeout", default=3600.0, show_default=True, help="Seconds after which a step counts as failed.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where all data is while it is needed.  [default: the system's for temporary files]",
)
def main(syncthing: Path, files: int, timeout: float, directory: Path | None) -> None:
    """Measure the import of a native untrusted device's disk."""
    try:
        click.echo(describe(syncthing_version(syncthing)))
        with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as root:
            _measure(syncthing, files, Path(root), timeout)
    except (UntrustedS3Error, OSError) as error:
        raise click.ClickException(str(error)) from error


def _measure(syncthing: Path, files: int, root: Path, timeout: float) -> None:
    source, disk = root / "source", root / "disk"
    make_files(source, files)
    with (
        EmbeddedStore.start(root / "seaweedfs") as store,
        GatewayProcess(root / "gateway", store, _PREFIX) as gateway,
        Syncthing(syncthing, root / "trusted", "trusted") as trusted,
    ):
        gateway.patience = trusted.patience = timeout
        _fill_native_disk(syncthing, root / "native", trusted, source, disk, timeout)
        click.echo(f"a native untrusted device has {files:,} files")
        command = [*PROGRAM, "folders", "import", str(disk), *store_arguments(store, _PREFIX)]
        environment = command_environment(store)
        click.echo(f"a first run is killed after {_killed_half_way(command, environment, gateway, files):,} files")
        second = run_measured(command, environment, {STORE: store.pid})
        click.echo(
            f"the second one took {second.seconds:.0f} s, {second.cpu_seconds[RECEIVER]:.1f} CPU s,"
            f" {second.peak_bytes[RECEIVER] / _MIB:.0f} MiB; SeaweedFS {second.cpu_seconds[STORE]:.1f} CPU s"
        )
        written, received = gateway.counter("objects_written"), gateway.counter("blocks_received")
        began = time.monotonic()
        share_folder(trusted, gateway, _FOLDER, source)
        trusted.wait_connected(gateway.device_id, timeout)
        trusted.wait_completion(gateway.device_id, _FOLDER, timeout)
        gateway.wait_folder(_FOLDER, timeout, files=files)
        click.echo(
            f"the trusted device was complete after {time.monotonic() - began:.0f} s, and sent"
            f" {gateway.counter('blocks_received') - received} blocks;"
            f" {gateway.counter('objects_written') - written} objects were written"
        )


def _fill_native_disk(
    syncthing: Path, home: Path, trusted: Syncthing, source: Path, disk: Path, timeout: float
) -> None:
    with Syncthing(syncthing, home, "native") as native:
        native.patience = timeout
        native.add_device(trusted.device_id, "trusted")
        native.add_folder(_FOLDER, disk, {trusted.device_id: ""}, type="receiveencrypted")
        trusted.add_device(native.device_id, "native", [native.listen_address], untrusted=True)
        trusted.add_folder(_FOLDER, source, {native.device_id: PASSWORD})
        trusted.scan(_FOLDER)
        trusted.wait_connected(native.device_id, timeout)
        trusted.wait_completion(native.device_id, _FOLDER, timeout)


def _killed_half_way(command: list[str], environment: dict[str, str], gateway: GatewayProcess, files: int) -> int:
    """Run the import, and kill it when half of the files are in the log. Return how many objects there are then."""
    keys = FolderKeys.of(_FOLDER)
    with subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(stored_keys(gateway, keys.segments)) < max(files // 2000, 1):
            time.sleep(_POLL_SECONDS)
        process.send_signal(signal.SIGKILL)
    return len(stored_keys(gateway, keys.objects))


if __name__ == "__main__":
    main()
