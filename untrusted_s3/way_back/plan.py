"""The plan of a way back, and its carrying out while gateways go on writing.

A plan comes some names at a time, so that the memory for it does not grow with the folder. Every entry that is written
gets a higher sequence number than all before it. So a plan goes through the sequence numbers once, and what gateways
write meanwhile comes at its end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from untrusted_s3.index.entry import Entry, Removal
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.row import Row
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.layout import name_key
from untrusted_s3.way_back.change import Change, renewal_of

_SETTINGS = LogSettings()


@dataclass(frozen=True, slots=True)
class Planned:
    """A change that is to be made as long as nothing else happens to the name.

    Attributes:
        change: The change.
        sequence: The sequence number of what the folder has under the name; None for nothing.
    """

    change: Change
    sequence: int | None


class Plan(Protocol):
    """What is to change of a folder.

    Attributes:
        replayed: How many segments of the log were played again.
    """

    @property
    def replayed(self) -> int: ...

    async def prepare(self, state: FolderState) -> bool:
        """Go on to the next names. Return False if there are none: the plan is at the end of this state.

        Gets from the store what their changes need. Raises DataError or StoreError.
        """
        ...

    def changes(self, state: FolderState) -> Iterable[Change]:
        """Return what is to change of these names, in a state that may be later than the prepared one."""
        ...


class Batch:
    """What is planned at once: about as much as one segment of the log holds.

    Attributes:
        planned: The changes.
    """

    def __init__(self, settings: LogSettings = _SETTINGS) -> None:
        self._settings = settings
        self.planned: list[Planned] = []
        self._bytes = 0

    def add(self, planned: Planned) -> None:
        """Add a change."""
        self.planned.append(planned)
        entries = (planned.change.before, planned.change.after)
        self._bytes += sum(entry.raw_size for entry in entries if entry is not None)

    @property
    def full(self) -> bool:
        """Whether no more is to be added."""
        return len(self.planned) >= self._settings.segment_entries or self._bytes >= self._settings.segment_size

    def returning(self) -> list[Entry]:
        """Return the entries that come back."""
        return [one.change.after for one in self.planned if one.change.after is not None]

    def without_gone(self, left_of: Callable[[Change], Entry | None]) -> Batch:
        """Return the same changes, but for versions whose objects are gone: these do not come back.

        `left_of` returns what a change still gives the name.
        """
        batch = Batch(self._settings)
        for one in self.planned:
            if one.change.after is not None and (left := left_of(one.change)) is not one.change.after:
                one = replace(one, change=_with(one.change, left))
            batch.add(one)
        return batch

    def due(self, state: FolderState) -> Iterator[Change]:
        """Yield what is still to be changed. A name that somebody else has written meanwhile comes again later."""
        for one in self.planned:
            change, key = one.change, name_key(one.change.name)
            if state.sequence_of(key) != one.sequence:
                continue
            if change.after is not None and state.is_condemned(change.after):
                change = _with(change, Row.of(0, change.after).without(state.is_condemned))
                if change.before is None and change.after is None:
                    continue
            if change.before is not None or change.after is not None or state.is_missing(key):
                yield change


def _with(change: Change, after: Entry | None) -> Change:
    return replace(change, after=after, data_gone=after is None)


async def carry_out(log: FolderLog, plan: Plan, tell: Callable[[Change], object]) -> None:
    """Make the changes of a plan, and call `tell` for each that is made.

    Gateways may write meanwhile. After an error or an interruption some of the changes may be made; another plan then
    makes the others.

    Raises DataError or StoreError.
    """
    planned: list[Change] = []

    def tell_made(state: FolderState) -> None:
        """Tell those that an earlier attempt has made, before another gateway came between."""
        for change in planned:
            if _is_made(state, change):
                tell(change)
        planned.clear()

    def plan_some(state: FolderState) -> tuple[list[Removal], list[Entry]]:
        tell_made(state)
        planned.extend(plan.changes(state))
        return renewal_of(planned)

    await log.refresh()
    while await plan.prepare(log.state):
        await log.renew(plan_some, check_objects=True)
        tell_made(log.state)
        await log.refresh()


def _is_made(state: FolderState, change: Change) -> bool:
    if change.after is not None:
        return state.has(change.after)
    key = name_key(change.name)
    return state.sequence_of(key) is None and (change.before is not None or not state.is_missing(key))
