"""Healing a folder whose log has lost segments: the store was put back to an earlier time, or has lost or damaged data.

The state is loaded again from what the store has. A renewal on top begins the folder's index again, so every peer sends
its whole index and gets all of ours: what a device still has comes back. The same renewal holds what the local state
knew and the log has lost, and takes back all entries whose objects are missing. The folder lists these as missing until
they come again.

What is lost for good is written to records of its own before the renewal, so that a crash loses no word of it
(store/losses.py).

While this goes on the folder is shared with nobody. The local state from before is kept in a file of its own until the
renewal is written, so a crash loses nothing of it.

What takes long in a large folder is done in threads. When very many objects are missing, the names are healed a part at
a time, so that not all of them are in memory at once.
"""

from __future__ import annotations

import bisect
import contextlib
import itertools
import math
import os
import sqlite3
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.vector import is_newer
from untrusted_s3.errors import IndexClaimed, StateDamaged
from untrusted_s3.index.database import remove_database
from untrusted_s3.index.entry import Entry, NamedObject, Removal
from untrusted_s3.index.local_files import BEFORE_FILE, COPY_FILE
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.renewal import without_objects
from untrusted_s3.index.row import Row
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.state_copy import differing, names_without
from untrusted_s3.objects.missing import find_missing
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys, name_key
from untrusted_s3.store.losses import Claimed, Forgotten, LossNotes, LossRecord
from untrusted_s3.threads import in_thread_to_the_end

_logger = structlog.get_logger()
# Each takes about a KiB.
_MISSING_AT_ONCE = 100_000


@dataclass(frozen=True, slots=True)
class Healed:
    """What healing has found and done.

    Attributes:
        losses: What is lost for good, as far as that is known; nothing if nothing is.
        restored: How many entries the local state knew that the log had lost.
        missing: How many entries name objects that are not in the store.
    """

    losses: tuple[LossRecord, ...]
    restored: int
    missing: int


class _AlreadyRenewedError(Exception):
    """Another gateway has renewed the log meanwhile, and nothing is left to write."""


class _StoppedError(Exception):
    """The healing is cancelled."""


def is_unfinished(directory: Path) -> bool:
    """Return whether healing the folder with these local files was interrupted."""
    return (directory / BEFORE_FILE).exists()


async def heal(
    bucket: Bucket,
    keys: FolderKeys,
    log: FolderLog,
    state: FolderState,
    notes: LossNotes,
    claim: IndexClaimed | None = None,
    *,
    at_once: int = _MISSING_AT_ONCE,
) -> Healed:
    """Load the state from what the store has, and renew the log. A second call goes on where one was interrupted.

    Nobody else may use the state meanwhile. About `at_once` files with missing objects are in memory at once.

    What is lost is written to `notes`; `claim` is why the log is healed, if a device's word is. Raises UnknownFormat,
    StoreError, DataError or StateDamaged.
    """
    claimed: tuple[LossRecord, ...] = ()
    if claim is not None:
        # Before anything tells that healing was begun: after a crash nobody knows of the claim.
        what = Claimed(claim.index_id, claim.sequence, claim.known)
        claimed = await notes.write(state.position, state.index_id, claimed=what)
    path = state.path.with_name(BEFORE_FILE)
    before = await _before(state, path)
    try:
        try:
            healed = await _Healing(bucket, keys, log, state, notes, before, at_once).run()
        except StateDamaged as error:
            if before is None or not before.is_damaged:
                raise
            _logger.error("healing without the local state", error=str(error))
            healed = await _Healing(bucket, keys, log, state, notes, None, at_once).run()
    finally:
        if before is not None:
            before.close()
    remove_database(path)
    return replace(healed, losses=claimed + healed.losses)


class _Before(FolderState):
    """The local state before the healing began.

    Attributes:
        is_damaged: Whether the file turned out to be damaged.
    """

    def __init__(self, path: Path) -> None:
        """Open the file. Raises StateFolderUnusable."""
        self.is_damaged = False
        super().__init__(path, self._note_damage)

    def _note_damage(self) -> None:
        self.is_damaged = True


async def _before(state: FolderState, path: Path) -> _Before | None:
    """Return the local state before the healing began, or None if it is missing or cannot be read."""
    if state.position > 0 and not path.exists():
        try:
            await in_thread_to_the_end(_copy, state, path)
        except sqlite3.OperationalError:
            raise  # for example a full disk: the next attempt may succeed
        except (StateDamaged, sqlite3.DatabaseError) as error:
            _logger.error("healing without the local state", error=str(error))
            return None
    if not path.exists():
        return None
    try:
        before = _Before(path)
    except StateDamaged:
        remove_database(path)
        return None
    if before.position == 0:  # the file could not be read, and an empty one took its place
        before.close()
        remove_database(path)
        return None
    return before


