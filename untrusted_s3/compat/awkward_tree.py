"""A folder of files that are hard to synchronize."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

_OLD = 631_152_000_123_456_789  # 1990-01-01, in nanoseconds
_RECENT = 1_767_225_600_987_654_321  # 2026-01-01
_CHUNK = 1 << 20


def build_awkward_tree(root: Path) -> dict[str, str]:
    """Fill a folder with files that are hard to synchronize.

    Return the paths with decomposed (NFD) names, and the composed (NFC) names that they get: on Linux, Syncthing's scan
    renames them on disk, so compare trees only after the first scan.
    """
    for size in (0, 1, 1023, 1024, 1025, 131_071, 131_072, 131_073):
        random_file(root / "sizes" / f"{size} bytes", size, seed=size)

    names = [
        "with space",
        " leading and trailing ",
        "Grüße aus Köln",
        "漢字かな交じり文",
        "한국어",
        "🦄 and 👩‍👩‍👧‍👦",
        "quote'\"`$",
        "back\\slash",
    ]
    for number, name in enumerate(names):
        random_file(root / "names" / name, 100 + number, seed=number)
        random_file(root / "named folders" / name / "inside", 10 + number, seed=number)
    decomposed: dict[str, str] = {}
    for name in ("Ärger é", "がぎぐげご", "한글 🎉 ñ"):
        nfd, nfc = (unicodedata.normalize(form, f"decomposed/{name}") for form in ("NFD", "NFC"))
        random_file(root / nfd, 2000, seed=len(decomposed))
        decomposed[nfd] = nfc

    long_path = root.joinpath(*(letter * 230 for letter in "abc"), "at the end of a path of about 700 bytes")
    random_file(long_path, 4096, seed=700)
    random_file(root.joinpath(*(f"level {depth}" for depth in range(12)), "deep"), 5000, seed=12)
    (root / "empty directory").mkdir()
    (root / "private directory").mkdir(mode=0o700)
    random_file(root / "private directory" / "secret", 64, seed=64)

    for link, target in {
        "to nowhere": "does/not/exist",
        "to a file": "../sizes/1024 bytes",
        "to a directory": "../names",
    }.items():
        (root / "links").mkdir(exist_ok=True)
        (root / "links" / link).symlink_to(target)

    for mode in (0o600, 0o755, 0o444):
        file = root / "modes" / f"{mode:o}"
        random_file(file, 3000, seed=mode)
        file.chmod(mode)
    for name, mtime_ns in {"old": _OLD, "recent": _RECENT, "whole second": 1_000_000_000_000_000_000}.items():
        file = root / "times" / name
        random_file(file, 300, seed=mtime_ns)
        os.utime(file, ns=(mtime_ns, mtime_ns))
    return decomposed


def random_file(path: Path, size: int, seed: int) -> None:
    """Write `size` incompressible bytes, the same for the same seed."""
    key = hashlib.sha256(str(seed).encode()).digest()
    stream = Cipher(algorithms.ChaCha20(key, bytes(16)), mode=None).encryptor()
    zeros = bytes(_CHUNK)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        for written in range(0, size, _CHUNK):
            file.write(stream.update(zeros[: min(_CHUNK, size - written)]))
