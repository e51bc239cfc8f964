"""The measured work: a folder goes from one Syncthing to a receiver, and from there to another Syncthing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.far_store import NEAR, Distance
from bench.measure import PEER, Measurement, Meter
from bench.receivers import (
    FOLDER,
    REPOSITORY,
    Bench,
    MakeReceiver,
    Receiver,
    ReceiverFailed,
    new_store,
    store_environment,
)
from bench.sharing import PASSWORD, assert_same_tree
from untrusted_s3.compat.awkward_tree import random_file
from untrusted_s3.compat.syncthing import Syncthing
from untrusted_s3.errors import SyncthingFailed

INGEST, SERVE = "ingest", "serve"
Report = Callable[[str, Measurement], None]
"""Is called with INGEST or SERVE, and the cost."""

MIB = 1 << 20
_CHECK_SECONDS = 5.0


@dataclass(frozen=True)
class Shape:
    """A folder of equal files of random data. Sizes are in bytes; `put_sizes` are those of a bare client's objects."""

    name: str
    files: int
    file_size: int
    put_sizes: tuple[int, ...]

    @property
    def total(self) -> int:
        return self.files * self.file_size

    @property
    def title(self) -> str:
        return f"{self.files:,} file{'s' * (self.files != 1)} of {size_text(self.file_size)}"

    def build(self, root: Path) -> None:
        """Write the files."""
        for number in range(self.files):
            random_file(root / f"file {number}", self.file_size, seed=number)


def size_text(size: int) -> str:
    """Return a size as text, in MiB or KiB."""
    return f"{size // MIB:,} MiB" if size >= MIB else f"{size // 1024:,} KiB"


def synchronise(
    shape: Shape,
    source: Path,
    make_receiver: MakeReceiver,
    syncthing: Path,
    directory: Path,
    report: Report,
    *,
    serve: bool,
    timeout: float,
    distance: Distance = NEAR,
    then: Callable[[Receiver], None] = lambda receiver: None,
) -> None:
    """Measure a receiver that takes the folder `source` and, with `serve`, gives it to a fresh device.

    Everything except the source is in `directory` and fresh. The clock runs from the moment when the sender or puller
    may connect, with nothing left to scan, until it reports completion. Then the data is compared. At last `then` is
    called, while the receiver still runs. Raises
    ReceiverUnavailable, ReceiverFailed, SyncthingFailed, or AssertionError for differing data; earlier reports stay
    valid.
    """
    sender = Syncthing(syncthing, directory / "sender", "sender")
    puller = Syncthing(syncthing, directory / "puller", "puller")
    with make_receiver(Bench(directory, syncthing, [sender, puller], distance)) as receiver:
        with sender:
            _prepare(sender, receiver, source)
            meter = _connect(sender, receiver)
            _wait(lambda seconds: sender.wait_completion(receiver.device_id, FOLDER, seconds), receiver, timeout)
            report(INGEST, meter.stop())
            receiver.settle(shape.files)
        if serve:
            copy = directory / "copy"
            with puller:
                _prepare(puller, receiver, copy)
                meter = _connect(puller, receiver)
                _wait(lambda seconds: puller.wait_in_sync(FOLDER, shape.files, seconds), receiver, timeout)
                measurement = meter.stop()
            assert_same_tree(source, copy)
            report(SERVE, measurement)
        then(receiver)


def put_and_get(shape: Shape, object_size: int, directory: Path, report: Report, distance: Distance = NEAR) -> None:
    """Measure how fast a bare client writes and reads as many bytes in objects of that size, on a fresh SeaweedFS."""
    with new_store(directory, distance) as (store, url):
        arguments = [url, store.bucket, str(object_size), str(shape.total // object_size)]
        done = subprocess.run(
            [sys.executable, "-m", "bench.bare_client", *arguments, str(store.pid)],
            cwd=REPOSITORY,
            env=store_environment(store),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise ReceiverFailed(f"the bare client ended with status {done.returncode}")
        for work, fields in json.loads(done.stdout).items():
            report(work, Measurement(**fields))


def _prepare(device: Syncthing, receiver: Receiver, folder: Path) -> None:
    """Share a folder with the receiver, scan it, and stay disconnected."""
    untrusted = {"deviceID": receiver.device_id, "name": "receiver", "addresses": [receiver.address], "untrusted": True}
    device.rest("POST", "config/devices", {**untrusted, "paused": True})
    device.add_folder(FOLDER, folder, {receiver.device_id: PASSWORD})
    device.scan(FOLDER)


def _connect(device: Syncthing, receiver: Receiver) -> Meter:
    os.sync()  # so data of earlier runs is not written during this one
    meter = Meter({**receiver.processes, PEER: device.pid})
    device.resume_device(receiver.device_id)
    return meter


def _wait(wait: Callable[[float], object], receiver: Receiver, timeout: float) -> None:
    """Call `wait` with a number of seconds until it succeeds, and check in between that the receiver still runs."""
    deadline = time.monotonic() + timeout
    while True:
        seconds = min(_CHECK_SECONDS, deadline - time.monotonic())
        started = time.monotonic()
        try:
            wait(seconds)
            return
        except SyncthingFailed:
            receiver.check()
            gave_up_early = time.monotonic() < started + seconds
            if gave_up_early or time.monotonic() >= deadline:
                raise
