"""Taking back bad entries: each name gets the newest earlier version that is not bad, or is removed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Protocol

from untrusted_s3.index.entry import Entry
from untrusted_s3.index.row import Row
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.naming import has_untrusted_blocks
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys, name_key
from untrusted_s3.way_back.change import Change
from untrusted_s3.way_back.plan import PlanOutdated
from untrusted_s3.way_back.present import PresentObjects
from untrusted_s3.way_back.replay import Replay
from untrusted_s3.way_back.suspects import Suspects

_SETTINGS = LogSettings()
_AT_ONCE = 10_000


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
        spared: How many names were left out at the last look, because a renewal has written what they have.
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
        self._opener = opener
        self._replay = Replay(bucket, keys, replayed, self._is_bad, settings)
        self._begun = False
        self._present = PresentObjects(bucket, keys)

    def _is_bad(self, entry: Entry) -> bool:
        return self._suspects.is_bad(entry) or (self._opener is not None and not self._opener.decrypts(entry))

    async def prepare(self, state: FolderState) -> None:
        if not self._begun:
            suspects = {
                name_key(state.entry_at(sequence).file_info.name) for sequence in self._suspects.bad_ones(state)
            }
            if not suspects:
                return
            await self._replay.begin(suspects, state.position)
            self._begun = True
        await self._replay.follow(state.position)
        unasked = (
            earlier
            for change in self._changes(state, check_objects=False)
            if (earlier := change.after) is not None and not self._present.knows(earlier)
        )
        while some := list(itertools.islice(unasked, _AT_ONCE)):
            await self._present.look(some)

    def changes(self, state: FolderState) -> Iterator[Change]:
        return self._changes(state, check_objects=True)

    def _changes(self, state: FolderState, *, check_objects: bool) -> Iterator[Change]:
        self.spared = 0
        for sequence in self._suspects.bad_ones(state):
            if not self._begun or self._replay.position != state.position:
                raise PlanOutdated
            row = state.row_at(sequence)
            if self._is_spared(sequence, row):
                self.spared += 1
                continue
            if not self._is_bad(row.entry):  # but a dissent is
                yield self._change(row, row.without(self._is_bad), gone=False)
                continue
            earlier = self._replay.entry(name_key(row.entry.file_info.name))
            left = earlier
            if earlier is not None and check_objects:
                if not self._present.knows(earlier):
                    raise PlanOutdated
                left = Row.of(sequence, earlier).without(lambda version: not self._present.has(version))
            yield self._change(row, left, gone=left is None and earlier is not None)
        for name in self._suspects.missing:
            if state.is_missing(name_key(name)):
                yield Change(name, None, None)

    def _is_spared(self, sequence: int, row: Row) -> bool:
        if not self._suspects.spares_renewed or not self._replay.is_renewed(sequence):
            return False
        return self._opener is None or all(map(self._opener.decrypts, row.entries.values()))

    def _change(self, row: Row, earlier: Entry | None, *, gone: bool) -> Change:
        name = row.entry.file_info.name
        bad = [entry for entry in row.entries.values() if self._is_bad(entry)]
        distrusted = (self._distrusted(name, entry, earlier) for entry in bad)
        return Change(name, row.entry, earlier, gone, tuple(dict.fromkeys(filter(None, distrusted))))

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
