"""What a folder would be without some entries of its log: the log played again, as far back as it goes."""

from __future__ import annotations

import contextlib
import sqlite3
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from dataclasses import replace

import structlog

from untrusted_s3.errors import DataError, NoSuchKey
from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.entry import Confirmation, Entry
from untrusted_s3.index.history import segments_after
from untrusted_s3.index.row import Row, shortened
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys, name_key
from untrusted_s3.store.listing import list_checkpoints
from untrusted_s3.way_back.key_set import KeySet

_logger = structlog.get_logger()
_SETTINGS = LogSettings()
_GOOD_OBJECTS = """
PRAGMA journal_mode = OFF;
PRAGMA cache_size = -16384;
CREATE TABLE good (name_hash BLOB NOT NULL, object_name TEXT NOT NULL, PRIMARY KEY (name_hash, object_name))
WITHOUT ROWID;
"""


class Replay:
    """A folder as its log would leave it if the bad entries had never been written.

    `begin` comes first.
    """

    def __init__(
        self,
        bucket: Bucket,
        keys: FolderKeys,
        state: FolderState,
        is_bad: Callable[[Entry], bool],
        settings: LogSettings = _SETTINGS,
    ) -> None:
        """Make a replay into `state`, which is empty. `is_bad` must always say the same of an entry."""
        self._bucket = bucket
        self._keys = keys
        self._state = state
        self._is_bad = is_bad
        self._settings = settings
        self._suspects: KeySet | None = None
        # First and last sequence numbers of the entries that renewals have written, in order
        self._first_renewed: list[int] = []
        self._last_renewed: list[int] = []
        self._left_out = array("q")  # sequence numbers of entries of which nothing was played, in order
        # In a temporary file: there is a row for each suspect.
        self._good_objects = sqlite3.connect("", isolation_level=None)
        self._good_objects.executescript(_GOOD_OBJECTS)

    @property
    def position(self) -> int:
        """The position of the last segment that was played."""
        return self._state.position

    async def begin(self, suspects: KeySet, until: int) -> None:
        """Play the log up to the position `until`.

        `suspects` are the hashes of the names that have a bad entry now. Only their entries are looked at.

        Raises DataError where the log is damaged, and StoreError.
        """
        self._suspects = suspects
        if await self._bucket.size(self._keys.segment(1)) is None:
            await self._load_oldest()
        await self.follow(until)
        self._suspects = None

    async def _load_oldest(self) -> None:
        for position in sorted(await list_checkpoints(self._bucket, self._keys)):
            try:
                await read_checkpoint(self._bucket, self._keys, position, self._state)
                return
            except (NoSuchKey, DataError) as error:
                _logger.warning("checkpoint unreadable", position=position, error=str(error))

    async def follow(self, until: int) -> None:
        """Play the segments up to the position `until`. Raises DataError and StoreError."""
        if self.position >= until:
            return
        self._good_objects.execute("BEGIN")
        try:
            await self._follow(until)
        finally:
            self._good_objects.execute("COMMIT")

    async def _follow(self, until: int) -> None:
        segments = segments_after(self._bucket, self._keys, self.position, self._settings)
        async with contextlib.aclosing(segments):
            async for position, segment in segments:
                self._play(position, segment)
                if position >= until:
                    return
        raise DataError(f"the log ends after segment {self.position}, and it had {until}: the store has lost its end")

    def _play(self, position: int, segment: Segment) -> None:
        if segment is not EMPTY_SEGMENT:
            if segment.renewal is not None and segment.entries:
                self._first_renewed.append(segment.first_sequence)
                self._last_renewed.append(segment.last_sequence)
            kept = []
            for sequence, entry in enumerate(segment.entries, segment.first_sequence):
                good = self._good_part(entry)
                if good is None:
                    self._left_out.append(sequence)
                else:
                    kept.append(good)
            confirmations = tuple(map(self._renumbered, segment.confirmations))
            segment = replace(
                segment,
                entries=tuple(kept),
                confirmations=tuple(one for one in confirmations if one.sequences),
                first_sequence=self._state.sequence + 1,
            )
        self._state.apply(position, segment)

    def _good_part(self, entry: Entry) -> Entry | None:
        """Return what is good of an entry and its dissents, or None if nothing is."""
        key = name_key(entry.file_info.name)
        if self._suspects is not None and key not in self._suspects:
            return entry
        good = Row.of(0, entry).without(self._is_bad) if entry.dissents or self._is_bad(entry) else entry
        for version in good.versions if good is not None else ():
            if version.stored is not None:
                row = (key, version.stored.object_name)
                self._good_objects.execute("INSERT OR IGNORE INTO good VALUES (?, ?)", row)
        return good

    def _renumbered(self, confirmation: Confirmation) -> Confirmation:
        """Return a confirmation with the numbers that its entries have here."""
        found = []
        for sequences in confirmation.sequences:
            place = bisect_left(self._left_out, sequences.start)
            start = sequences.start
            while place < len(self._left_out) and self._left_out[place] < sequences.stop:
                found.append(range(start - place, self._left_out[place] - place))
                start = self._left_out[place] + 1
                place += 1
            found.append(range(start - place, sequences.stop - place))
        return Confirmation(confirmation.device_id, tuple(some for some in found if some))

    def entry(self, key: bytes) -> Entry | None:
        """Return what the name with this hash would be, or None where nothing good is known of it."""
        row = self._state.row(key)
        left = row.without(self._is_bad) if row is not None else None  # the oldest checkpoint may have bad ones
        return shortened(left) if left is not None else None

    def is_good_object(self, key: bytes, object_name: str) -> bool:
        """Return whether an entry that is not bad has named this object of the name with this hash."""
        row = (key, object_name)
        found = self._good_objects.execute("SELECT 1 FROM good WHERE name_hash = ? AND object_name = ?", row)
        if found.fetchone() is not None:
            return True
        entry = self.entry(key)
        versions = entry.versions if entry is not None else ()
        return any(one.stored is not None and one.stored.object_name == object_name for one in versions)

    def is_renewed(self, sequence: int) -> bool:
        """Return whether a renewal has written the entry with this sequence number."""
        number = bisect_right(self._first_renewed, sequence) - 1
        return number >= 0 and sequence <= self._last_renewed[number]
