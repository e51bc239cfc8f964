"""The plan of a way back, and its carrying out while gateways go on writing."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Protocol

from untrusted_s3.index.entry import Entry, Removal
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key
from untrusted_s3.way_back.change import Change, renewal_of

# The most names whose entries are in memory at once.
_AT_ONCE = 10_000


class PlanOutdated(Exception):
    """The folder has changed since the plan was prepared, in a way that needs another look at the store."""


class Plan(Protocol):
    """What is to change of a folder.

    When all its changes are made, a plan has none.
    """

    async def prepare(self, state: FolderState) -> None:
        """Get from the store what the changes of this state need. Raises DataError or StoreError."""
        ...

    def changes(self, state: FolderState) -> Iterator[Change]:
        """Yield what is to change of this state. Raises PlanOutdated where `prepare` must be called again."""
        ...


async def carry_out(log: FolderLog, plan: Plan, tell: Callable[[Change], object]) -> None:
    """Make the changes of a plan, and call `tell` for each that is made.

    Gateways may write meanwhile: whatever they write, the changes are planned again before they are made. After an
    error or an interruption some of the changes may be made; carrying out the plan again makes the others.

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
        planned.extend(itertools.islice(plan.changes(state), _AT_ONCE))
        return renewal_of(planned)

    while True:
        await log.refresh()
        await plan.prepare(log.state)
        try:
            await log.renew(plan_some)
        except PlanOutdated:
            planned.clear()
            continue
        count = len(planned)
        tell_made(log.state)
        if count < _AT_ONCE:
            return


def _is_made(state: FolderState, change: Change) -> bool:
    if change.after is not None:
        return state.has(change.after)
    key = name_key(change.name)
    return state.sequence_of(key) is None and (change.before is not None or not state.is_missing(key))
