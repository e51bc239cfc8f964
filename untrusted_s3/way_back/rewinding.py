"""Taking a whole folder back to what it was at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from untrusted_s3.index.entry import Entry
from untrusted_s3.index.row import Row
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.way_back.change import Change
from untrusted_s3.way_back.plan import Batch, Planned
from untrusted_s3.way_back.present import PresentObjects

_SETTINGS = LogSettings()


class Rewinding:
    """The plan to give a folder the state `then`, which is that of an earlier time (`plan.Plan`).

    Attributes:
        lost: How many names that the folder does not have cannot come back: their data are gone.
    """

    replayed = 0

    def __init__(self, bucket: Bucket, keys: FolderKeys, then: FolderState, settings: LogSettings = _SETTINGS) -> None:
        self.lost = 0
        self._settings = settings
        self._then = then
        self._present = PresentObjects(bucket, keys)
        self._batch = Batch(self._settings)
        # The entries of the state and of `then` up to these sequence numbers were looked at.
        self._done = self._then_done = 0

    async def prepare(self, state: FolderState) -> bool:
        batch = Batch(self._settings)
        while not batch.planned:
            # First what is lacking: later also what is removed because its data are gone is lacking.
            batch = self._lacking(state)
            batch = batch if batch.planned else self._differing(state)
            if not batch.planned:
                return False
            await self._present.look(batch.returning())
            batch = batch.without_gone(lambda change: self._usable(state, change))
            kept = [one for one in batch.planned if _changes_something(state, one.change)]
            self.lost += sum(1 for one in batch.planned if one.change.before is None and one.change.after is None)
            batch.planned = kept
        self._batch = batch
        return True

    def changes(self, state: FolderState) -> Iterator[Change]:
        return self._batch.due(state)

    def _usable(self, state: FolderState, change: Change) -> Entry | None:
        """Return what comes back, without the dissents whose objects cannot be used; None if its own one cannot."""
        earlier = change.after
        if earlier is None:
            return None
        unusable = [one for one in earlier.versions if not self._present.has(one) or state.is_condemned(one)]
        if not unusable:
            return earlier
        left = Row.of(0, earlier).without(lambda version: version in unusable)
        return left if left is not None and left.file_info == earlier.file_info else None

    def _differing(self, state: FolderState) -> Batch:
        """Return what the folder has otherwise than `then`, or had not then."""
        batch = Batch(self._settings)
        with contextlib.closing(state.named_file_infos(self._done)) as rows:
            for sequence, key, raw in rows:
                self._done = sequence
                if not self._is_different(state, sequence, key, raw):
                    continue
                entry, earlier = state.entry_at(sequence), self._then.row(key)
                after = earlier.whole_entry if earlier is not None else None
                batch.add(Planned(Change(entry.file_info.name, entry, after), sequence))
                if batch.full:
                    break
        return batch

    def _is_different(self, state: FolderState, sequence: int, key: bytes, raw: bytes) -> bool:
        if self._then.file_info_of(key) != raw:
            return True
        earlier = self._then.sequence_of(key)
        assert earlier is not None
        if not state.is_disputed(sequence) and not self._then.is_disputed(earlier):
            return False
        return state.row_at(sequence).entries.keys() != self._then.row_at(earlier).entries.keys()

    def _lacking(self, state: FolderState) -> Batch:
        """Return what the folder had then and has not now."""
        batch = Batch(self._settings)
        with contextlib.closing(self._then.named_file_infos(self._then_done)) as rows:
            for sequence, key, _ in rows:
                self._then_done = sequence
                if state.sequence_of(key) is None:
                    after = self._then.row_at(sequence).whole_entry
                    batch.add(Planned(Change(after.file_info.name, None, after), None))
                    if batch.full:
                        break
        return batch


def _changes_something(state: FolderState, change: Change) -> bool:
    """Return whether a change is more than to keep what the folder has, because dissents cannot come back."""
    if change.after is None or change.before is None or change.after.file_info != change.before.file_info:
        return change.after is not None or change.before is not None
    found = state.versions(change.name)
    return [one.file_info.raw for one in found] != [one.file_info.raw for one in change.after.versions]
