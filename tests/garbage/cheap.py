"""What makes a schedule cheap: the same answers as from local files, in less time.

Half of a schedule's time would go into small databases, which are made, opened and checked by the hundred. None of that
depends on the order of calls to the store.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from tests.simulated import fast_directory
from untrusted_s3.index import checkpoint, state_file
from untrusted_s3.index.checkpoint_check import check_copy
from untrusted_s3.index.database import Database
from untrusted_s3.store.garbage import digest
from untrusted_s3.upkeep import garbage
from untrusted_s3.upkeep.live import Named

_JOURNAL = "PRAGMA journal_mode = WAL"
_PRAGMAS = ("PRAGMA synchronous", "PRAGMA cache_size", "PRAGMA wal_autocheckpoint", "PRAGMA journal_size_limit")


class _Objects:
    """`live.ObjectSet` without a database."""

    def __init__(self) -> None:
        self._digests: set[int] = set()

    def close(self) -> None:
        self._digests.clear()

    def add(self, objects: Iterable[Named]) -> None:
        self._digests.update(digest(named.name_hash, named.object_name) for named in objects)

    def has(self, name_hash: bytes, object_name: str) -> bool:
        return digest(name_hash, object_name) in self._digests


def _checked_once(check: Callable[..., int]) -> Callable[..., int]:
    """Return `checkpoint_check.check_copy` that does not check the same bytes twice."""
    sound: dict[tuple[Any, ...], int] = {}

    def once(path: Path, position: int, key: str, *, entries: bool = True) -> int:
        known = (hashlib.sha1(path.read_bytes(), usedforsecurity=False).digest(), position, entries)
        if known not in sound:
            sound[known] = check(path, position, key, entries=entries)
        return sound[known]

    return once


def _without_pragmas(execute: Callable[..., Any]) -> Callable[..., Any]:
    """Return `Database.execute` that keeps no write-ahead log, which takes files and locks of its own."""

    @functools.wraps(execute)
    def cheaper(database: Database, statement: str, *arguments: Any) -> Any:
        if statement == _JOURNAL:
            statement = "PRAGMA journal_mode = OFF"
        elif statement.startswith(_PRAGMAS):
            statement = "PRAGMA synchronous = OFF"
        return execute(database, statement, *arguments)

    return cheaper


def _copy(state: Path, path: Path) -> int:
    """Do what `state_copy.write_copy` does without compaction. The state has neither a transaction nor a log."""
    shutil.copyfile(state, path)
    with contextlib.closing(sqlite3.connect(path)) as copy:
        return int(copy.execute("SELECT value FROM meta WHERE key = 'position'").fetchone()[0])


class _Directories:
    """Temporary directories that are used again: to delete one takes a millisecond."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self._free: list[Path] = []
        self._made = 0

    @contextlib.contextmanager
    def take(self, **_: object) -> Iterator[str]:
        """Stand for `tempfile.TemporaryDirectory`."""
        if not self._free:
            self._made += 1
            self._free.append(self._parent / f"{self._made}")
            self._free[-1].mkdir()
        directory = self._free.pop()
        try:
            yield str(directory)
        finally:
            for path in directory.iterdir():
                path.unlink()
            self._free.append(directory)


@contextlib.contextmanager
def cheap_databases() -> Iterator[Path]:
    """Let local databases cost little in the block. Provide a directory for them."""
    with fast_directory() as parent, _cheap_in(_Directories(parent)):
        yield parent


@contextlib.contextmanager
def _cheap_in(directories: _Directories) -> Iterator[None]:
    with (
        mock.patch.object(garbage, "ObjectSet", _Objects),
        mock.patch.object(checkpoint, "check_copy", _checked_once(check_copy)),
        mock.patch.object(Database, "execute", _without_pragmas(Database.execute)),
        mock.patch.object(state_file, "write_copy", _copy),
        mock.patch.object(tempfile, "TemporaryDirectory", directories.take),
    ):
        yield
