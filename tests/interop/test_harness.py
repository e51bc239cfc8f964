"""The helpers of other tests notice what they must notice."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers.debian import read_deb822_sources, read_one_line_sources
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, manifest, random_file
from tests.waiting import PATIENCE


def _add_time(path: Path) -> None:
    mtime_ns = path.stat().st_mtime_ns + 1
    os.utime(path, ns=(mtime_ns, mtime_ns))


def _retarget(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def _flip_bit(path: Path) -> None:
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("sizes/131073 bytes", _flip_bit),
        ("sizes/0 bytes", Path.unlink),
        ("times/old", _add_time),
        ("modes/600", lambda path: path.chmod(0o640)),
        ("private directory", lambda path: path.chmod(0o755)),
        ("links/to nowhere", _retarget),
        ("empty directory", Path.rmdir),
        ("one too many", Path.mkdir),
    ],
)
def test_every_difference_between_trees_is_seen(tmp_path: Path, name: str, change: Callable[[Path], object]) -> None:
    left, right = tmp_path / "left", tmp_path / "right"
    build_awkward_tree(left)
    build_awkward_tree(right)
    for path in (*left.rglob("*"), *right.rglob("*")):
        if path.is_file() and not path.is_symlink() and path.parent.name != "times":
            os.utime(path, ns=(0, 0))
    (left / ".stfolder").mkdir()
    assert_same_tree(left, right)
    change(right / name)
    with pytest.raises(AssertionError) as failure:
        assert_same_tree(left, right)
    assert repr(name) in str(failure.value)
    assert len(str(failure.value).splitlines()) <= 4, "one change, one difference"


def test_the_awkward_tree_is_awkward(tmp_path: Path) -> None:
    decomposed = build_awkward_tree(tmp_path)
    entries = manifest(tmp_path)
    assert decomposed.keys() <= entries.keys()
    assert all(name != composed == unicodedata.normalize("NFC", name) for name, composed in decomposed.items())
    assert max(len(name.encode()) for name in entries) >= 700
    assert count_files(tmp_path) == sum(entry.kind == "file" for entry in entries.values()) > 30


def test_random_files_are_reproducible(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        random_file(tmp_path / name, (1 << 20) + 5, seed)
    a, b, c = ((tmp_path / name).read_bytes() for name in "abc")
    assert a == b != c
    assert len(a) == (1 << 20) + 5


def test_apt_sources_in_stanzas() -> None:
    text = (
        "Types: deb deb-src\n# a comment\nURIs: http://mirror.example/debian\nSuites: bookworm\n bookworm-updates\n"
        "Components: main\nSigned-By:\n -----BEGIN PGP\n .\n\nTypes: deb\nURIs: http://other.example\nSuites: trixie\n"
        "Enabled: no\n\nTypes: deb-src\nURIs: http://source.example\nSuites: sid\n"
    )
    (source,) = read_deb822_sources(text)
    assert source.addresses == ["http://mirror.example/debian"]
    assert source.suites == ["bookworm", "bookworm-updates"]
    assert source.components == ["main"]


def test_apt_sources_in_lines() -> None:
    text = (
        "# deb http://no.example stable main\ndeb [arch=amd64 signed-by=/a/b.gpg] http://mirror.example/debian trixie "
        "main contrib # words\ndeb-src http://source.example trixie main\ndeb http://second.example sid main\n"
    )
    first, second = read_one_line_sources(text)
    assert (first.addresses, first.suites) == (["http://mirror.example/debian"], ["trixie"])
    assert first.components == ["main", "contrib"]
    assert second.addresses == ["http://second.example"]


@pytest.mark.interop
def test_syncthing_is_one_process_that_ends_with_its_parent(syncthing_binary: Path, tmp_path: Path) -> None:
    program = (
        "import pathlib, sys, time\n"
        "from tests.peers.syncthing import Syncthing\n"
        "device = Syncthing(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), 'device').start()\n"
        "print(device.gui_port, flush=True)\n"
        "time.sleep(300)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, syncthing_binary, tmp_path],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert parent.stdout is not None
        gui = ("127.0.0.1", int(parent.stdout.readline()))
        socket.create_connection(gui).close()
    finally:
        parent.kill()
        parent.communicate()
    deadline = time.monotonic() + PATIENCE
    with pytest.raises(ConnectionRefusedError):
        while time.monotonic() < deadline:
            socket.create_connection(gui).close()
            time.sleep(0.05)
