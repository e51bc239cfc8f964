"""`python -m bench.cold_start`: the time until a gateway on a large store has answered a request, and its peak memory.

It starts with an empty state folder, then with the state that it has made.

The store is a real SeaweedFS, filled through the real log. Figures are never asserted.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path

import click

from bench.filled_store import FetchingPeer, FilledStore, fill
from bench.machine import describe
from untrusted_s3.compat.gateway_process import GatewayProcess
from untrusted_s3.identity.certificate import Identity, generate
from untrusted_s3.store.embedded.server import EmbeddedStore

_MIB = 1 << 20


@click.command()
@click.option("--files", default=100_000, show_default=True, type=click.IntRange(min=1))
@click.option("--repeat", default=3, show_default=True, type=click.IntRange(min=1), help="Starts of each kind.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where all data is while it is needed.  [default: the system's for temporary files]",
)
def main(files: int, repeat: int, directory: Path | None) -> None:
    """Measure cold and warm starts of the gateway on a store with many files."""
    click.echo(describe())
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as root,
        EmbeddedStore.start(Path(root, "seaweedfs")) as server,
    ):
        identity = generate()
        gateway = GatewayProcess(Path(root, "gateway"), server, "cold/")
        began = time.monotonic()
        store = fill(gateway, files, identity.device_id, Path(root))
        click.echo(f"filled with {files:,} files in {time.monotonic() - began:.0f} s")
        for name, (count, size) in (("checkpoints", store.checkpoints), ("log segments", store.segments)):
            click.echo(f"{name}: {count:,}, {size / _MIB:,.1f} MiB")
        for number in range(repeat):
            _start(gateway, identity, store, files, "cold")
            _start(gateway, identity, store, files, "warm")
            if number < repeat - 1:
                for path in sorted(gateway.state.rglob("*"), reverse=True):
                    path.rmdir() if path.is_dir() else path.unlink()


def _start(gateway: GatewayProcess, identity: Identity, store: FilledStore, files: int, kind: str) -> None:
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    gateway.start()
    ready = time.monotonic() - began
    peer = FetchingPeer(gateway, identity, store, files)
    answer = peer.fetch_blocks(store)
    seconds = time.monotonic() - began
    if answer != store.content:
        raise click.ClickException("the gateway answered with other bytes")
    memory = gateway.peak_memory()
    peer.vanish()
    gateway.stop()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - cpu.ru_utime - cpu.ru_stime
    click.echo(
        f"{kind} start: ready after {ready:.1f} s, first answer after {seconds:.1f} s, "
        f"peak memory {memory / _MIB:.0f} MiB, {used:.1f} CPU s"
    )


if __name__ == "__main__":
    main()
