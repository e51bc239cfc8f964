"""Which objects the store has, of those that would come back."""

from __future__ import annotations

from collections.abc import Iterable

from untrusted_s3.index.entry import Entry, NamedObject
from untrusted_s3.objects.listing import ObjectSizes
from untrusted_s3.objects.missing import still_missing
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

# After so many single objects, all are listed: a page of a listing has 1000 keys, and needs about as long as a request
# for one.
_LIST_AFTER = 1000


class PresentObjects:
    """The objects of a folder."""

    def __init__(self, bucket: Bucket, keys: FolderKeys) -> None:
        self._bucket = bucket
        self._keys = keys
        self._looked_at = 0
        self._sizes: ObjectSizes | None = None
        self._missing: set[NamedObject] = set()

    async def look(self, entries: Iterable[Entry]) -> None:
        """Ask for the objects of some entries and of their dissents, instead of those before. Raises StoreError."""
        versions = (version for entry in entries for version in entry.versions)
        objects = {named for version in versions if (named := NamedObject.of(version)) is not None}
        self._looked_at += len(objects)
        if self._looked_at >= _LIST_AFTER and self._sizes is None:
            sizes = ObjectSizes(self._keys)
            try:
                await sizes.load(self._bucket)
            except BaseException:
                sizes.close()
                raise
            self._sizes = sizes
        self._missing = await still_missing(self._bucket, self._keys, filter(self._is_not_listed, objects))

    def _is_not_listed(self, named: NamedObject) -> bool:
        key = self._keys.object_of(named.name_hash, named.object_name)
        return self._sizes is None or self._sizes.get(key) != named.size

    def has(self, entry: Entry) -> bool:
        """Return whether the object of one of these entries, or of one of their dissents, is there with its size."""
        return NamedObject.of(entry) not in self._missing