def _copy(state: FolderState, path: Path) -> None:
    """Copy a state to a file that is whole, after a power cut too, as soon as it is there."""
    copy = path.with_name(COPY_FILE)
    remove_database(copy)
    state.write_copy(copy)
    _sync(copy)
    copy.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class _Healing:
    """One healing. `before` is the local state when it began."""

    def __init__(
        self,
        bucket: Bucket,
        keys: FolderKeys,
        log: FolderLog,
        state: FolderState,
        notes: LossNotes,
        before: FolderState | None,
        at_once: int,
    ) -> None:
        self._bucket = bucket
        self._keys = keys
        self._log = log
        self._state = state
        self._notes = notes
        self._before = before
        self._at_once = at_once
        self._gone: set[NamedObject] = set()
        self._index_id = 0
        self._merges = False
        self._restored = self._missing = 0
        # The names that are healed now: those whose hashes leave this remainder. Another name has no part in it.
        self._parts, self._part = 1, 0
        self._is_stopped = False

    async def run(self) -> Healed:
        state, before = self._state, self._before
        salvaged = await self._log.salvage()
        losses = salvaged.losses
        self._index_id = state.index_id
        forgotten: Forgotten | None = None
        if before is not None:
            self._merges = _is_earlier(state, before) or state.index_id == before.index_id
            if not self._merges:
                count = await in_thread_to_the_end(self._count_newer, on_cancel=self._stop)
                forgotten = Forgotten(before.index_id, before.sequence, count) if count else None
        kept = salvaged.kept
        self._gone = await self._find_gone(self._at_once)
        noted = await self._notes.write(
            state.position, state.index_id, segments=losses, damaged=kept.values(), forgotten=forgotten
        )
        force = bool(losses) or before is None or self._merges
        restored = missing = 0
        if len(self._gone) >= self._at_once:
            self._parts = 1 + (state.totals.files + (before.totals.files if before else 0)) // self._at_once
        for part in range(self._parts):
            self._part = part
            if self._parts > 1:
                self._gone = await self._find_gone()
            is_first = part == 0
            with contextlib.suppress(_AlreadyRenewedError):
                await self._log.renew(
                    self._plan,
                    force=force and is_first,
                    apart=bool(losses) and is_first,
                    stop=self._stop,
                    check_objects=True,
                )
            restored, missing = restored + self._restored, missing + self._missing
        if losses:
            # Readers begin at the newest checkpoint and so never come to the gap.
            await self._log.checkpoint()
        await self._log.remove_kept(kept)
        return Healed(noted, restored, missing)

    async def _find_gone(self, limit: float = math.inf) -> set[NamedObject]:
        """Return the objects that are missing, and of those that may come back the ones that are about to be deleted.

        After about `limit` missing ones, the rest is left out.
        """
        candidates = self._log.garbage.candidates
        await candidates.look()
        gone = await find_missing(self._bucket, self._keys, self._objects(), limit)
        if candidates:
            gone.update(
                named
                for named in self._objects()
                if candidates.has(named.name_hash, named.object_name)
                and named not in self._state.objects_of(named.name_hash)
            )
        return gone

    def _objects(self) -> Iterator[NamedObject]:
        """Yield what entries name: those of the log, and those that may come back."""
        objects = self._state.objects()
        if self._before is not None and self._merges:
            objects = itertools.chain(objects, self._before.objects())
        return (named for named in objects if self._has_turn(named.name_hash))

    def _has_turn(self, key: bytes) -> bool:
        """Return whether the name with this hash is healed now."""
        return int.from_bytes(key[-8:]) % self._parts == self._part

    def _stop(self) -> None:
        """Have what goes on in a thread end soon."""
        self._is_stopped = True

    def _count_newer(self) -> int:
        return sum(1 for _ in self._newer_before(self._state))

    def _plan(self, state: FolderState) -> tuple[Iterable[Removal], Iterable[Entry]]:
        damaged = dict.fromkeys(named.name_hash for named in self._gone if named in state.objects_of(named.name_hash))
        found, left = without_objects(filter(None, map(state.row, damaged)), self._gone)
        removals: dict[bytes, list[Removal]] = {}
        for removal in found:
            removals.setdefault(removal.name_hash, []).append(removal)
        # Rows of the state from before, by their sequence numbers, since that stays as it is; and other entries.
        restored = array("q")
        others = {name_key(entry.file_info.name): entry for entry in left}
        self._restored = 0
        if self._before is not None and self._merges:
            self._restore(self._before, state, removals, restored, others)
        self._missing = sum(1 for key, some in removals.items() if self._is_missed(state, some[0], others.get(key)))
        if not (removals or restored or others) and state.index_id != self._index_id:
            raise _AlreadyRenewedError
        # Of a name that is removed twice, the second time comes in a later segment, and so after all others.
        in_order = [
            *(every[0] for every in removals.values()),
            *(one for every in removals.values() for one in every[1:]),
        ]
        return in_order, itertools.chain(self._entries(restored), others.values())

    def _entries(self, sequences: Iterable[int]) -> Iterator[Entry]:
        """Yield what the state from before has."""
        for sequence in sequences:
            assert self._before is not None
            yield self._before.row_at(sequence).whole_entry

    def _restore(
        self,
        before: FolderState,
        state: FolderState,
        removals: dict[bytes, list[Removal]],
        restored: array[int],
        others: dict[bytes, Entry],
    ) -> None:
        for row, is_as_before in self._lost_rows(before, state):
            name = row.entry.file_info.name
            key = name_key(name)
            self._restored += 1
            left = row.without_objects(self._gone)
            if not self._is_gone(row.entry):
                assert left is not None
                if is_as_before and not any(map(self._is_gone, row.entries.values())):
                    restored.append(row.sequence)
                    others.pop(key, None)
                else:
                    others[key] = left
                if key in removals and removals[key][0].missing_object:
                    del removals[key]  # the entry takes the place of the other one
                continue
            assert row.entry.stored is not None
            older = left or others.get(key) or self._kept(state, key, removals)
            version = row.entry.file_info.message.version.SerializeToString()
            removals[key] = [Removal(key, row.entry.stored.object_name, name, version)]
            if older is not None:
                others[key] = older  # better than nothing
        for missing in before.missing():
            key = missing.name_hash
            if not self._has_turn(key) or state.is_missing(key, missing.version):
                continue
            version = missing.version.SerializeToString()
            removal = Removal(key, missing.object_name, missing.name, version)
            if key in removals:
                if is_newer(missing.version, _removed_version(state, removals[key][0])):
                    removals[key].append(removal)  # the older version is gone, too
                continue
            if key not in others and not _has(restored, before.sequence_of(key)):
                row_here = state.row(key)
                if row_here is not None:
                    current = row_here.entry
                    is_it = current.stored is not None and current.stored.object_name == missing.object_name
                    if not is_it and not is_newer(missing.version, current.file_info.message.version):
                        continue
                    kept = _without_object(row_here, missing.object_name)
                    if kept is not None:
                        others[key] = kept
            removals[key] = [removal]
        if _is_earlier(state, before) and state.index_id == self._index_id != before.index_id:
            # The log has lost a renewal, and with it what that had taken back.
            for key in names_without(state.path, before.path):
                removals.setdefault(key, [Removal(key)])

    def _is_gone(self, entry: Entry) -> bool:
        return entry.stored is not None and NamedObject.of(entry) in self._gone

    @staticmethod
    def _is_missed(state: FolderState, removal: Removal, left: Entry | None) -> bool:
        """Return whether a current version is removed, and not only a dissent."""
        if not removal.missing_object:
            return False
        return bool(removal.name) or left is None or left.file_info.raw != state.file_info_of(removal.name_hash)

    def _kept(self, state: FolderState, key: bytes, removals: dict[bytes, list[Removal]]) -> Entry | None:
        """Return what the log has under a name, unless an object of it is gone too."""
        row = state.row(key)
        return row.whole_entry if row is not None and key not in removals else None

    def _lost_rows(self, before: FolderState, state: FolderState) -> Iterator[tuple[Row, bool]]:
        """Yield what the folder should have of the names of which `before` knows more than the log.

        And whether that is what `before` has. Its sequence numbers rise.
        """
        # Asked with each plan: another gateway may have healed the log meanwhile, from what it knew.
        is_earlier = _is_earlier(state, before) and state.index_id == self._index_id
        for row in self._differing(before, state):
            here = state.row(name_key(row.entry.file_info.name))
            found = row
            if here is not None and not is_earlier:
                found = Row.of(row.sequence, here.with_lost(row))
            if not state.has(found.whole_entry):
                yield found, found.claims == row.claims and found.entries == row.entries

    def _differing(self, before: FolderState, state: FolderState) -> Iterator[Row]:
        """Yield the rows of `before` that the log has not, or otherwise, and those with dissents.

        Their sequence numbers rise.
        """
        for sequence in differing(state.path, before.path):
            if self._is_stopped:
                raise _StoppedError
            try:
                row = before.row_at(sequence)
            except StateDamaged as error:
                _logger.error("entry of the local state left out", sequence=sequence, error=str(error))
                continue
            if self._has_turn(name_key(row.entry.file_info.name)):
                yield row

    def _newer_before(self, state: FolderState) -> Iterator[Row]:
        """Yield the rows of `before` whose current versions are newer than what the log has."""
        assert self._before is not None
        for row in self._differing(self._before, state):
            if state.wants(row.entry.file_info):
                yield row


def _is_earlier(state: FolderState, before: FolderState) -> bool:
    """Return whether a state has what `before` says up to an earlier position, and nothing else."""
    # Times are the store's, so what others have written after a loss is younger than all that was lost.
    return state.position <= before.position and state.time_ms <= before.time_ms


def _removed_version(state: FolderState, removal: Removal) -> pb.Vector:
    """Return the version that a removal takes from a name."""
    if removal.name:
        return pb.Vector.FromString(removal.version)
    row = state.row(removal.name_hash)
    return row.entry.file_info.message.version if row is not None else pb.Vector()


def _without_object(row: Row, object_name: str) -> Entry | None:
    """Return the entry for the log that takes versions with an object from a name, or None if no version is left."""
    return row.without(lambda entry: entry.stored is not None and entry.stored.object_name == object_name)


def _has(sequences: Sequence[int], sequence: int | None) -> bool:
    """Return whether rising numbers have one of them."""
    if sequence is None:
        return False
    place = bisect.bisect_left(sequences, sequence)
    return place < len(sequences) and sequences[place] == sequence
