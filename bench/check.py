"""`python -m bench.check`: the time, CPU and peak memory of `untrusted-s3 check` on a store with many files.

The store is a real SeaweedFS, filled through the real log, with an object of the right size for each file. With
`--directory` it stays: a later call only adds the files that are missing. Figures are never asserted.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import uvloop

from bench.filled_store import FOLDER, entry_of, made_up_file
from bench.machine import describe
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.trimming import trim
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.records import FolderRecord, open_store, write_record
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import DAY

_WRITERS = 24
_TICKS = os.sysconf("SC_CLK_TCK")


@click.command()
@click.option("--files", default=100_000, show_default=True, type=click.IntRange(min=1))
@click.option("--repeat", default=1, show_default=True, type=click.IntRange(min=1), help="How often it is checked.")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    help="Where the store is, and stays.  [default: a temporary directory]",
)
def main(files: int, repeat: int, directory: Path | None) -> None:
    """Measure a check, without --read, of a store with many files."""
    click.echo(describe())
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        root = directory or Path(temporary)
        with EmbeddedStore.start(root / "seaweedfs") as server:
            began = time.monotonic()
            uvloop.run(_fill(server, files, root))
            click.echo(f"filled in {time.monotonic() - began:.0f} s")
            for _ in range(repeat):
                _check(server)


async def _fill(server: EmbeddedStore, files: int, directory: Path) -> None:
    location, credentials = StoreLocation(server.bucket, ""), S3Credentials(server.access_key, server.secret_key)
    bucket = await S3Bucket.open(location, server.endpoint_url, credentials)
    state, settings = FolderState(directory / "filling.sqlite"), LogSettings()
    try:
        await open_store(bucket)
        record, keys = FolderRecord(FOLDER, "", bytes(50)), FolderKeys.of(FOLDER)
        await write_record(bucket, keys.record, record.to_json())
        log = FolderLog(bucket, keys, state, DeviceID(bytes(32)), settings)
        await log.load()
        there = state.totals.files
        if there >= files:
            return
        chance, writers = random.Random(there), asyncio.Semaphore(_WRITERS)

        async def store(key: str, size: int) -> None:
            async with writers:
                await bucket.put(key, [bytes(size)])

        for start in range(there, files, settings.segment_entries):
            entries = [entry_of(made_up_file(chance)) for _ in range(min(settings.segment_entries, files - start))]
            async with asyncio.TaskGroup() as group:
                for entry in entries:
                    assert entry.stored is not None
                    key = keys.object(entry.file_info.name, entry.stored.object_name)
                    group.create_task(store(key, entry.stored.size))
            await log.append(entries)
            if log.checkpoint_due:
                await log.checkpoint_where_due()
        await trim(bucket, keys, 30 * DAY)
    finally:
        state.close()
        await bucket.close()


def _check(server: EmbeddedStore) -> None:
    command = [sys.executable, "-m", "untrusted_s3", "check", "--json"]
    command += ["--store", f"s3://{server.bucket}", "--endpoint-url", server.endpoint_url]
    variables = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
    began, before = time.monotonic(), _cpu_of(server.pid)
    with subprocess.Popen(command, env={**os.environ, **variables}, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        report = json.loads(process.stdout.read())
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    seconds = time.monotonic() - began
    (folder,) = report["folders"]
    click.echo(
        f"checked {folder['files']:,} files, {folder['objects']:,} objects, {folder['segments']:,} segments,"
        f" {folder['checkpoints']} checkpoints, {report['damage']} damaged, {report['notes']} notes: {seconds:.1f} s,"
        f" {usage.ru_utime + usage.ru_stime:.1f} CPU s, peak memory {usage.ru_maxrss / 1024:.0f} MiB;"
        f" the store took {_cpu_of(server.pid) - before:.1f} CPU s"
    )


def _cpu_of(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


if __name__ == "__main__":
    main()
