"""The contents of renewals: what a plan takes back and puts in place, in parts of the size of a segment."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Container, Iterable, Iterator

from untrusted_s3.index.entry import Entry, NamedObject, Removal, Renewal
from untrusted_s3.index.row import Row
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.layout import name_key

# Says what the folder should no longer hold, and the entries that replace what it has, newer or not.
# It must not read the state after it has returned: an iterator over its rows would meet its own changes.
Plan = Callable[[FolderState], tuple[Iterable[Removal], Iterable[Entry]]]
Part = tuple[tuple[Removal, ...], tuple[Entry, ...]]

# A removal is much smaller than an entry.
_REMOVALS_AN_ENTRY = 10
_REMOVAL_SIZE = 24


def new_renewal(removals: tuple[Removal, ...]) -> Renewal:
    """Return a renewal with a new index id."""
    return Renewal(secrets.randbits(63) | 1, removals)


def parts(
    state: FolderState, removals: Iterable[Removal], entries: Iterable[Entry], settings: LogSettings
) -> Iterator[Part]:
    """Yield removals and entries a segment at a time, removals first.

    Those that would change nothing are left out; each is compared with the state when its turn comes. A renewal removes
    a name once, so of two removals of a name the second one is in a later segment.
    """
    taken: dict[bytes, Removal] = {}
    size = 0
    for removal in removals:
        if removal.name_hash in taken:
            yield tuple(taken.values()), ()
            taken, size = {}, 0
        if not _changes(state, removal):
            continue
        taken[removal.name_hash] = removal
        size += _REMOVAL_SIZE + len(removal.missing_object) + len(removal.name) + len(removal.version)
        if len(taken) >= _REMOVALS_AN_ENTRY * settings.segment_entries or size >= settings.segment_size:
            yield tuple(taken.values()), ()
            taken, size = {}, 0
    batch: list[Entry] = []
    for entry in entries:
        if name_key(entry.file_info.name) not in taken and state.has(entry):
            continue
        batch.append(entry)
        size += entry.raw_size
        if len(batch) >= settings.segment_entries or size >= settings.segment_size:
            yield tuple(taken.values()), tuple(batch)
            taken, batch, size = {}, [], 0
    if taken or batch:
        yield tuple(taken.values()), tuple(batch)


def without_objects(rows: Iterable[Row], gone: Container[NamedObject]) -> tuple[list[Removal], list[Entry]]:
    """Return what takes the versions back whose objects are missing or damaged, and condemns these objects.

    Names that have other versions keep these.
    """
    removals: list[Removal] = []
    more: list[Removal] = []
    entries: list[Entry] = []
    for row in rows:
        found = [NamedObject.of(entry) for entry in row.entries.values()]
        lost = dict.fromkeys(named for named in found if named is not None and named in gone)
        if not lost:
            continue
        first, *others = [Removal(named.name_hash, named.object_name) for named in lost]
        removals.append(first)
        more += others
        left = row.without_objects(lost)
        if left is not None:
            entries.append(left)
    return [*removals, *more], entries


def _changes(state: FolderState, removal: Removal) -> bool:
    key = removal.name_hash
    if removal.name and not state.is_missing(key):
        return True
    if state.sequence_of(key) is not None:
        return True
    if removal.missing_object:
        return removal.missing_object not in state.condemned(key)
    return state.is_missing(key)
