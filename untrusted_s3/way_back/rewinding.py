"""Taking a whole folder back to what it was at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from untrusted_s3.index.entry import Entry
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
            batch = batch.without_gone(lambda entry: self._is_usable(state, entry))
            kept = [one for one in batch.planned if one.change.before is not None or one.change.after is not None]
            self.lost += len(batch.planned) - len(kept)
            batch.planned = kept
        self._batch = batch
        return True

    def changes(self, state: FolderState) -> Iterator[Change]:
        return self._batch.due(state)

    def _is_usable(self, state: FolderState, earlier: Entry) -> bool:
        return self._present.has(earlier) and not state.is_condemned(earlier)

    def _differing(self, state: FolderState) -> Batch:
        """Return what the folder has otherwise than `then`, or had not then."""
        batch = Batch(self._settings)
        with contextlib.closing(state.named_file_infos(self._done)) as rows:
            for sequence, key, raw in rows:
                self._done = sequence
                if self._then.file_info_of(key) == raw:
                    continue
                entry, earlier = state.entry_at(sequence), self._then.sequence_of(key)
                after = self._then.entry_at(earlier) if earlier is not None else None
                batch.add(Planned(Change(entry.file_info.name, entry, after), sequence))
                if batch.full:
                    break
        return batch

    def _lacking(self, state: FolderState) -> Batch:
        """Return what the folder had then and has not now."""
        batch = Batch(self._settings)
        with contextlib.closing(self._then.named_file_infos(self._then_done)) as rows:
            for sequence, key, _ in rows:
                self._then_done = sequence
                if state.sequence_of(key) is None:
                    after = self._then.entry_at(sequence)
                    batch.add(Planned(Change(after.file_info.name, None, after), None))
                    if batch.full:
                        break
        return batch
