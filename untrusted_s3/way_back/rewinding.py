"""Taking a whole folder back to what it was at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from untrusted_s3.index.entry import Entry
from untrusted_s3.index.row import Row
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.way_back.change import Change
from untrusted_s3.way_back.plan import PlanOutdated
from untrusted_s3.way_back.present import PresentObjects

_AT_ONCE = 10_000


class Rewinding:
    """The plan to give a folder the state `then`, which is that of an earlier time (`plan.Plan`).

    Attributes:
        lost: How many names that the folder does not have cannot come back, at the last look: their data are gone.
    """

    def __init__(self, bucket: Bucket, keys: FolderKeys, then: FolderState) -> None:
        self.lost = 0
        self._then = then
        self._present = PresentObjects(bucket, keys)

    async def prepare(self, state: FolderState) -> None:
        unasked = (
            earlier
            for _, earlier in self._differences(state)
            if earlier is not None and not self._present.knows(earlier)
        )
        while some := list(itertools.islice(unasked, _AT_ONCE)):
            await self._present.look(some)

    def changes(self, state: FolderState) -> Iterator[Change]:
        self.lost = 0
        for entry, earlier in self._differences(state):
            left = self._usable(state, earlier) if earlier is not None else None
            gone = earlier is not None and left is None
            if left is not None and left is not earlier and _has_versions(state, left):
                continue
            if entry is not None:
                yield Change(entry.file_info.name, entry, left, gone)
            elif left is None:
                self.lost += 1
            else:
                yield Change(left.file_info.name, None, left)

    def _usable(self, state: FolderState, earlier: Entry) -> Entry | None:
        """Return an entry without the dissents whose objects cannot be used, or None if its own one cannot."""
        if not self._present.knows(earlier):
            raise PlanOutdated
        unusable = [one for one in earlier.versions if not self._present.has(one) or state.is_condemned(one)]
        if not unusable:
            return earlier
        left = Row.of(0, earlier).without(lambda version: version in unusable)
        return left if left is not None and left.file_info == earlier.file_info else None

    def _differences(self, state: FolderState) -> Iterator[tuple[Entry | None, Entry | None]]:
        """Yield what each name has in `state` and what it has in `then`, where these differ."""
        for sequence, key, raw in state.named_file_infos():
            earlier = self._then.row(key) if self._is_different(state, sequence, key, raw) else None
            if earlier is not None or self._then.sequence_of(key) is None:
                yield state.entry_at(sequence), earlier.whole_entry if earlier is not None else None
        for sequence, key, _ in self._then.named_file_infos():
            if state.sequence_of(key) is None:
                yield None, self._then.row_at(sequence).whole_entry

    def _is_different(self, state: FolderState, sequence: int, key: bytes, raw: bytes) -> bool:
        if self._then.file_info_of(key) != raw:
            return True
        earlier = self._then.sequence_of(key)
        assert earlier is not None
        if not state.is_disputed(sequence) and not self._then.is_disputed(earlier):
            return False
        return state.row_at(sequence).entries.keys() != self._then.row_at(earlier).entries.keys()


def _has_versions(state: FolderState, entry: Entry) -> bool:
    """Return whether the folder has exactly the version of an entry and its dissents."""
    found = state.versions(entry.file_info.name)
    return [one.file_info.raw for one in found] == [one.file_info.raw for one in entry.versions]
