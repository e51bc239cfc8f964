"""The contents of renewals: what a plan takes back and puts in place, in parts of the size of a segment."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.index.entry import Entry, NamedObject, Removal, Renewal
from untrusted_s3.index.row import Row, shortened
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.index_id import new_index_id
from untrusted_s3.store.layout import name_key

# Says what the folder should no longer hold, and the entries that replace what it has, newer or not.
# It must not read the state after it has returned: an iterator over its rows would meet its own changes.
Planned = tuple[Iterable[Removal], Iterable[Entry]]
Plan = Callable[[FolderState], Planned]
Part = tuple[tuple[Removal, ...], tuple[Entry, ...]]

# A removal is much smaller than an entry.
_REMOVALS_AN_ENTRY = 10
_REMOVAL_SIZE = 24


def new_renewal(removals: tuple[Removal, ...]) -> Renewal:
    """Return a renewal with a new index id."""
    return Renewal(new_index_id(), removals)


def parts(
    state: FolderState, removals: Iterable[Removal], entries: Iterable[Entry], settings: LogSettings
) -> Iterator[Part]:
    """Yield removals and entries a segment at a time.

    Those that would change nothing are left out; each is compared with the state when its turn comes. Entries of names
    that are not removed come first and are not kept: there may be more of them than fit in memory. A renewal removes a
    name once, so of two removals of a name the second one is in a later segment. An entry is in the segment that
    removes its name, so that a crash between two segments leaves no name without what it keeps.
    """
    due = list(removals)
    removed = {removal.name_hash for removal in due}
    replacing: dict[bytes, Entry] = {}
    part = _Gathered(settings)
    for entry in entries:
        key = name_key(entry.file_info.name)
        if key in removed:
            replacing[key] = entry
        elif key in part.entries or not state.has(entry):
            part.add(entry)
            if part.is_full:
                yield part.take()
    for removal in due:
        if removal.name_hash in part.removals:
            yield part.take()
        if not _changes(state, removal):
            continue
        part.remove(removal)
        if removal.name_hash in replacing:
            part.add(replacing[removal.name_hash])
        if part.is_full:
            yield part.take()
    for key, entry in replacing.items():
        if key in part.entries or state.has(entry):
            continue
        part.add(entry)
        if part.is_full:
            yield part.take()
    if part.removals or part.entries:
        yield part.take()


class _Gathered:
    """What one segment is to have, by names."""

    def __init__(self, settings: LogSettings) -> None:
        self.removals: dict[bytes, Removal] = {}
        self.entries: dict[bytes, Entry] = {}
        self._settings = settings
        self._size = 0

    def remove(self, removal: Removal) -> None:
        self.removals[removal.name_hash] = removal
        self._size += _REMOVAL_SIZE + len(removal.missing_object) + len(removal.name) + len(removal.version)

    def add(self, entry: Entry) -> None:
        key = name_key(entry.file_info.name)
        if self.entries.get(key) is not entry:
            self.entries[key] = entry
            self._size += entry.raw_size

    @property
    def is_full(self) -> bool:
        return (
            len(self.removals) >= _REMOVALS_AN_ENTRY * self._settings.segment_entries
            or len(self.entries) >= self._settings.segment_entries
            or self._size >= self._settings.segment_size
        )

    def take(self) -> Part:
        taken = tuple(self.removals.values()), tuple(self.entries.values())
        self.removals, self.entries, self._size = {}, {}, 0
        return taken


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
        first, *others = _removals(row, lost)
        removals.append(first)
        more += others
        left = row.without_objects(lost)
        if left is not None:
            entries.append(shortened(left))
    return [*removals, *more], entries


def _removals(row: Row, lost: Collection[NamedObject]) -> list[Removal]:
    """Return what condemns objects of a name, one after the other; it is then missing if the current version is."""
    current = NamedObject.of(row.entry)
    found = [Removal(named.name_hash, named.object_name) for named in lost if named != current]
    if current is None or current not in lost:
        return found
    if not found:
        return [Removal(current.name_hash, current.object_name)]
    # By then another version has taken its place.
    info = row.entry.file_info
    version = info.message.version.SerializeToString()
    return [*found, Removal(current.name_hash, current.object_name, info.name, version)]


def _changes(state: FolderState, removal: Removal) -> bool:
    key = removal.name_hash
    if removal.name and not state.is_missing(key, pb.Vector.FromString(removal.version)):
        return True
    if state.sequence_of(key) is not None:
        return True
    if removal.missing_object:
        return removal.missing_object not in state.condemned(key)
    return state.is_missing(key)
