"""Which objects the store has, of those that would come back."""

from __future__ import annotations

from collections.abc import Iterable

from untrusted_s3.index.entry import Entry, NamedObject
from untrusted_s3.objects.missing import find_missing, still_missing
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

# A page of a listing has 1000 keys, and needs about as long as a request for one.
_LIST_FROM = 1000


class PresentObjects:
    """The objects of a folder, as far as they were asked for."""

    def __init__(self, bucket: Bucket, keys: FolderKeys) -> None:
        self._bucket = bucket
        self._keys = keys
        self._asked: set[NamedObject] = set()
        self._missing: set[NamedObject] = set()

    def has(self, entry: Entry) -> bool | None:
        """Return whether the object of an entry, apart from its dissents, is there with its size.

        None if `look` must be called first.
        """
        named = NamedObject.of(entry)
        if named is None:
            return True
        return named not in self._missing if named in self._asked else None

    def knows(self, entry: Entry) -> bool:
        """Return whether `look` was called for an entry, or need not be."""
        return all(self.has(version) is not None for version in entry.versions)

    async def look(self, entries: Iterable[Entry]) -> None:
        """Ask for the objects of some entries and of their dissents. Raises StoreError."""
        versions = [version for entry in entries for version in entry.versions]
        objects = {named for version in versions if (named := NamedObject.of(version)) is not None}
        find = still_missing if len(objects) < _LIST_FROM else find_missing
        self._missing |= await find(self._bucket, self._keys, objects)
        self._asked |= objects
