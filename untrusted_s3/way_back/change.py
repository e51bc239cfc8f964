"""What the way back changes of one name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from untrusted_s3.index.entry import Entry, Removal
from untrusted_s3.store.layout import name_key


@dataclass(frozen=True, slots=True)
class Change:
    """What a folder has under one name, and what it gets instead.

    Attributes:
        name: The encrypted name.
        before: What the folder has; None for a name that it no longer has.
        after: What it gets instead; None if the name is only removed.
        data_gone: Whether there is an earlier version that cannot come back, because its data are gone.
        distrusted: The objects of bad versions that may hold anything and must not be used again.
    """

    name: str
    before: Entry | None
    after: Entry | None
    data_gone: bool = False
    distrusted: tuple[str, ...] = ()


def renewal_of(changes: Iterable[Change]) -> tuple[list[Removal], list[Entry]]:
    """Return the removals and entries that make changes."""
    removals, more, entries = [], [], []
    for change in changes:
        if change.after is not None:
            entries.append(change.after)
        key = name_key(change.name)
        if change.after is None or change.distrusted:
            removals.append(Removal(key, change.distrusted[0] if change.distrusted else ""))
        # A renewal removes a name once, so these come in a later one.
        more += [Removal(key, object_name) for object_name in change.distrusted[1:]]
    return removals + more, entries
