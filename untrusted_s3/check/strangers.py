"""Keys in a store that are not of this program."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final

from untrusted_s3.problem import Finding, Kind
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

_MOST_NAMED: Final = 10_000
_REASON: Final = "it is not a key of this program"


class Strangers:
    """Strange keys of one place. There may be millions, so only the first ones are kept, and all are counted.

    Attributes:
        count: How many there are.
    """

    def __init__(self, place: str, most: int = _MOST_NAMED) -> None:
        """`place` is the prefix of all of them, `most` how many are kept."""
        self.count = 0
        self._place = place
        self._most = most
        self._named: list[str] = []

    def add(self, key: str) -> None:
        """Add a key, or a prefix of keys."""
        self.count += 1
        if len(self._named) < self._most:
            self._named.append(key)

    def findings(self) -> Iterator[Finding]:
        """Yield a finding for each, and one for those that are not kept."""
        for key in self._named:
            yield Finding(key, _REASON, Kind.UNKNOWN)
        more = self.count - len(self._named)
        if more:
            yield Finding(self._place, f"{more:,} more keys below it are not of this program", Kind.UNKNOWN)


async def strangers_of_store(bucket: Bucket) -> Strangers:
    """Look for strange keys beside those of a store. Raises StoreError."""
    return await _strangers(bucket, "", (*layout.DIRECTORIES, *layout.RECORDS))


async def strangers_of_folder(bucket: Bucket, keys: FolderKeys) -> Strangers:
    """Look for strange keys beside those of a folder. Raises StoreError."""
    return await _strangers(bucket, keys.base, (*keys.directories, *keys.records))


async def _strangers(bucket: Bucket, prefix: str, known: Collection[str]) -> Strangers:
    found = Strangers(prefix)
    async for one in bucket.list_level(prefix):
        if one not in known:
            found.add(one)
    return found
