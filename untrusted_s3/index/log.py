"""A folder's log: immutable segments at consecutive positions, each created once (docs/format.md, "The log").

These rules keep the log whole when several gateways write to one bucket. The names in capitals are in store/format.py.

1. A gateway that has applied all segments up to n writes a segment at position n + 1 by a PUT with `If-None-Match: *`.
   Where the key is taken, another gateway was first: the gateway applies that segment, drops those of its own entries
   that are no longer newer, renumbers the rest, and tries the next position.
2. An object is complete before the entry that names it is appended. An entry is announced to peers only after its
   segment is written.
3. Segments are deleted only when a checkpoint covers them that is itself older than SEGMENT_RETENTION by the store's
   clock, and the newest checkpoint is never deleted (index/trimming.py). A checkpoint's age may count from the
   beginning of its upload, and the store refuses to complete the upload FILE_UPLOAD_LIFETIME later. So a reader that
   has seen the end of the log, or found no checkpoint newer than its own state, can read on from there for the time by
   which SEGMENT_RETENTION exceeds FILE_UPLOAD_LIFETIME.
4. A missing segment is the end of the log only for a reader that has looked within half of SEGMENT_RETENTION, the time
   of the answer included, and has come as far as every checkpoint that it saw. Any other reader begins again at the
   newest checkpoint. Where that one is damaged or gone, the one before it serves if the segments after it exist.
5. A stalled writer must not create a deleted position a second time. Its PUT is a presigned one, signed no later than
   APPEND_LIFETIME after the writer last saw the end of the log, and the store refuses it, by the store's own clock,
   APPEND_LIFETIME after it was signed. Both together are far below SEGMENT_RETENTION. A look counts from before its
   request. Where a gateway's clock stands still or runs ahead, it signs in the past or in the future, and the store
   refuses both.
6. A store may lose the end of a log: after a crash, or when it is put back to a snapshot. A gateway that goes on at
   n + 1 would leave a gap, which readers take for the end. So a gateway reads segment n again and compares it with its
   state, and lists what follows n + 1, when it begins, before it appends if it has not looked for a minute, and before
   it appends or reads on after any request for the log failed or something in the log was wrong. That is enough where a
   store does not lose what it has confirmed while it answers every request: one that crashes or is put back does not
   answer for a while, and a gateway with devices asks for n + 1 every few seconds. Ordinary appends and looks need no
   further request. Readers that meet the first missing segment list what follows it when they begin. While it has
   devices, a gateway reads segment n again once a minute, and lists the segments since the last list where the log has
   gone on, and now and then (sync/looks.py).
7. An entry does not name an object that is about to be deleted (store/garbage.py, index/garbage_guard.py).
8. Each segment names the one before it, so nobody goes on in another history than the one that was read. A log that
   lost segments is healed by a renewal behind all that is left (`salvage`, sync/healing.py). If it left a gap behind,
   the renewal names no real segment as the one before it, and a checkpoint follows.
"""

from __future__ import annotations

import itertools
import math
import secrets
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog

from untrusted_s3.errors import (
    PreconditionFailed,
)
from untrusted_s3.index.changes import Change, Outcome
from untrusted_s3.index.checkpoint import write_checkpoint
from untrusted_s3.index.entry import Confirmation, Entry, PeerCursor, Renewal
from untrusted_s3.index.log_follower import LogFollower
from untrusted_s3.index.renewal import Plan, new_renewal, parts
from untrusted_s3.index.segment import Segment, encode_segment
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.layout import name_key
from untrusted_s3.store.listing import list_checkpoints
from untrusted_s3.threads import in_thread_to_the_end

Result = TypeVar("Result")

_logger = structlog.get_logger()
_SETTINGS = LogSettings()


