"""A trusted device: its files, its database, scanning and pulling."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple, Protocol

from tests.claims.database import LOCAL, Database
from tests.claims.vector import EMPTY, concurrent, counter, covers, drop_others, merge, update
from tests.claims.version import (
    CONFLICTING,
    DIRECTORY,
    FILE,
    IGNORED,
    RECEIVE_ONLY,
    Announced,
    Version,
    encrypt,
    is_conflict,
    parent,
)

SEND_RECEIVE: Final = "send-receive"
SEND_ONLY: Final = "send-only"
RECEIVE_ONLY_FOLDER: Final = "receive-only"

# v2.1.3 cmd/syncthing/main.go, DBDeleteRetentionInterval
RETENTION: Final = 10_920 * 3600


class Item(NamedTuple):
    """What is on the disk under a name. The modification time of a directory is that of the last change in it."""

    kind: int
    content: int | None
    modified: int


class Source(Protocol):
    """A connected device, for pulling."""

    @property
    def number(self) -> int: ...

    def give(self, name: str, version: Version) -> bool:
        """Return whether the device sends the content of a version."""


class Clock:
    """The time in seconds, and numbers that are used once."""

    __slots__ = ("copies", "index_id", "now")

    def __init__(self, now: int = 1_800_000_000) -> None:
        self.now = now
        self.index_id = 0
        self.copies = 0

    def next_index_id(self) -> int:
        self.index_id += 1
        return self.index_id

    def next_copy(self) -> int:
        self.copies += 1
        return self.copies

    def copy(self) -> Clock:
        other = Clock(self.now)
        other.index_id = self.index_id
        other.copies = self.copies
        return other


class TrustedDevice:
    """A Syncthing of version 1.29 (`generation` 1) or 2.1 (2) with one folder."""

    __slots__ = (
        "_tried",
        "clock",
        "database",
        "disk",
        "generation",
        "ignored",
        "kind",
        "number",
        "paused",
        "snapshot",
        "to_scan",
    )

    def __init__(self, number: int, kind: str, generation: int, clock: Clock) -> None:
        self.number = number
        self.kind = kind
        self.generation = generation
        self.clock = clock
        self.database: Database[Version] = Database(generation, clock.next_index_id())
        self.disk: dict[str, Item] = {}
        self.ignored: set[str] = set()
        self.paused = False
        # The disk as it was some time ago, for those who bring back an old copy.
        self.snapshot: dict[str, Item] = {}
        # Names that pulling left to be scanned.
        self.to_scan: set[str] = set()
        self._tried: set[str] = set()

    def copy(self, clock: Clock) -> TrustedDevice:
        """Return an independent copy with another clock."""
        other = TrustedDevice(self.number, self.kind, self.generation, clock)
        other.database = self.database.copy()
        other.disk = dict(self.disk)
        other.ignored = set(self.ignored)
        other.paused = self.paused
        other.snapshot = self.snapshot
        other.to_scan = set(self.to_scan)
        return other

    # What a person does. Only a scan tells the database.

    def write(self, name: str, content: int, modified: int) -> None:
        """Write a file, also where a directory was."""
        self._make_parent(name)
        if name in self.disk and self.disk[name].kind == DIRECTORY:
            self.delete(name)
        self._put_item(name, Item(FILE, content, modified))

    def make_directory(self, name: str) -> None:
        """Make a directory, also where a file was."""
        self._make_parent(name)
        if name not in self.disk or self.disk[name].kind == FILE:
            self._put_item(name, Item(DIRECTORY, None, self.clock.now))

    def delete(self, name: str) -> None:
        """Delete a file, or a directory with what is in it."""
        for child in self._children(name):
            del self.disk[child]
        self._remove_item(name)

    def rename(self, name: str, to: str) -> None:
        """Rename a file. To Syncthing it is a new file and a deletion."""
        item = self.disk.get(name)
        if item is not None and item.kind == FILE and name != to and parent(to) != name:
            self.delete(name)
            self.write(to, item.content or 0, item.modified)

    def bring(self, disk: dict[str, Item]) -> None:
        """Copy a whole folder over this one, with the modification times that the files had there."""
        for name in sorted(disk):
            if disk[name].kind == DIRECTORY:
                self.make_directory(name)
            else:
                self.write(name, disk[name].content or 0, disk[name].modified)

    def ignore(self, name: str) -> None:
        """Ignore a name and what is in it."""
        self.ignored.add(name)
        self.scan()

    def take_back_ignore(self, name: str) -> None:
        """Ignore a name no longer."""
        self.ignored.discard(name)
        self.scan()

    def reset_database(self) -> None:
        """Begin with an empty database and the files that are there."""
        self.database.reset(self.clock.next_index_id())
        self.scan()

    def forget_deletions(self) -> None:
        """The regular maintenance of version 2."""
        self.database.forget_deletions(self.clock.now - RETENTION)

    def is_ignored(self, name: str) -> bool:
        """Return whether a name or a directory above it is ignored."""
        return bool(self.ignored) and (name in self.ignored or parent(name) in self.ignored)

    def tree(self) -> dict[str, tuple[int, int | None]]:
        """Return what is on the disk: kinds and contents."""
        return {name: (item.kind, item.content) for name, item in self.disk.items()}

    def valid_rows(self) -> dict[str, Version]:
        """Return what the device has and announces as valid."""
        rows = ((name, self.database.rows[name][LOCAL]) for name in self.database.sequences)
        return {name: row for name, row in rows if not row.flags}

    # Scanning (v2.1.3 lib/model/folder.go scanSubdirs, lib/scanner/walk.go).

    def scan(self, names: Collection[str] | None = None) -> bool:
        """Compare the disk with the database, all of it or some names. Return whether there were changes."""
        before = self.database.sequence
        for name in sorted(self.disk if names is None else names):
            item = self.disk.get(name)
            if item is not None and not self.is_ignored(name):
                self._scan_item(name, item)
        for name in sorted(self.database.sequences if names is None else names):
            row = self.database.row(name)
            if row is not None:
                self._scan_row(name, row)
        changed = self.database.sequence != before
        if changed:
            self._tried.clear()
        return changed

    @property
    def _own_flags(self) -> int:
        return RECEIVE_ONLY if self.kind == RECEIVE_ONLY_FOLDER else 0

    def _scan_item(self, name: str, item: Item) -> None:
        row = self.database.row(name)
        flags = self._own_flags
        if row is not None and not row.flags & ~flags and self._unchanged(item, row):
            return
        vector = update(EMPTY if row is None else row.vector, self.number, self.clock.now)
        if row is not None and row.flags & CONFLICTING and not flags:
            vector = drop_others(vector, self.number)
        previous = None if row is None else row.content
        self._put(name, Version(vector, item.modified, item.kind, False, item.content, previous, self.number, flags))

    def _scan_row(self, name: str, row: Version) -> None:
        if self.is_ignored(name):
            if not row.flags & IGNORED:
                self._put(name, row.but(flags=IGNORED, content=None))
        elif row.flags & IGNORED or not row.deleted:
            if name not in self.disk:
                vector = EMPTY if row.flags & CONFLICTING else update(row.vector, self.number, self.clock.now)
                deleted = row.but(
                    vector=vector,
                    modified=self.clock.now,
                    deleted=True,
                    content=None,
                    author=self.number,
                    flags=self._own_flags,
                )
                self._put(name, deleted)
        elif row.flags & RECEIVE_ONLY:
            best = self.database.global_row(name)
            if best is not None and best.flags & RECEIVE_ONLY:
                self.database.remove_local(name)
            elif best is not None and best.deleted:
                self._put(name, row.but(flags=row.flags & ~RECEIVE_ONLY))

    def _put(self, name: str, version: Version) -> None:
        """scanBatch.Update"""
        best = self.database.global_row(name)
        if best is not None:
            if best.flags & RECEIVE_ONLY:
                if version.deleted:
                    if self.database.row(name) is not None:
                        self.database.remove_local(name)
                    return
            elif self.kind == RECEIVE_ONLY_FOLDER and _equivalent(best, version, RECEIVE_ONLY):
                version = best
        self.database.set_local(name, version)

    def _unchanged(self, item: Item, row: Version) -> bool:
        if row.deleted or item.kind != row.kind:
            return False
        return item.kind == DIRECTORY or (item.content == row.content and item.modified == row.modified)

    # The index (v2.1.3 lib/model/indexhandler.go).

    def receive(self, device: int, entries: Iterable[tuple[int, str, Version]], full: bool) -> None:
        """Take index entries of another device, decrypted."""
        self.database.receive(device, entries, full)
        self._tried.clear()

    def began(self) -> None:
        """A connection began: what failed before may work now."""
        self._tried.clear()

    # Pulling (v2.1.3 lib/model/folder_sendrecv.go, folder_sendonly.go).

    def step(self, sources: Collection[Source]) -> bool:
        """Bring in one needed name, or scan what pulling left to be scanned. Return whether the database changed."""
        if self.kind == SEND_ONLY:
            return self._accept()
        if self.paused:
            return False
        for name in self._work():
            before = self.database.sequence
            self._tried.add(name)
            best = self.database.global_row(name)
            if best is not None:
                self._handle(name, best, sources)
            if self.database.sequence != before:
                return True
        if self.to_scan:
            names, self.to_scan = self.to_scan, set()
            return self.scan(names)
        return False

    def _work(self) -> list[str]:
        """Return the needed names in Syncthing's order: directories, files, deletions, deleted directories."""
        names = self.database.needed - self._tried
        if not names:
            return []
        order: list[tuple[int, str]] = []
        for name in names:
            best = self.database.global_row(name)
            if best is None or best.flags & IGNORED:
                continue
            stage = (2 if best.kind == FILE else 3) if best.deleted else (1 if best.kind == FILE else 0)
            order.append((stage, name))
        order.sort()
        deep_first = [name for stage, name in reversed(order) if stage == 3]
        return [name for stage, name in order if stage != 3] + deep_first

    def _handle(self, name: str, best: Version, sources: Collection[Source]) -> None:
        row = self.database.row(name)
        if self.is_ignored(name):
            self.database.set_local(name, best.but(flags=IGNORED, content=None))
        elif best.deleted:
            if best.kind == DIRECTORY:
                self._delete_directory(name, best, row)
            else:
                self._delete_file(name, best, row)
        elif best.kind == DIRECTORY:
            self._pull_directory(name, best, row)
        elif row is not None and row.kind == FILE and row.content is not None and row.content == best.content:
            item = self.disk.get(name)
            if item is not None and item.kind == FILE:
                self.disk[name] = Item(FILE, item.content, best.modified)
            self.database.set_local(name, best)
        else:
            self._pull_file(name, best, row, sources)

    def _pull_file(self, name: str, best: Version, row: Version | None, sources: Collection[Source]) -> None:
        if not self._parent_is_there(name):
            return
        rows = self.database.rows[name]
        holders = [
            source
            for source in sources
            if (theirs := rows.get(source.number)) is not None and not theirs.flags and theirs.vector == best.vector
        ]
        if not holders:
            return
        if not self._has(best.content) and not any(source.give(name, best) for source in holders):
            return
        item = self.disk.get(name)
        if item is not None:
            if row is None or not self._unchanged(item, row):
                self.to_scan.add(name)
                return
            if row.kind == FILE and self._in_conflict(row, best):
                self._move_for_conflict(name, best)
            elif row.kind == DIRECTORY and not self._remove_directory(name):
                return
        self._put_item(name, Item(FILE, best.content, best.modified))
        self.database.set_local(name, best)

    def _pull_directory(self, name: str, best: Version, row: Version | None) -> None:
        if not self._parent_is_there(name):
            return
        item = self.disk.get(name)
        if item is not None and item.kind == FILE:
            if row is None or not self._unchanged(item, row):
                self.to_scan.add(name)
                return
            if self._in_conflict(row, best):
                self._move_for_conflict(name, best)
        if item is None or item.kind == FILE:
            self._put_item(name, Item(DIRECTORY, None, self.clock.now))
        self.database.set_local(name, best)

    def _may_delete(self, name: str, best: Version, row: Version | None) -> bool:
        """checkToBeDeleted, where there is nothing to delete included."""
        item = self.disk.get(name)
        if item is None:
            if row is not None and not row.deleted:
                self.to_scan.add(name)
            else:
                self.database.set_local(name, best)
            return False
        if row is None or not self._unchanged(item, row):
            self.to_scan.add(name)
            return False
        return True

    def _delete_file(self, name: str, best: Version, row: Version | None) -> None:
        if not self._may_delete(name, best, row):
            return
        assert row is not None
        if row.kind == DIRECTORY:
            return
        if self._in_conflict(row, best):
            if self.generation == 1:
                # v1.29.5: "deletions always lose"
                self.database.set_local(name, row.but(vector=merge(row.vector, best.vector)))
                return
            self._move_for_conflict(name, best)
        self._remove_item(name)
        self.database.set_local(name, best)

    def _delete_directory(self, name: str, best: Version, row: Version | None) -> None:
        if self._may_delete(name, best, row) and self._remove_directory(name):
            self.database.set_local(name, best)

    def _remove_directory(self, name: str) -> bool:
        """deleteDirOnDisk. It also removes a file."""
        known = changed_here = False
        for child in self._children(name):
            if self.is_ignored(child):
                return False
            row = self.database.row(child)
            if row is None or row.deleted or not self._unchanged(self.disk[child], row):
                self.to_scan.add(child)
                return False
            if row.flags & RECEIVE_ONLY and self.kind == RECEIVE_ONLY_FOLDER:
                changed_here = True
            else:
                known = True
        if changed_here:
            self.to_scan.add(name)
            return True
        if known:
            return False
        self._remove_item(name)
        return True

    def _in_conflict(self, row: Version, best: Version) -> bool:
        """Return whether what is here is to be kept beside what comes."""
        if self.generation == 1:
            # v1.29.5 lib/model/folder_sendrecv.go, inConflict
            mine = counter(best.vector, self.number) > counter(row.vector, self.number)
            return mine or concurrent(row.vector, best.vector)
        # v2.1.3 lib/protocol/bep_fileinfo.go, InConflictWith
        if covers(best.vector, row.vector):
            return False
        return best.previous is None or best.content is None or best.previous != row.content

    def _move_for_conflict(self, name: str, best: Version) -> None:
        item = self.disk.pop(name)
        if is_conflict(name):
            return
        copy = f"{name}.conflict-{self.clock.next_copy()}-{best.author}"
        self._put_item(copy, item)
        self.to_scan.add(copy)

    def _accept(self) -> bool:
        """folder_sendonly.go, pull: take over versions that are the same, and what is not here."""
        changed = False
        for name in sorted(self.database.needed):
            best = self.database.global_row(name)
            if best is None or best.flags & IGNORED:
                continue
            row = self.database.row(name)
            if self.is_ignored(name):
                self.database.set_local(name, best.but(flags=IGNORED, content=None))
            elif (row is None and best.deleted) or (row is not None and _equivalent(best, row, 0)):
                self.database.set_local(name, best)
            else:
                continue
            changed = True
        return changed

    def give(self, name: str, version: Version) -> bool:
        """Another device asks for the content of a version: it gets what is in the file now, if that is it."""
        item = self.disk.get(name)
        return item is not None and item.kind == FILE and item.content == version.content and not self.is_ignored(name)

    def give_encrypted(self, announced: Announced) -> bool:
        """The same for an untrusted device, which asks by encrypted name and tokens."""
        item = self.disk.get(announced.name)
        found = item is not None and item.kind == FILE and item.content == announced.content
        return found and not self.is_ignored(announced.name)

    def announces(self, name: str) -> Announced | None:
        """Return what the device announces of a name now, to an untrusted device."""
        row = self.database.row(name)
        return None if row is None else encrypt(name, row.sent())

    def _has(self, content: int | None) -> bool:
        """Return whether the blocks of a content are in another file here."""
        return any(
            rows[LOCAL].content == content and name in self.disk and self.disk[name].content == content
            for name, rows in self.database.rows.items()
            if LOCAL in rows
        )

    def _children(self, name: str) -> list[str]:
        prefix = name + "/"
        return [child for child in self.disk if child.startswith(prefix)]

    def _put_item(self, name: str, item: Item) -> None:
        self.disk[name] = item
        self._touch_parent(name)

    def _remove_item(self, name: str) -> None:
        if self.disk.pop(name, None) is not None:
            self._touch_parent(name)

    def _touch_parent(self, name: str) -> None:
        directory = parent(name)
        if directory is not None and directory in self.disk:
            self.disk[directory] = Item(DIRECTORY, None, self.clock.now)

    def _make_parent(self, name: str) -> None:
        directory = parent(name)
        if directory is not None:
            self.make_directory(directory)

    def _parent_is_there(self, name: str) -> bool:
        """checkParent: a missing parent is made and scanned later."""
        directory = parent(name)
        if directory is None:
            return True
        item = self.disk.get(directory)
        if item is None:
            self._put_item(directory, Item(DIRECTORY, None, self.clock.now))
            self.to_scan.add(directory)
            return True
        return item.kind == DIRECTORY


def _equivalent(a: Version, b: Version, ignored_flags: int) -> bool:
    """v2.1.3 lib/protocol/bep_fileinfo.go, isEquivalent."""
    if a.kind != b.kind or a.deleted != b.deleted:
        return False
    if bool(a.flags & ~ignored_flags) != bool(b.flags & ~ignored_flags):
        return False
    return a.kind == DIRECTORY or (a.modified == b.modified and a.content == b.content)
