"""The index database of a Syncthing device: what it and others have of each name, and which is the global version."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, Protocol, Self, TypeVar

from tests.claims.vector import CONCURRENT_GREATER, EMPTY, EQUAL, GREATER, LESSER, Vector, compare, concurrent, covers

LOCAL: Final = 0


class Row(Protocol):
    """What the database looks at."""

    @property
    def vector(self) -> Vector: ...
    @property
    def modified(self) -> int: ...
    @property
    def deleted(self) -> bool: ...
    @property
    def flags(self) -> int: ...


R = TypeVar("R", bound=Row)


class Database(Generic[R]):
    """Rows by name and device. Device 0 is the local one."""

    __slots__ = (
        "collected",
        "forgotten",
        "generation",
        "globals",
        "index_id",
        "known",
        "needed",
        "once_forgotten",
        "rows",
        "sequence",
        "sequences",
    )

    def __init__(self, generation: int, index_id: int) -> None:
        self.generation = generation
        self.reset(index_id)

    def reset(self, index_id: int) -> None:
        """Forget everything. The index id must be a new one."""
        self.index_id = index_id
        self.sequence = 0
        self.rows: dict[str, dict[int, R]] = {}
        # The device whose row is the global one. After a deletion was forgotten there may be none
        # (v2.1.3 internal/db/sqlite/db_service.go, garbageCollectOldDeletedLocked).
        self.globals: dict[str, int] = {}
        self.needed: set[str] = set()
        self.sequences: dict[str, int] = {}
        # What was received of each device: its index id and highest sequence number.
        self.known: dict[int, tuple[int, int]] = {}
        self.collected = 0
        # The names of which the local device has forgotten a deletion, and those of which it has had nothing since.
        self.once_forgotten: set[str] = set()
        self.forgotten: set[str] = set()

    def copy(self) -> Self:
        """Return an independent copy."""
        other = type(self)(self.generation, self.index_id)
        other.sequence = self.sequence
        other.rows = {name: dict(rows) for name, rows in self.rows.items()}
        other.globals = dict(self.globals)
        other.needed = set(self.needed)
        other.sequences = dict(self.sequences)
        other.known = dict(self.known)
        other.collected = self.collected
        other.once_forgotten = set(self.once_forgotten)
        other.forgotten = set(self.forgotten)
        return other

    def row(self, name: str, device: int = LOCAL) -> R | None:
        """Return a device's row."""
        rows = self.rows.get(name)
        return rows.get(device) if rows is not None else None

    def global_row(self, name: str) -> R | None:
        """Return the global version."""
        device = self.globals.get(name)
        return None if device is None else self.rows[name][device]

    def set_local(self, name: str, row: R) -> None:
        """Store a row of the local device under the next sequence number."""
        self.sequence += 1
        self.sequences[name] = self.sequence
        self.forgotten.discard(name)
        self._set(name, LOCAL, row)

    def remove_local(self, name: str) -> None:
        """Remove the local device's row. Nobody is told."""
        del self.rows[name][LOCAL]
        self.sequences.pop(name, None)
        self._recalculate(name)

    def receive(self, device: int, entries: Iterable[tuple[int, str, R]], full: bool) -> None:
        """Take what another device sent: sequence numbers, names and rows."""
        index_id, highest = self.known.get(device, (0, 0))
        if full:
            self.drop(device)
            highest = 0
        for sequence, name, row in entries:
            self._set(name, device, row)
            highest = max(highest, sequence)
        self.known[device] = (index_id, highest)

    def drop(self, device: int) -> None:
        """Remove all rows of another device."""
        for name in [name for name, rows in self.rows.items() if device in rows]:
            rows = self.rows[name]
            del rows[device]
            self._recalculate(name)
        if device in self.known:
            self.known[device] = (self.known[device][0], 0)

    def greet(self, device: int, index_id: int) -> None:
        """Note another device's index id. If it is new, its rows are out of date (lib/model/indexhandler.go)."""
        if self.known.get(device, (0, 0))[0] != index_id:
            self.drop(device)
            self.known[device] = (index_id, 0)

    def start(self, index_id: int, sequence: int) -> int:
        """Return after which sequence number to send, for a device that knows this much. 0 means a full index."""
        return sequence if index_id == self.index_id and sequence <= self.sequence else 0

    def since(self, sequence: int) -> list[tuple[int, str, R]]:
        """Return the local rows with higher sequence numbers, in order."""
        if sequence >= self.sequence:
            return []
        found = [(number, name) for name, number in self.sequences.items() if number > sequence]
        found.sort()
        return [(number, name, self.rows[name][LOCAL]) for number, name in found]

    def forget_deletions(self, before: int) -> None:
        """Remove what was deleted before a time, of all devices, unless it is still needed. Version 1 never does."""
        if self.generation == 1 or self.collected == self.sequence:
            return
        self.collected = self.sequence
        for name, rows in self.rows.items():
            for device, row in list(rows.items()):
                if not row.deleted or row.modified >= before:
                    continue
                is_global = self.globals.get(name) == device
                if is_global and name in self.needed:
                    continue
                del rows[device]
                if is_global:
                    del self.globals[name]
                if device == LOCAL:
                    del self.sequences[name]
                    self.once_forgotten.add(name)
                    self.forgotten.add(name)
        self.rows = {name: rows for name, rows in self.rows.items() if rows}

    def needs_of(self, device: int) -> list[str]:
        """Return the names for which another device lacks the global version: it is shown at less than 100 %."""
        lacking = self._lacks_1 if self.generation == 1 else self._lacks_2
        return [name for name, holder in self.globals.items() if lacking(self.rows[name], holder, device)]

    def _lacks_1(self, rows: dict[int, R], holder: int, device: int) -> bool:
        """v1.29.5 lib/db/transactions.go, Need."""
        row, best = rows.get(device), rows[holder]
        if best.flags or not best.vector or (best.deleted and row is None):
            return False
        return row is None or not covers(row.vector, best.vector)

    def _lacks_2(self, rows: dict[int, R], holder: int, device: int) -> bool:
        """v2.1.3 internal/db/sqlite/folderdb_global.go, neededGlobalFilesRemote."""
        row, best = rows.get(device), rows[holder]
        if best.flags:
            return False
        if best.deleted:
            return row is not None and not row.deleted and not row.flags
        return row is None or row.vector != best.vector

    def comes_before(self, row: Row, other: Row) -> bool:
        """Return whether one version of a name wins over another one."""
        return (_comes_before_1 if self.generation == 1 else _comes_before_2)(LOCAL, row, LOCAL, other)

    def is_behind(self, name: str) -> bool:
        """Return whether a deletion was forgotten that decided what is needed: the next change of the name decides."""
        best = self.globals.get(name)
        if best is None:
            return True
        needs = name in self.needed
        self._recalculate(name)
        behind = (self.globals.get(name), name in self.needed) != (best, needs)
        self.globals[name] = best
        if needs:
            self.needed.add(name)
        else:
            self.needed.discard(name)
        return behind

    def _set(self, name: str, device: int, row: R) -> None:
        rows = self.rows.get(name)
        if rows is None:
            rows = self.rows[name] = {}
        else:
            rows.pop(device, None)
        rows[device] = row
        self._recalculate(name)

    def _recalculate(self, name: str) -> None:
        rows = self.rows[name]
        if not rows:
            del self.rows[name]
            self.globals.pop(name, None)
            self.needed.discard(name)
            return
        order = _in_order(rows, _comes_before_1 if self.generation == 1 else _comes_before_2)
        place = next((place for place, device in enumerate(order) if not rows[device].flags), 0)
        holder = order[place]
        self.globals[name] = holder
        best = rows[holder]
        if self.generation == 1:
            needed = self._lacks_1(rows, holder, LOCAL)
        else:
            # v2.1.3 internal/db/sqlite/folderdb_update.go, recalcGlobalForFile
            local = rows.get(LOCAL)
            has = best.deleted if local is None else order.index(LOCAL) <= place or local.vector == best.vector
            needed = not has and not best.flags
        if needed:
            self.needed.add(name)
        else:
            self.needed.discard(name)


