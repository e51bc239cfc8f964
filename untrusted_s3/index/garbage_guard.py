"""Keeps objects that are or may be deleted out of a folder's log (store/garbage.py, rule 1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence

from untrusted_s3.errors import ObjectIsGarbage
from untrusted_s3.index.entry import Entry, NamedObject
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.garbage import Candidates, GarbageRules
from untrusted_s3.store.layout import FolderKeys, name_key

_LOOKS_AT_ONCE = 32


class GarbageGuard:
    """Looks at the entries that are to be written to a folder's log.

    An object that the folder names needs no look.

    Attributes:
        candidates: The objects of the folder that are to be deleted.
        clock: The clock by which writers note when they have seen an object.
    """

    def __init__(
        self, bucket: Bucket, keys: FolderKeys, state: FolderState, clock: Callable[[], float], rules: GarbageRules
    ) -> None:
        """`state` is at the end of the log whenever entries are looked at. `clock` is the one that signs requests."""
        self.candidates = Candidates(bucket, keys, clock, rules)
        self._bucket = bucket
        self._keys = keys
        self._state = state
        self.clock = clock
        self._rules = rules

    def keeps_out(self, entry: Entry) -> bool:
        """Return whether an object of an entry or a dissent is a known candidate, or was seen too long ago.

        Where nobody says when it was seen, it counts as there.
        """
        refused = [version for version in entry.versions if self._is_refused(version)]
        return bool(refused) and any(True for _ in self._new_objects(refused))

    async def look(self, entries: Iterable[Entry]) -> None:
        """Look at the candidates if that is due and any of the entries names an object that the folder does not.

        Raises StoreError.
        """
        if not self.candidates.are_known and any(True for entry in entries for _ in self._new_objects(entry.versions)):
            await self.candidates.look()

    async def admit(self, entries: Sequence[Entry], *, check_objects: bool = False) -> None:
        """Look at the entries of a segment that is to be signed now.

        With `check_objects`, look for their objects too. Raises ObjectIsGarbage or another StoreError.
        """
        await self.look(entries)
        for entry in entries:
            if self.keeps_out(entry):
                raise ObjectIsGarbage(f"an object of {_name(entry)} is, or may be, deleted: it has to be stored again")
        if not check_objects:
            return
        new = [(entry, named) for entry in entries for named in self._new_objects(entry.versions)]
        for start in range(0, len(new), _LOOKS_AT_ONCE):
            await asyncio.gather(*(self._find(*one) for one in new[start : start + _LOOKS_AT_ONCE]))

    async def _find(self, entry: Entry, named: NamedObject) -> None:
        key = self._keys.object_of(named.name_hash, named.object_name)
        if await self._bucket.size(key) is None:
            raise ObjectIsGarbage(f"{key}, an object of {_name(entry)}, is not there any more")

    def _is_refused(self, version: Entry) -> bool:
        """Return whether the object of a version must not be named if the folder does not name it."""
        stored = version.stored
        if stored is None:
            return False
        if stored.seen is not None and not 0 <= self.clock() - stored.seen <= self._rules.look:
            return True
        return bool(self.candidates) and self.candidates.has(name_key(version.file_info.name), stored.object_name)

    def _new_objects(self, versions: Iterable[Entry]) -> Iterator[NamedObject]:
        """Yield the objects of versions of one name that the folder does not name."""
        there: set[str] | None = None
        for named in filter(None, map(NamedObject.of, versions)):
            if there is None:
                there = {one.object_name for one in self._state.objects_of(named.name_hash)}
            if named.object_name not in there:
                yield named


def _name(entry: Entry) -> str:
    return entry.file_info.name[:200]
