"""Gateways that offer versions by the rules of `untrusted_s3.index.claims`, on a store that several may share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from untrusted_s3.index.claims import Claims

CHANCE = 60.0
FIRST_PAUSE = 600.0
LONGEST_PAUSE = 7 * 86_400.0


@dataclass(slots=True)
class Row:
    sequence: int
    claims: Claims


@dataclass(slots=True)
class Store:
    """What the log says."""

    index_id: int
    rows: dict[str, Row] = field(default_factory=dict)
    cursors: dict[str, tuple[int, int]] = field(default_factory=dict)
    objects: set = field(default_factory=set)
    sequence: int = 0
    entries: int = 0
    now: float = 0.0

    def put(self, name: str, claims: Claims) -> None:
        """Set the claims to a name; whose view of it changes must hear of it."""
        row = self.rows.get(name)
        if row is not None:
            if row.claims == claims:
                return
            devices = [*self.cursors, None]
            if all(row.claims.shown(one) == claims.shown(one) for one in devices):
                row.claims = claims
                return
        self.sequence += 1
        self.entries += 1
        self.rows[name] = Row(self.sequence, claims)

    def know(self, device: str, index_id: int) -> None:
        """Note which index of a device is read: claims of an earlier one are void."""
        known = self.cursors.get(device)
        if known is not None and known[0] == index_id:
            return
        self.cursors[device] = (index_id, 0)
        if known is not None:
            for name, row in list(self.rows.items()):
                if device in row.claims.claimed:
                    self.put(name, row.claims.withdraw(device))


@dataclass(slots=True)
class Session:
    index_id: int
    sent: int
    complete: bool = False
    shown_at: dict[str, float] = field(default_factory=dict)


class Gateway:
    """A gateway of ours. Several may share a store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sessions: dict[str, Session] = {}
        self.pending: dict[str, dict[str, tuple[int, object]]] = {}
        self.received: dict[str, tuple[int, int]] = {}

    # What devices do

    def connect(
        self, device: str, index_id: int, known_index_id: int, known_sequence: int
    ) -> tuple[int, tuple[int, int]]:
        self.store.know(device, index_id)
        if self.received.get(device, (0, 0))[0] != index_id:
            self.received[device] = self.store.cursors[device]
            self.pending[device] = {}
        start = known_sequence if known_index_id == self.store.index_id else 0
        self.sessions[device] = Session(index_id, start)
        return self.store.index_id, self.received[device]
