"""Random changes to a folder, reproducible by their seed as long as nothing else changes it."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from untrusted_s3.units import KIB, MIB

_MOST_BYTES = 150 * MIB
_MOST_FILES = 400
_LARGE_SHARE = 0.03
_INTERNAL = (".stfolder", ".syncthing.")


class RandomChanges:
    """Random changes to the folder at `root`; `made` counts them by kind.

    `large_share` of the contents have 9 to 40 MiB. With `files_only`, there are no directories, and only twenty names.
    A name stays that of a file or of a directory: if a directory becomes a file that is deleted before another device
    has seen it, Syncthing cannot delete the directory there ("encountered directory when trying to remove file").
    """

    def __init__(self, root: Path, seed: int, *, files_only: bool = False, large_share: float = _LARGE_SHARE) -> None:
        self.made: Counter[str] = Counter()
        self._root = root
        self._large_share = large_share
        self._random = random.Random(seed)
        self._names = 20 if files_only else 1000
        self._changes: list[tuple[Callable[[], None], int]] = [
            (self._create, 8),
            (self._edit, 5),
            (self._append, 3),
            (self._truncate, 2),
            (self._rename, 3),
            (self._delete, 3),
            (self._set_mode, 2),
            (self._set_mtime, 2),
        ]
        if files_only:
            return
        self._changes += [
            (self._make_directory, 2),
            (self._rename_directory, 1),
            (self._remove_directory, 1),
        ]

    def make(self, count: int) -> None:
        """Make some changes. Skip those that Syncthing makes impossible by a change of its own."""
        self._root.mkdir(exist_ok=True)
        for _ in range(count):
            changes, weights = zip(*self._changes, strict=True)
            change = self._random.choices(changes, weights)[0]
            if change == self._create and self._is_full():
                continue
            with contextlib.suppress(
                FileNotFoundError, FileExistsError, NotADirectoryError, IsADirectoryError, OSError
            ):
                change()
                self.made[change.__name__.strip("_")] += 1

    # What there is

    def _items(self) -> list[Path]:
        found = (path for path in self._root.rglob("*") if not any(name in str(path) for name in _INTERNAL))
        return sorted(found)

    def _file(self) -> Path:
        return self._choose([path for path in self._items() if path.is_file()])

    def _directory(self) -> Path:
        return self._choose([path for path in self._items() if path.is_dir()])

    def _choose(self, paths: list[Path]) -> Path:
        if not paths:
            raise FileNotFoundError
        return self._random.choice(paths)

    def _is_full(self) -> bool:
        sizes = [path.stat().st_size for path in self._items() if path.is_file()]
        return len(sizes) > _MOST_FILES or sum(sizes) > _MOST_BYTES

    def _new_path(self, kind: str) -> Path:
        directories = [self._root, *(path for path in self._items() if path.is_dir())]
        return self._random.choice(directories) / f"{kind} {self._random.randrange(self._names)}"

    def _bytes(self) -> bytes:
        if self._random.random() < self._large_share:
            return self._random.randbytes(self._random.randrange(9 * MIB, 40 * MIB))
        return self._random.randbytes(self._random.choice([0, 1, 1024, self._random.randrange(300 * KIB)]))

    # Changes

    def _create(self) -> None:
        self._new_path("file").write_bytes(self._bytes())

    def _edit(self) -> None:
        with self._file().open("r+b") as file:
            file.seek(self._random.randrange(max(os.fstat(file.fileno()).st_size, 1)))
            file.write(self._random.randbytes(self._random.randrange(1, 5000)))

    def _append(self) -> None:
        with self._file().open("ab") as file:
            file.write(self._random.randbytes(self._random.randrange(1, 200 * KIB)))

    def _truncate(self) -> None:
        path = self._file()
        os.truncate(path, self._random.randrange(path.stat().st_size + 1))

    def _rename(self) -> None:
        self._file().rename(self._new_path("file"))

    def _delete(self) -> None:
        self._file().unlink()

    def _set_mode(self) -> None:
        self._file().chmod(self._random.choice([0o600, 0o644, 0o755, 0o640]))

    def _set_mtime(self) -> None:
        time_ns = self._random.randrange(10**18, 17 * 10**17)
        os.utime(self._file(), ns=(time_ns, time_ns))

    def _make_directory(self) -> None:
        self._new_path("directory").mkdir()

    def _rename_directory(self) -> None:
        path, target = self._directory(), self._new_path("directory")
        if path not in target.parents and path != target:
            path.rename(target)

    def _remove_directory(self) -> None:
        shutil.rmtree(self._directory())
