"""Taking back bad entries: each name gets the newest earlier version that is not bad, or is removed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Protocol

from untrusted_s3.index.entry import Entry
from untrusted_s3.index.row import Row, shortened
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.naming import has_untrusted_blocks
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys, name_key
from untrusted_s3.way_back.change import Change
from untrusted_s3.way_back.key_set import KeySet
from untrusted_s3.way_back.plan import Batch, Planned
from untrusted_s3.way_back.present import PresentObjects
from untrusted_s3.way_back.replay import Replay
from untrusted_s3.way_back.suspects import Suspects

_SETTINGS = LogSettings()


class Opener(Protocol):
    """What the folder's password tells of entries."""

    def decrypts(self, entry: Entry) -> bool:
        """Return whether an entry decrypts, and its outside fits its inside."""
        ...

    def path(self, encrypted_name: str) -> str | None:
        """Return the plain name, or None if it does not decrypt or would lead out of the folder."""
        ...


class Retraction:
    """The plan to take back the bad entries of a folder (`plan.Plan`).

    With an `opener`, only versions that decrypt come back.

    Attributes:
        spared: How many names were left out so far, because a renewal has written what they have.
    """

    def __init__(
        self,
        bucket: Bucket,
        keys: FolderKeys,
        suspects: Suspects,
        replayed: FolderState,
        opener: Opener | None = None,
        settings: LogSettings = _SETTINGS,
    ) -> None:
        """Make a plan. `replayed` is an empty state, for the folder as it would be without the bad entries."""
        self.spared = 0
        self._suspects = suspects
        self._settings = settings
        self._opener = opener
        self._replay = Replay(bucket, keys, replayed, self._is_bad, settings)
        self._begun = False
        self._present = PresentObjects(bucket, keys)
        self._batch = Batch(self._settings)
        self._done = 0  # all entries up to this sequence number were looked at
        self._known = 0  # those up to there are in the replay
        self._missing_done = 0

    @property
    def replayed(self) -> int:
        return self._replay.position

    def _is_bad(self, entry: Entry) -> bool:
        return self._suspects.is_bad(entry) or (self._opener is not None and not self._opener.decrypts(entry))

    async def prepare(self, state: FolderState) -> bool:
        if not self._begun:
            bad = self._suspects.bad_ones(state)
            suspects = KeySet(name_key(state.entry_at(sequence).file_info.name) for sequence in bad)
            if suspects:
                await self._replay.begin(suspects, state.position)
                self._begun, self._known = True, state.sequence
        batch = self._next_batch(state) if self._begun else Batch(self._settings)
        if self._begun and not batch.planned and self._done < state.sequence:
            await self._replay.follow(state.position)
            self._known = state.sequence
            batch = self._next_batch(state)
        await self._present.look(batch.returning())
        self._batch = batch.without_gone(self._left)
        if not self._batch.planned:
            self._plan_missing(state)
        return bool(self._batch.planned)

    def changes(self, state: FolderState) -> Iterator[Change]:
        return self._batch.due(state)

    def _next_batch(self, state: FolderState) -> Batch:
        batch = Batch(self._settings)
        with contextlib.closing(self._suspects.bad_ones(state, self._done)) as bad:
            for sequence in bad:
                if sequence > self._known:
                    return batch
                self._done = sequence
                row = state.row_at(sequence)
                if self._is_spared(sequence, row):
                    self.spared += 1
                    continue
                if self._is_bad(row.entry):
                    earlier = self._replay.entry(name_key(row.entry.file_info.name))
                else:  # but a dissent is
                    left = row.without(self._is_bad)
                    assert left is not None
                    earlier = shortened(left)
                batch.add(Planned(self._change(row, earlier), sequence))
                if batch.full:
                    return batch
        self._done = state.sequence
        return batch

    def _left(self, change: Change) -> Entry | None:
        """Return what comes back, without the versions whose objects are gone."""
        after = change.after
        if after is None or replace(after, claims=None) == change.before or all(map(self._present.has, after.versions)):
            return after  # if only dissents are bad, the others are left alone
        return Row.of(0, after).without(lambda version: not self._present.has(version))

    def _plan_missing(self, state: FolderState) -> None:
        """Plan that names leave the list of missing files."""
        while self._missing_done < len(self._suspects.missing) and not self._batch.full:
            name = self._suspects.missing[self._missing_done]
            self._missing_done += 1
            if state.is_missing(name_key(name)):
                self._batch.add(Planned(Change(name, None, None), None))

    def _is_spared(self, sequence: int, row: Row) -> bool:
        if not self._suspects.spares_renewed or not self._replay.is_renewed(sequence):
            return False
        return self._opener is None or all(map(self._opener.decrypts, row.entries.values()))

    def _change(self, row: Row, earlier: Entry | None) -> Change:
        name = row.entry.file_info.name
        bad = [entry for entry in row.entries.values() if self._is_bad(entry)]
        distrusted = (self._distrusted(name, entry, earlier) for entry in bad)
        return Change(name, row.entry, earlier, distrusted=tuple(dict.fromkeys(filter(None, distrusted))))

    def _distrusted(self, name: str, entry: Entry, earlier: Entry | None) -> str:
        """Return the object of a bad entry, unless a good one has named it as well.

        Its name follows from what the device has announced, which may be what an honest device announces later. Its
        content may be anything, and a gateway cannot tell. Objects with blocks of an untrusted device have names of
        their own, which are never used for an honest device (objects/naming.py).
        """
        if entry.stored is None or has_untrusted_blocks(entry.stored.object_name):
            return ""
        object_name = entry.stored.object_name
        if self._replay.is_good_object(name_key(name), object_name):
            return ""
        if earlier is None and self._opener is not None and self._opener.path(name) is None:
            return ""  # made up: no honest device ever announces this name
        return object_name
