"""The folders that real Syncthing encrypts."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from tests.peers.trees import random_file

MAIN = ("my folder", "my password")  # as in Syncthing's own known answers
OTHER = ("Ordner ä 🦄", "pässwörd 🔑 漢字")
SHARED_BY_TWO = ("shared by two", "another password")

# Folder ID and password. Syncthing takes neither an empty ID nor, for an untrusted device, an empty password.
SHARES = {
    MAIN: "",
    OTHER: "",
    SHARED_BY_TWO: "",
    ("a", "b"): "short",
    (" ", " "): "spaces alone",
    ("..", "../.."): "dots",
    ("i" * 64, "p" * 64): "longer than a block of SHA-256 with the prefix",
    ("long " * 100, "long password " * 100): "long",
    ("composed", "\u00e9"): "U+00E9",
    ("decomposed", "e\u0301"): "the same letter in two code points is another password",
    ("controls\n", "tab\t, line\n and \0 zero"): "control characters",
    ("quotes \"' and \\", "\"quotes\" and 'quotes' and \\"): "quotes",
    ("same 1", "same password"): "one password, two folders: two tokens",
    ("same 2", "same password"): "one password, two folders: two tokens",
}

# Lengths in bytes of names whose encrypted form has one component more than that of a name one byte shorter.
_MORE_COMPONENTS = (111, 236, 361, 486, 611)
NAME_SIZES = sorted(
    {*range(1, 49), *range(50, 701, 25)}
    | {size + around for size in _MORE_COMPONENTS for around in range(-6, 8)}
    | {255, 256, 699, 700}
)
NAMES = [
    "filename.txt",
    "a directory/with a file",
    " leading and trailing ",
    "Grüße aus Köln",
    "漢字かな交じり文",
    "한국어",
    "🦄 and 👩‍👩‍👧‍👦",
    "quote'\"`$",
    "back\\slash",
    "line\nfeed",
    ".hidden",
    "...",
    "UPPER",
    "upper",
]

ZEROS = "blocks/equal blocks"
HUGE = "blocks/more than 4 GiB"
BLOCK_SIZES = (1, 16, 1023, 1024, 1025, 4096, 131_073)


def sized_name(size: int) -> str:
    """Return a path of exactly that many bytes, with no component too long for a file system."""
    directories = "/".join(["d" * 199] * ((size - 1) // 200))
    rest = size - len(directories) - bool(directories)
    return (directories + "/" if directories else "") + ("abcdefghijklmnopqrstuvwxyz" * 8)[:rest]


def block_file(size: int) -> str:
    """Return the name of the file of random data of that size."""
    return f"blocks/{size} bytes"


def build_main(root: Path, huge: bool) -> None:
    """Build the folder whose names, blocks and file infos are captured; `huge` adds a file that takes time to scan."""
    for name in [*map(sized_name, NAME_SIZES), *NAMES]:
        _write(root / name, b"")
    for size in BLOCK_SIZES:
        random_file(root / block_file(size), size, seed=size)
    _write(root / "blocks/empty", b"")
    _write(root / ZEROS, bytes(3 * 131_072 + 5))
    if huge:
        with (root / HUGE).open("wb") as file:
            file.truncate((4 << 30) + (8 << 20) + 1)

    infos = root / "infos"
    _write(infos / "empty file", b"")
    _write(infos / "file", b"contents of a file\n")
    random_file(infos / "three blocks", 2 * 131_072 + 1000, seed=3)
    for mode in (0o600, 0o755, 0o444):
        _write(infos / f"mode {mode:o}", b"mode")
        (infos / f"mode {mode:o}").chmod(mode)
    for name, mtime_ns in {"before 1970": -86_400_000_000_001, "after 2038": 4_102_444_800_123_456_789}.items():
        _write(infos / name, b"time")
        os.utime(infos / name, ns=(mtime_ns, mtime_ns))
    (infos / "directory").mkdir()
    (infos / "directory").chmod(0o700)
    (infos / "symlink").symlink_to("../infos/file")
    (infos / "dangling symlink").symlink_to("ziel äöü 🦄")
    _write(infos / "with attributes", b"attributes")
    with contextlib.suppress(OSError):  # not every file system has them
        os.setxattr(infos / "with attributes", "user.untrusted-s3", b"value \0\xff")
    for name in ("deleted file", "changed file", "ignored file"):
        _write(infos / name, name.encode())
    (infos / "deleted directory").mkdir()
    (infos / "deleted symlink").symlink_to("file")


def change_main(root: Path) -> None:
    """Make the changes between the first scan and the second."""
    infos = root / "infos"
    (infos / "deleted file").unlink()
    (infos / "deleted directory").rmdir()
    (infos / "deleted symlink").unlink()
    _write(infos / "changed file", b"other contents")
    (root / ".stignore").write_text("/infos/ignored file\n")


def build_other(root: Path) -> None:
    """Build a second folder, with another key."""
    for name in ("a", "filename.txt", "Grüße/aus Köln"):
        _write(root / name, name.encode())


def build_shared_by_two(root: Path) -> None:
    """Build the folder in which two devices change a file."""
    _write(root / "changed by two", b"first")
    _write(root / "deleted by the second", b"first")


def change_shared_by_two(root: Path) -> None:
    """Make the change of the second device."""
    _write(root / "changed by two", b"second")
    (root / "deleted by the second").unlink()


def _write(path: Path, contents: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(contents)
