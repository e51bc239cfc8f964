"""Which objects the store has, of those that would come back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from untrusted_s3.index.entry import Entry
from untrusted_s3.objects.listing import ObjectSizes
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

_CONCURRENT_REQUESTS = 32
# A page of a listing has 1000 keys, and needs about as long as a request for one.
_LIST_FROM = 1000


class PresentObjects:
    """The objects of a folder, as far as they were asked for."""

    def __init__(self, bucket: Bucket, keys: FolderKeys) -> None:
        self._bucket = bucket
        self._keys = keys
        self._sizes: dict[str, int | None] = {}

    def has(self, entry: Entry) -> bool | None:
        """Return whether an entry's object is there with its size; None if `look` must be called first."""
        if entry.stored is None:
            return True
        key = self._keys.object(entry.file_info.name, entry.stored.object_name)
        return self._sizes[key] == entry.stored.size if key in self._sizes else None

    async def look(self, entries: Iterable[Entry]) -> None:
        """Ask for the objects of some entries. Raises StoreError."""
        keys = {
            self._keys.object(entry.file_info.name, entry.stored.object_name)
            for entry in entries
            if entry.stored is not None
        }
        if len(keys) < _LIST_FROM:
            unasked = list(keys)
            for start in range(0, len(unasked), _CONCURRENT_REQUESTS):
                some = unasked[start : start + _CONCURRENT_REQUESTS]
                self._sizes |= zip(some, await asyncio.gather(*map(self._bucket.size, some)), strict=True)
            return
        listed = ObjectSizes(self._keys)
        try:
            await listed.load(self._bucket)
            self._sizes |= {key: listed.get(key) for key in keys}
        finally:
            listed.close()
