"""Other programs that take a folder to a store and back: run once each, and measured from their start to their end."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measure import RECEIVER, Measurement, Meter, peak_bytes
from bench.receivers import FOLDER, REPOSITORY, ReceiverFailed, ReceiverUnavailable, store_environment
from bench.sharing import PASSWORD
from untrusted_s3.store.embedded.process import REGION, die_with_parent
from untrusted_s3.store.embedded.server import EmbeddedStore

_POLL_SECONDS = 0.01
# As many as the gateway begins with.
_AT_ONCE = 16


@dataclass(frozen=True)
class Commands:
    """The command lines of one program, with its environment.

    Attributes:
        prepare: Those that run first, and are not measured.
        there: What takes the folder to the store.
        back: What takes it back.
        restored: Where the folder is then.
    """

    prepare: Sequence[Sequence[str]]
    there: Sequence[str]
    back: Sequence[str]
    restored: Path
    environment: Mapping[str, str]


MakeCommands = Callable[[EmbeddedStore, str, Path, Path], Commands]


def run_measured(command: Sequence[str], environment: Mapping[str, str], others: Mapping[str, int]) -> Measurement:
    """Measure a program from its start to its end, and the processes `others` meanwhile. Raises ReceiverFailed."""
    os.sync()
    meter, started = Meter(others), time.monotonic()
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=dict(environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        preexec_fn=die_with_parent(),
    )
    peak, ended = 0, 0
    while not ended:
        with contextlib.suppress(OSError):
            peak = max(peak, peak_bytes(process.pid))
        time.sleep(_POLL_SECONDS)
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
    process.returncode = os.waitstatus_to_exitcode(status)
    seconds, measured = time.monotonic() - started, meter.stop()
    if process.returncode != 0:
        raise ReceiverFailed(f"{Path(command[0]).name} ended with status {process.returncode}")
    return Measurement(
        seconds,
        {RECEIVER: usage.ru_utime + usage.ru_stime, **measured.cpu_seconds},
        {RECEIVER: peak, **measured.peak_bytes},
    )


def restore_command(store: EmbeddedStore, url: str, to: Path) -> tuple[Sequence[str], Mapping[str, str]]:
    """Return the command that restores the folder of a gateway, and its environment."""
    options = [f"--store=s3://{store.bucket}/{FOLDER}", f"--endpoint-url={url}", f"--folder={FOLDER}"]
    command = [sys.executable, "-m", "untrusted_s3", "restore", *options, str(to)]
    return command, {**store_environment(store), "UNTRUSTED_S3_PASSWORD": PASSWORD}


def rclone_crypt(store: EmbeddedStore, url: str, source: Path, directory: Path) -> Commands:
    """Return the commands of rclone with its crypt remote. Raises ReceiverUnavailable."""
    program = _program("rclone")
    obscured = subprocess.run([program, "obscure", PASSWORD], capture_output=True, text=True, check=True).stdout.strip()
    environment = {
        **store_environment(store),
        "RCLONE_CONFIG": str(directory / "rclone.conf"),
        "RCLONE_CONFIG_STORE_TYPE": "s3",
        "RCLONE_CONFIG_STORE_PROVIDER": "Other",
        "RCLONE_CONFIG_STORE_ENV_AUTH": "true",
        "RCLONE_CONFIG_STORE_ENDPOINT": url,
        "RCLONE_CONFIG_STORE_REGION": REGION,
        "RCLONE_CONFIG_CRYPT_TYPE": "crypt",
        "RCLONE_CONFIG_CRYPT_REMOTE": f"store:{store.bucket}/rclone",
        "RCLONE_CONFIG_CRYPT_PASSWORD": obscured,
    }
    copy = [program, "copy", f"--transfers={_AT_ONCE}", f"--checkers={_AT_ONCE}", "--quiet"]
    restored = directory / "restored"
    (directory / "rclone.conf").touch()
    return Commands(
        [[program, "--quiet", "copy", str(_warm_up(directory)), f"store:{store.bucket}/warm-up"]],
        [*copy, str(source), "crypt:folder"],
        [*copy, "crypt:folder", str(restored)],
        restored,
        environment,
    )


def restic(store: EmbeddedStore, url: str, source: Path, directory: Path) -> Commands:
    """Return the commands of restic, which packs small files. Raises ReceiverUnavailable."""
    program = _program("restic")
    environment = {
        **store_environment(store),
        "AWS_DEFAULT_REGION": REGION,
        "RESTIC_REPOSITORY": f"s3:{url}/{store.bucket}/restic",
        "RESTIC_PASSWORD": PASSWORD,
        "RESTIC_CACHE_DIR": str(directory / "restic cache"),
    }
    options = ["--quiet", f"--option=s3.connections={_AT_ONCE}"]
    target = directory / "restored"
    return Commands(
        [[program, "init", *options]],
        [program, "backup", *options, str(source)],
        [program, "restore", "latest", *options, f"--target={target}"],
        target / source.relative_to("/"),
        environment,
    )


def prepare(commands: Commands) -> None:
    """Run what comes before. Raises ReceiverFailed."""
    for command in commands.prepare:
        done = subprocess.run(command, env=dict(commands.environment), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise ReceiverFailed(f"{Path(command[0]).name} failed: {done.stderr.strip()}")


def _warm_up(directory: Path) -> Path:
    """Return a folder of a few files: a fresh SeaweedFS makes its volumes when it gets the first ones."""
    folder = directory / "warm-up"
    folder.mkdir()
    for number in range(_AT_ONCE):
        (folder / str(number)).write_bytes(bytes(100))
    return folder


def _program(name: str) -> str:
    """Return the path of a program: on PATH, or where the tests have unpacked Debian's package."""
    found = shutil.which(name)
    if found is not None:
        return found
    cache = Path(os.environ.get("UNTRUSTED_S3_TEST_CACHE") or Path.home() / ".cache" / "untrusted-s3-tests")
    unpacked = sorted(cache.glob(f"debian/*/{name}/usr/bin/{name}"))
    if not unpacked:
        raise ReceiverUnavailable(f"{name} is not installed")
    return str(unpacked[-1])