def _in_order(rows: dict[int, R], before: Callable[[int, Any, int, Any], bool]) -> list[int]:
    """Return the devices, best first: an insertion sort, as Go's slices.SortFunc is for so few."""
    order: list[int] = []
    for device, row in rows.items():
        place = len(order)
        while place and before(device, row, order[place - 1], rows[order[place - 1]]):
            place -= 1
        order.insert(place, device)
    return order


def _comes_before_2(device: int, row: Row, other_device: int, other: Row) -> bool:
    """v2.1.3 internal/db/sqlite/folderdb_update.go, fileRow.Compare."""
    order = compare(row.vector, other.vector)
    if order == GREATER:
        return True
    if order == LESSER:
        return False
    if (row.flags == 0) != (other.flags == 0):
        return row.flags == 0
    if order == EQUAL:
        return device < other_device
    if row.modified != other.modified:
        return row.modified > other.modified
    return order == CONCURRENT_GREATER


def _comes_before_1(device: int, row: Row, other_device: int, other: Row) -> bool:
    """v1.29.5 lib/protocol/bep_fileinfo.go, WinsConflict: the same, but a deletion loses a conflict."""
    in_conflict = concurrent(row.vector, other.vector) and (row.flags == 0) == (other.flags == 0)
    if in_conflict and row.deleted != other.deleted:
        return other.deleted
    return _comes_before_2(device, row, other_device, other)


def local_vector(database: Database[R], name: str) -> Vector:
    """Return the vector of the local row."""
    row = database.row(name)
    return EMPTY if row is None else row.vector
