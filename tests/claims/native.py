"""Syncthing's own untrusted device: a receive-encrypted folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.claims.database import LOCAL, Database
from tests.claims.device import RETENTION, Clock
from tests.claims.untrusted import Batch, Greeting, Peer
from tests.claims.vector import Vector
from tests.claims.version import DIRECTORY, ENCRYPTED_MODIFIED, Announced, EncryptedEntry, Seen

_MAINTENANCE_INTERVAL: Final = 8 * 3600


class _Row(NamedTuple):
    vector: Vector
    modified: int
    deleted: bool
    flags: int
    announced: Announced


def _row(announced: Announced) -> _Row:
    return _Row(((1, announced.number),), ENCRYPTED_MODIFIED, announced.deleted, int(announced.invalid), announced)


class NativeDevice:
    """The larger number wins. Version 2 forgets deletions: each encrypted file info says that it is of 2009."""

    def __init__(self, number: int, clock: Clock, generation: int = 2) -> None:
        self.number = number
        self._clock = clock
        self._database: Database[_Row] = Database(generation, clock.next_index_id())
        self._peers: dict[int, Peer] = {}
        self._sent: dict[int, int] = {}
        self._tried: set[str] = set()
        self._until_maintenance = _MAINTENANCE_INTERVAL

    def greeting(self, device: int) -> Greeting:
        return Greeting(self._database.index_id, *self._database.known.get(device, (0, 0)))

    def connect(self, peer: Peer, greeting: Greeting) -> Greeting:
        database = self._database
        database.greet(peer.number, greeting.index_id)
        self._peers[peer.number] = peer
        self._sent[peer.number] = database.start(greeting.known_index_id, greeting.known_sequence)
        self._tried.clear()
        return Greeting(database.index_id, *database.known[peer.number])

    def receive(self, device: int, entries: Sequence[EncryptedEntry], full: bool) -> None:
        rows = [(entry.sequence, entry.announced.name, _row(entry.announced)) for entry in entries]
        self._database.receive(device, rows, full)
        self._tried.clear()

    def to_send(self, device: int) -> Batch | None:
        start = self._sent[device]
        found = self._database.since(start)
        if not found:
            return None
        self._sent[device] = found[-1][0]
        return Batch([EncryptedEntry(number, row.announced) for number, _, row in found], start == 0)

    def step(self) -> bool:
        database = self._database
        for name in sorted(database.needed - self._tried):
            self._tried.add(name)
            best, row = database.global_row(name), database.row(name)
            if best is None:
                continue
            wanted = best.announced
            same = row is not None and not row.deleted and row.announced.content == wanted.content
            if wanted.deleted or wanted.kind == DIRECTORY or same or self._fetch(name, best):
                database.set_local(name, best)
                return True
        return False

    def _fetch(self, name: str, best: _Row) -> bool:
        rows = self._database.rows[name]
        return any(
            peer.fetch(best.announced)
            for number, peer in self._peers.items()
            if (theirs := rows.get(number)) is not None and not theirs.flags and theirs.vector == best.vector
        )

    def disconnect(self, device: int) -> None:
        self._peers.pop(device, None)
        self._sent.pop(device, None)

    def serve(self, announced: Announced) -> bool:
        row = self._database.row(announced.name)
        return row is not None and not row.deleted and row.announced.content == announced.content

    def pass_time(self, seconds: int) -> None:
        self._tried.clear()
        self._until_maintenance -= seconds
        if self._until_maintenance <= 0:
            self._until_maintenance = _MAINTENANCE_INTERVAL
            self._database.forget_deletions(self._clock.now - RETENTION)

    def crash(self, lose_state: bool) -> None:
        """Losing the state is to begin with an empty database: each file has its file info at its end."""
        self._peers.clear()
        self._sent.clear()
        self._tried.clear()
        if lose_state:
            old = self._database
            mine = {name: rows[LOCAL] for name, rows in old.rows.items() if LOCAL in rows}
            self._database = Database(old.generation, self._clock.next_index_id())
            for name in sorted(mine):
                row = mine[name]
                if not row.deleted and row.announced.kind != DIRECTORY:
                    self._database.set_local(name, row)

    def stored(self) -> set[tuple[str, Seen]]:
        return {(name, rows[LOCAL].announced.seen) for name, rows in self._database.rows.items() if LOCAL in rows}
