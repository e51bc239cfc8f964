"""What makes a schedule cheap: the same answers as from local files, in less time.

Half of a schedule's time would go into small databases, which are made, opened and checked by the hundred. None of that
depends on the order of calls to the store.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from unittest import mock

import crc32c

from tests.simulated import fast_directory
from untrusted_s3.errors import DataError
from untrusted_s3.index import checkpoint, segment_reader, state_file
from untrusted_s3.index.database import Database, open_database
from untrusted_s3.index.entry import NamedObject
from untrusted_s3.index.schema import SCHEMA, STATE_VERSION
from untrusted_s3.index.segment import decode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.garbage import digest
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.upkeep import garbage, live
from untrusted_s3.upkeep.live import Named

_PRAGMAS = "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF"


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


class _Loaded:
    """`live.FolderState` without a database: the objects of a checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.named: tuple[NamedObject, ...] = ()

    def objects(self) -> Iterator[NamedObject]:
        return iter(self.named)

    def close(self) -> None:
        """There is nothing to close."""


# What checkpoints of some bytes name. Schedules have thousands of them, and few are read twice in different ones.
_NAMED: dict[bytes, tuple[NamedObject, ...]] = {}
_MOST_NAMED = 1000
_CHECKSUM_SIZE = 4


async def _read_checkpoint(
    bucket: Bucket, keys: FolderKeys, position: int, state: _Loaded, *, check_entries: bool, kept_as: str | None
) -> None:
    """Do for `live` what `checkpoint.read_checkpoint` does, and do not read the same bytes twice."""
    path = state.path.with_name("downloaded")
    await bucket.download_file(kept_as or keys.checkpoint(position), path)
    body = path.read_bytes()
    checksum = crc32c.crc32c(body[:-_CHECKSUM_SIZE]).to_bytes(_CHECKSUM_SIZE, "big")
    if len(body) <= _CHECKSUM_SIZE or body[-_CHECKSUM_SIZE:] != checksum:
        raise DataError(f"checkpoint {position} is damaged")
    if body not in _NAMED:
        if len(_NAMED) > _MOST_NAMED:
            _NAMED.clear()
        state.path.write_bytes(body[:-_CHECKSUM_SIZE])
        with contextlib.closing(FolderState(state.path)) as loaded:
            _NAMED[body] = tuple(loaded.objects())
    state.named = _NAMED[body]


_decoded = functools.lru_cache(2000)(decode_segment)


def _trusted(path: Path, position: int, key: str, *, entries: bool = True) -> int:
    """Stand for `checkpoint_check.check_copy`: what is damaged here has another checksum, which is checked."""
    return STATE_VERSION


@functools.cache
def _empty_state() -> bytes:
    """Return the file of an empty state, which takes long to make."""
    with fast_directory() as directory:
        path = directory / "empty.sqlite"
        open_database(path, SCHEMA, STATE_VERSION).close()
        return path.read_bytes()


def _open(path: Path, schema: str, version: int) -> Database:
    """Do what `database.open_database` does with a state that one connection uses at a time."""
    if not path.exists():
        path.write_bytes(_empty_state())
    connection = sqlite3.connect(path, isolation_level=None, factory=Database)
    sqlite3.Connection.executescript(connection, _PRAGMAS)
    return connection


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
        mock.patch.object(live, "FolderState", _Loaded),
        mock.patch.object(live, "read_checkpoint", _read_checkpoint),
        mock.patch.object(segment_reader, "decode_segment", _decoded),
        mock.patch.object(checkpoint, "check_copy", _trusted),
        mock.patch.object(state_file, "open_database", _open),
        mock.patch.object(state_file, "write_copy", _copy),
        mock.patch.object(tempfile, "TemporaryDirectory", directories.take),
    ):
        yield
