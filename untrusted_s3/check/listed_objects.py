"""All objects of a folder that the store lists, beside what the folder's state names.

They are in a temporary file of SQLite, of which a bounded part is in memory. The two are compared there, in threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from untrusted_s3.check.strangers import Strangers
from untrusted_s3.index.entry import NamedObject, StoredObject, read_checksums
from untrusted_s3.read_ahead import read_ahead
from untrusted_s3.store.bucket import Bucket, ObjectSummary
from untrusted_s3.store.layout import FolderKeys

_CACHE_KIB: Final = 64 * 1024
_ROWS_AT_ONCE: Final = 2000
_CONCURRENT_LISTINGS: Final = 16
# This program makes 256.
_MAX_DIRECTORIES: Final = 10_000
_SCHEMA: Final = """
CREATE TABLE listed (
    name_hash BLOB NOT NULL, object_name TEXT NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (name_hash, object_name)
) WITHOUT ROWID
"""
_NAMED: Final = """
SELECT name_hash, content_hash, object_size, part_size, part_crc32c FROM state.files WHERE content_hash IS NOT NULL
UNION ALL SELECT name_hash, dissents.content_hash, dissents.object_size, dissents.part_size, dissents.part_crc32c
FROM state.dissents JOIN state.files USING (sequence) WHERE dissents.content_hash IS NOT NULL
"""
_COMPARED: Final = (
    f"SELECT named.name_hash, content_hash, object_size, part_size, part_crc32c, listed.size FROM ({_NAMED}) AS named"  # noqa: S608
    " LEFT JOIN listed ON listed.name_hash = named.name_hash AND object_name = content_hash"
)
_WRONG: Final = f"{_COMPARED} WHERE listed.size IS NOT object_size"
_RIGHT: Final = f"{_COMPARED} WHERE listed.size = object_size"
_COUNT_NAMED: Final = f"SELECT count(*), coalesce(sum(object_size), 0) FROM ({_NAMED})"  # noqa: S608
_COUNT_UNUSED: Final = """
SELECT count(*), coalesce(sum(size), 0) FROM listed WHERE NOT EXISTS (
    SELECT 1 FROM state.files WHERE files.name_hash = listed.name_hash AND content_hash = object_name
) AND NOT EXISTS (
    SELECT 1 FROM state.files JOIN state.dissents USING (sequence)
    WHERE files.name_hash = listed.name_hash AND dissents.content_hash = object_name
)
"""


class ListedObjects:
    """The objects of one folder, and the state that names them, which must not change meanwhile.

    Attributes:
        listed: How many objects there are.
        strangers: The keys among them that are no object's.
    """

    def __init__(self, keys: FolderKeys, state: Path) -> None:
        """`state` is the file of the folder's state, which may be open."""
        self.listed = 0
        self.strangers = Strangers(keys.objects)
        self._keys = keys
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False, uri=True)
        try:
            self._connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            self._connection.execute(_SCHEMA)
            self._connection.execute("ATTACH ? AS state", (f"{state.absolute().as_uri()}?mode=ro",))
        except BaseException:
            self._connection.close()
            raise

    def close(self) -> None:
        """Delete the table."""
        self._connection.close()

    async def load(self, bucket: Bucket, *, is_large: bool) -> None:
        """List the objects. Raises StoreError.

        With `is_large`, many listings are under way at once. Otherwise each request waits for the one before it.
        """
        prefixes = [self._keys.objects]
        if is_large:
            prefixes = []
            async for one in bucket.list_level(self._keys.objects):
                if one.endswith("/") and len(prefixes) < _MAX_DIRECTORIES:
                    prefixes.append(one)
                else:
                    self.strangers.add(one)
            prefixes.sort()
        self._connection.execute("BEGIN")
        work = (self._list(bucket.list(prefix)) for prefix in prefixes)
        async with contextlib.aclosing(read_ahead(work, _CONCURRENT_LISTINGS)) as listings:
            async for _ in listings:
                pass
        self._connection.execute("COMMIT")

    async def _list(self, items: AsyncIterator[ObjectSummary]) -> None:
        rows: list[tuple[bytes, str, int]] = []
        async for item in items:
            parsed = self._keys.parse_object(item.key)
            if parsed is None:
                self.strangers.add(item.key)
                continue
            rows.append((*parsed, item.size))
            if len(rows) >= _ROWS_AT_ONCE:
                self._add(rows)
                rows.clear()
        self._add(rows)

    def _add(self, rows: list[tuple[bytes, str, int]]) -> None:
        self.listed += len(rows)
        self._connection.executemany("INSERT OR REPLACE INTO listed VALUES (?, ?, ?)", rows)

    async def named(self) -> tuple[int, int]:
        """Return how many objects the state names, and their bytes."""
        return await self._count(_COUNT_NAMED)

    async def unused(self) -> tuple[int, int]:
        """Return how many objects there are that the state does not name, and their bytes."""
        return await self._count(_COUNT_UNUSED)

    async def _count(self, query: str) -> tuple[int, int]:
        found: tuple[int, int] = await asyncio.to_thread(lambda: self._connection.execute(query).fetchone())
        return found

    async def wrong(self) -> AsyncIterator[list[NamedObject]]:
        """Yield the objects that the state names and that are not listed with their size, some at once."""
        async for rows in self._rows(_WRONG):
            yield [NamedObject(*row[:3]) for row in rows]

    async def right(self) -> AsyncIterator[list[tuple[NamedObject, StoredObject]]]:
        """Yield the others, with what the state says of their parts."""
        async for rows in self._rows(_RIGHT):
            yield list(self._stored(rows))

    @staticmethod
    def _stored(rows: Iterable[Any]) -> Iterator[tuple[NamedObject, StoredObject]]:
        for key, name, size, part_size, checksums, _ in rows:
            yield NamedObject(key, name, size), StoredObject(name, size, part_size, read_checksums(checksums))

    async def _rows(self, query: str) -> AsyncIterator[list[Any]]:
        cursor = await asyncio.to_thread(self._connection.execute, query)
        try:
            while rows := await asyncio.to_thread(cursor.fetchmany, _ROWS_AT_ONCE):
                yield rows
        finally:
            cursor.close()