class FolderLog(LogFollower):
    """The log of one folder, and the local state that follows it.

    Several tasks may call its methods; one at a time reads or writes.
    """

    async def append(
        self,
        changes: Sequence[Entry | Change],
        cursors: Sequence[PeerCursor] = (),
        confirmations: Sequence[Confirmation] = (),
        *,
        index_id: int | None = None,
    ) -> bool:
        """Extend the log by changes, by confirmations and by cursors.

        An entry is a change if it is newer than what the log has.

        `index_id` is that of the folder's index to which all of them belong. If a renewal has begun another index,
        nothing is written: all devices send their whole indexes again, and what the renewal has taken back must not
        return without its device. Without it, a renewal that comes between keeps only cursors and confirmations out.

        Return whether there was something to write. The state then reflects every entry, or a newer one of the same
        name, except for entries whose objects were found missing or damaged meanwhile: a renewal has begun the index
        again then. Raises ObjectIsGarbage where the object of an entry is or may be deleted; nothing is written then.
        Where another error is raised, the segment may be written nevertheless; appending again is harmless.
        """
        at_call = self.state.index_id
        async with self._working():
            while True:
                await self._catch_up()
                if index_id is not None and self.state.index_id != index_id:
                    return False
                # Of all changes each time: another gateway's renewal may have removed what the log had.
                entries, confirmed = self._outcomes(changes)
                if self.state.index_id != at_call and index_id is None:
                    cursors, confirmations, confirmed = (), (), []
                if confirmations and any(entry.claims is not None for entry in entries):
                    # Such an entry says all of a name: it is to have what is confirmed here.
                    if await self._write((), (), confirmations=Confirmation.merged(confirmations)):
                        confirmations = ()
                    continue
                confirmed.extend(confirmations)
                if not entries and not cursors and not confirmed:
                    return False
                if await self._write(tuple(entries), tuple(cursors), confirmations=Confirmation.merged(confirmed)):
                    return True

    async def renew(
        self,
        plan: Plan,
        *,
        force: bool = False,
        apart: bool = False,
        stop: Callable[[], object] | None = None,
        check_objects: bool = False,
    ) -> int:
        """Take entries back and begin the folder's index again. Return the number of segments written.

        `plan` is given the state at the end of the log, and again whenever another gateway has changed it meanwhile. An
        empty plan writes nothing, unless `force`. A large one is split over several segments, each with its own new
        index id. Where this raises, a part may be written; to renew again goes on with what is left. With `apart`, the
        state lacks segments that others may know: those who have applied them must not go on from their state. With
        `check_objects`, objects that the folder does not name are looked for before they are written to the log.

        With `stop`, nobody else may use the state meanwhile: plan and entries are worked out in threads. It is called
        when the caller is cancelled, and `plan` and its iterators should then end soon.
        """
        async with self._working():
            self._stop = stop
            try:
                return await self._renew(plan, force, apart, check_objects)
            finally:
                self._stop = None

    async def _aside(self, function: Callable[..., Result], *args: Any) -> Result:
        """Call a function, in a thread if the state is ours alone."""
        if self._stop is None:
            return function(*args)
        return await in_thread_to_the_end(function, *args, on_cancel=self._stop)

    def _outcomes(self, changes: Sequence[Entry | Change]) -> tuple[list[Entry], list[Confirmation]]:
        """Return the entries and confirmations that changes come to where the log ends."""
        entries: list[Entry] = []
        confirmed: list[Confirmation] = []
        self.state.look_up([_key_of(change) for change in changes])
        for change in changes:
            found = self._outcome(change)
            if isinstance(found, Entry):
                entries.append(found)
            else:
                confirmed.extend(found or ())
        return entries, confirmed

    def _outcome(self, change: Entry | Change) -> Outcome:
        if not isinstance(change, Entry):
            return change(self.state)
        return change if self.state.wants(change.file_info) and not self.state.is_condemned(change) else None

    async def _renew(self, plan: Plan, force: bool, apart: bool, check_objects: bool) -> int:
        written = 0
        while True:
            await self._catch_up()
            planned = parts(self.state, *await self._aside(plan, self.state), self._settings)
            if force and not written:
                # The first part is written even if it is empty.
                planned = itertools.chain([await self._aside(next, planned, ((), ()))], planned)
            while (part := await self._aside(next, planned, None)) is not None:
                removals, entries = part
                position = self.state.position
                await self._catch_up()
                if self.state.position != position:
                    break
                await self.garbage.admit(entries, check_objects=check_objects)
                if not await self._write(entries, (), new_renewal(removals), apart=apart and not written):
                    break
                written += 1
            else:
                return written

    async def _catch_up(self) -> None:
        """Come to the end of the log if the last look does not allow to write."""
        if not self._looked_within(self._settings.trusted_look):
            self._in_doubt = True
        while self._in_doubt or self._is_behind or not self._looked_within(self._rules.append_lifetime):
            await self._look()

    async def _write(
        self,
        entries: tuple[Entry, ...],
        cursors: tuple[PeerCursor, ...],
        renewal: Renewal | None = None,
        *,
        confirmations: tuple[Confirmation, ...] = (),
        apart: bool = False,
    ) -> bool:
        """Write the next segment. Return False if another one is there, which is applied then, or a look is due."""
        await self.garbage.admit(entries)
        if not self._looked_within(self._rules.append_lifetime):
            return False
        position = self.state.position + 1
        signed = self._clock()
        segment = Segment(
            writer=self._writer,
            append_id=secrets.token_bytes(16),
            time_ms=int(self._time_of_day() * 1000),
            first_sequence=self.state.sequence + 1,
            entries=entries,
            cursors=cursors,
            confirmations=confirmations,
            renewal=renewal,
            previous=secrets.randbits(63) | 1 if apart else self.state.append_id,
        )
        if sum(entry.raw_size for entry in entries) > self._settings.large_segment:
            body = await in_thread_to_the_end(encode_segment, segment)
        else:
            body = await self._aside(encode_segment, segment)
        try:
            await self._bucket.put(
                self._keys.segment(position), [body], if_none_match=True, lifetime=self._rules.append_lifetime
            )
        except PreconditionFailed:
            found = await self._reader.read(position)
            if found.segment is not None:
                # Perhaps our own one: then the answer to the PUT was lost.
                is_own = found.segment.append_id == segment.append_id
                self._apply(found, follows=not (is_own and apart))
                self.entries_written += len(entries) if is_own else 0
                return is_own
            if self._looked_within(self._rules.retention / 2):
                raise
            return False  # it may be deleted: the caller looks again
        self._last_look = signed
        self.before_apply(segment)
        await self._aside(partial(self.state.apply, position, segment, follows=not apart))
        self.entries_written += len(entries)
        self._bytes_since_checkpoint += len(body)
        return True

    @property
    def checkpoint_due(self) -> bool:
        """Whether reading the segments since the newest checkpoint costs so much that a new one is worth its size."""
        since = self.state.position - self._checkpoint_position
        if since < 2:
            return False
        settings = self._settings
        cost = self._bytes_since_checkpoint + since * settings.segment_cost
        return cost >= max(settings.checkpoint_cost, self.state.file_size * settings.checkpoint_share)

    async def checkpoint_where_due(self, older_than: float = math.inf) -> bool:
        """Write a checkpoint if one is due and no other gateway has written one. Return whether it was written.

        One is due too if the newest is older than `older_than` seconds and the log has gone on since.
        """
        found = await list_checkpoints(self._bucket, self._keys)
        newest = max(found.keys() - self._unreadable.keys(), default=0)
        if newest > self._checkpoint_position:
            self._checkpoint_position = newest
            self._bytes_since_checkpoint = 0
        is_old = newest < self.state.position and (found[newest].age if newest else math.inf) > older_than
        if not self.checkpoint_due and not (is_old and older_than < math.inf):
            return False
        await self.checkpoint()
        return True

    async def checkpoint(self) -> None:
        """Write a checkpoint of the present state."""
        self._bytes_since_checkpoint = 0
        self._checkpoint_position = await write_checkpoint(self._bucket, self._keys, self.state)
        self.checkpoints_written += 1
        _logger.info("checkpoint written", position=self._checkpoint_position)

    async def cover_damage(self) -> list[int]:
        """Read the segments since the newest checkpoint again. If some are damaged, write a checkpoint of the state.

        A segment that does not continue the one before it is damaged too.

        Nothing is lost then, for the state has what they said. Return their positions; those that are missing are left
        to `check`. Raises StoreError.
        """
        first, last = await self._newest_checkpoint() + 1, self.state.position
        damaged = await self._damage.look(self._reader, first, last)
        if damaged:
            await self.checkpoint()
        return damaged


def _key_of(change: Entry | Change) -> bytes:
    return name_key(change.file_info.name) if isinstance(change, Entry) else change.key
