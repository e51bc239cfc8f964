"""`untrusted-s3 compat` with real Syncthings, run as CI runs it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.peers.debian import SYNCTHING_VERSIONS, SyncthingVersion
from tests.waiting import PATIENCE
from untrusted_s3 import __version__
from untrusted_s3.store.embedded.process import die_with_parent

pytestmark = pytest.mark.interop

CHECKS = [
    "path in",
    "token",
    "names",
    "block tokens",
    "file infos",
    "path out",
    "metadata",
    "change of one block",
    "delete",
    "syncthing decrypt",
    "restore",
]


@contextlib.contextmanager
def started(binary: Path, temporary: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A run whose temporary folder, and so each of its processes, is known by its path."""
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "untrusted_s3", "compat", "--syncthing", str(binary), *options],
        env={**os.environ, "TMPDIR": str(temporary)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=die_with_parent(),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate()


def assert_all_ended(directory: Path) -> None:
    """Fail if a process of a finished run does not end. One that was just starting ends a moment after its parent."""
    deadline = time.monotonic() + PATIENCE
    while processes_below(directory) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_below(directory) == []


def processes_below(directory: Path) -> list[str]:
    """Return the command lines of all processes that name a path below a directory."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"{directory}/" in command:
            found.append(command)
    return found


@dataclass
class Run:
    exit_code: int
    stdout: str
    stderr: str
    temporary: Path

    @property
    def folders(self) -> list[Path]:
        """Return the names in the temporary folder."""
        return list(self.temporary.iterdir())


def finish(process: subprocess.Popen[str], temporary: Path) -> Run:
    stdout, stderr = process.communicate(timeout=PATIENCE)
    return Run(process.returncode, stdout, stderr, temporary)


LIMITED, LAME = "limited", "lame"  # for runs that are expected to fail
TIME = ["--time-limit", str(PATIENCE)]


@pytest.fixture(scope="module")
def runs(syncthing_binaries: dict[SyncthingVersion, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Run compat with each version, with too little time, and with a program that can do little.

    The newer version keeps its folder. The program can only print its version and make a configuration. All run at
    once: they mostly wait.
    """
    home = tmp_path_factory.mktemp("compat")
    older, newer = (syncthing_binaries[version] for version in SYNCTHING_VERSIONS)
    lame = home / "lame-syncthing"
    lame.write_text(f"""#!/bin/sh
if [ "$1" = serve ]; then echo "will not serve" >&2; exit 3; fi
exec {newer} "$@"
""")
    lame.chmod(0o755)
    plan: dict[str, tuple[Path, list[str]]] = {
        SYNCTHING_VERSIONS[0]: (older, ["--json", *TIME]),
        SYNCTHING_VERSIONS[1]: (newer, ["--json", "--keep", *TIME]),
        LIMITED: (newer, ["--json", "--time-limit", "1"]),
        LAME: (lame, []),
    }
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(started(binary, home / name, *options))
            for name, (binary, options) in plan.items()
        }
        return {name: finish(process, home / name) for name, process in running.items()}


@pytest.mark.parametrize("version", SYNCTHING_VERSIONS)
def test_every_check_is_well(runs: dict[str, Run], version: SyncthingVersion) -> None:
    run = runs[version]
    assert run.exit_code == 0, run.stdout + run.stderr
    document = json.loads(run.stdout)
    assert [check["name"] for check in document["checks"]] == CHECKS
    assert {check["status"] for check in document["checks"]} == {"ok"}
    assert all(check["detail"] for check in document["checks"])
    assert 0 < sum(check["seconds"] for check in document["checks"]) <= document["seconds"]
    assert document["ok"] is True
    assert document["versions"]["syncthing"].startswith(f"v{version}")
    assert document["versions"]["untrusted-s3"] == __version__
    assert document["versions"].keys() >= {"seaweedfs", "python", "cryptography", "protobuf"}
    assert_all_ended(run.temporary)


def test_nothing_is_left_but_what_was_to_be_kept(runs: dict[str, Run]) -> None:
    older, newer = (runs[version] for version in SYNCTHING_VERSIONS)
    assert older.folders == []
    assert older.stderr == ""
    (kept,) = newer.folders
    assert newer.stderr == f"kept: {kept}\n"
    assert {"original", "copy", "restored", "gateway", "first"} <= {path.name for path in kept.iterdir()}


def test_a_syncthing_that_does_not_run(runs: dict[str, Run]) -> None:
    run = runs[LAME]
    assert run.exit_code == 1, run.stderr
    first, *lines = run.stdout.splitlines()
    assert first.startswith("syncthing v1.29.5")
    assert lines[0].startswith("FAIL  path in")
    assert "is not running" in lines[0]
    assert "      will not serve" in lines
    assert [line.partition("  needs: ")[2] for line in lines if line.startswith("-")] == [
        *["path in"] * 5,
        *["path in, path out"] * 3,
        *["path in"] * 2,
    ]
    assert lines[-1].startswith("0 of 11 checks are well, 1 failed, 10 not run")
    assert run.folders == []
    assert_all_ended(run.temporary)


def test_an_interrupt_leaves_nothing(syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path) -> None:
    temporary = tmp_path / "temporary"
    with started(syncthing_binaries["1.29.5"], temporary) as process:
        deadline = time.monotonic() + PATIENCE
        while len([command for command in processes_below(temporary) if " serve " in command]) < 2:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)  # the store, a gateway and a device run now
        run = finish(process, temporary)
    assert run.exit_code == 128 + signal.SIGINT
    assert "Traceback" not in run.stderr
    assert run.folders == []
    assert_all_ended(temporary)


def test_the_time_limit_ends_it(runs: dict[str, Run]) -> None:
    run = runs[LIMITED]
    assert run.exit_code == 1, run.stderr
    document = json.loads(run.stdout)
    assert document["ok"] is False
    assert {check["status"] for check in document["checks"]} == {"failed"}
    assert all(check["detail"].startswith("the time limit of 1 s is over") for check in document["checks"])
    assert run.folders == []
    assert_all_ended(run.temporary)
