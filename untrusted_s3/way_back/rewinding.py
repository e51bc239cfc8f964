"""Taking a whole folder back to what it was at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from untrusted_s3.index.entry import Entry
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
            if earlier is not None and self._present.has(earlier) is None
        )
        while some := list(itertools.islice(unasked, _AT_ONCE)):
            await self._present.look(some)

    def changes(self, state: FolderState) -> Iterator[Change]:
        self.lost = 0
        for entry, earlier in self._differences(state):
            gone = earlier is not None and not self._is_usable(state, earlier)
            if entry is not None:
                yield Change(entry.file_info.name, entry, None if gone else earlier, gone)
            elif gone:
                self.lost += 1
            else:
                assert earlier is not None
                yield Change(earlier.file_info.name, None, earlier)

    def _is_usable(self, state: FolderState, earlier: Entry) -> bool:
        there = self._present.has(earlier)
        if there is None:
            raise PlanOutdated
        return there and not state.is_condemned(earlier)

    def _differences(self, state: FolderState) -> Iterator[tuple[Entry | None, Entry | None]]:
        """Yield what each name has in `state` and what it has in `then`, where these differ."""
        for sequence, key, raw in state.named_file_infos():
            if self._then.file_info_of(key) != raw:
                earlier = self._then.sequence_of(key)
                yield state.entry_at(sequence), self._then.entry_at(earlier) if earlier is not None else None
        for sequence, key, _ in self._then.named_file_infos():
            if state.sequence_of(key) is None:
                yield None, self._then.entry_at(sequence)
