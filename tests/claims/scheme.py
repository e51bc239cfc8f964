"""Gateways that offer versions by the rules of `untrusted_s3.index.claims`, on a store that several may share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.claims.device import Clock
from tests.claims.untrusted import Batch, Greeting, Peer
from tests.claims.version import Announced, EncryptedEntry, Seen
from untrusted_s3.index.claims import Claims

# A device that was shown a version for so many seconds has had its chance to take it over.
CHANCE: Final = 60
# After so many seconds a device is shown a version again that it declined; twice as many after each time.
FIRST_PAUSE: Final = 600
LONGEST_PAUSE: Final = 365 * 86_400
_UNKNOWN: Final = -1


@dataclass(slots=True)
class Row:
    """What the log has under a name: its sequence number, the claims, and the announcements by version."""

    sequence: int
    claims: Claims[int, Seen]
    announced: dict[Seen, Announced]


@dataclass(slots=True)
class Store:
    """What the log of a bucket says. Gateways append by compare-and-swap, so each works on its end."""

    index_id: int
    rows: dict[str, Row] = field(default_factory=dict)
    cursors: dict[int, tuple[int, int]] = field(default_factory=dict)
    sequence: int = 0
    entries: int = 0

    def put(self, name: str, claims: Claims[int, Seen], announced: Announced | None = None) -> bool:
        """Set the claims to a name. Return whether that is anything new."""
        row = self.rows.get(name)
        known = {} if row is None else row.announced
        if announced is not None:
            known = {announced.seen: announced, **known}
        known = {version: known[version] for version in claims.versions}
        if row is not None:
            if row.claims == claims:
                return False
            if all(row.claims.shown(device) == claims.shown(device) for device in (*self.cursors, _UNKNOWN)):
                row.claims, row.announced = claims, known
                return True
        self.sequence += 1
        self.entries += 1
        self.rows[name] = Row(self.sequence, claims, known)
        return True

    def know(self, device: int, index_id: int) -> None:
        """Note which index of a device is read. With another one than before, its claims are void."""
        known = self.cursors.get(device)
        if known is not None and known[0] == index_id:
            return
        self.cursors[device] = (index_id, 0)
        if known is not None:
            for name, row in list(self.rows.items()):
                self.put(name, row.claims.forget(device))


@dataclass(slots=True)
class _Session:
    peer: Peer
    sent: int
    full: bool
    shown: dict[str, int] = field(default_factory=dict)  # when the peer was sent what it is shown


class Gateway:
    """A gateway of ours."""

    relays = True

    def __init__(self, number: int, clock: Clock, store: Store | None = None) -> None:
        self.number = number
        self.store = store if store is not None else Store(clock.next_index_id())
        self._clock = clock
        self._sessions: dict[int, _Session] = {}
        self._pending: dict[int, dict[str, EncryptedEntry]] = {}
        self._received: dict[int, tuple[int, int]] = {}

    def greeting(self, device: int) -> Greeting:
        """Return what is said to an untrusted device first."""
        return Greeting(self.store.index_id, *self._received.get(device, (0, 0)))

    def connect(self, peer: Peer, greeting: Greeting) -> Greeting:
        """A device connects."""
        device = peer.number
        self.store.know(device, greeting.index_id)
        if self._received.get(device, (0, 0))[0] != greeting.index_id:
            self._received[device] = self.store.cursors[device]
            self._pending[device] = {}
        known = greeting.known_index_id == self.store.index_id and greeting.known_sequence <= self.store.sequence
        start = greeting.known_sequence if known else 0
        session = self._sessions[device] = _Session(peer, start, start == 0)
        for name, row in self.store.rows.items():
            if row.sequence <= start:
                session.shown[name] = self._clock.now
        return Greeting(self.store.index_id, *self._received[device])

    def receive(self, device: int, entries: Sequence[EncryptedEntry], full: bool) -> None:
        """A device sends index entries."""
        pending = self._pending[device]
        index_id, highest = self._received[device]
        if full:
            pending.clear()
            highest = 0
        for entry in entries:
            highest = max(highest, entry.sequence)
            pending.pop(entry.announced.name, None)
            pending[entry.announced.name] = entry
        self._received[device] = (index_id, highest)
        self._move_cursor(device)

    def _move_cursor(self, device: int) -> None:
        index_id, highest = self._received[device]
        waiting = self._pending[device].values()
        reached = min((entry.sequence - 1 for entry in waiting), default=highest)
        if self.store.cursors[device][0] == index_id:
            self.store.cursors[device] = (index_id, max(reached, self.store.cursors[device][1]))

    def to_send(self, device: int) -> Batch | None:
        """Return what the device has not been sent yet."""
        session = self._sessions[device]
        found = [(row.sequence, name) for name, row in self.store.rows.items() if row.sequence > session.sent]
        if not found and not session.full:
            return None
        entries = []
        for sequence, name in sorted(found):
            row = self.store.rows[name]
            entries.append(EncryptedEntry(sequence, row.announced[row.claims.shown(device)]))
            session.shown[name] = self._clock.now
            session.sent = sequence
        full, session.full = session.full, False
        return Batch(entries, full)

    def step(self) -> bool:
        """Handle one announced entry, or note that a device declines what it is shown."""
        for device, session in self._sessions.items():
            for name, entry in list(self._pending[device].items()):
                if self._handle(device, session, entry):
                    del self._pending[device][name]
                    self._move_cursor(device)
                    return True
            if (session.peer.relays or not session.peer.untrusted) and self._judge(device, session):
                return True
        return False

    def _handle(self, device: int, session: _Session, entry: EncryptedEntry) -> bool:
        """Return whether the entry is done with."""
        announced = entry.announced
        name, version = announced.name, announced.seen
        row = self.store.rows.get(name)
        judges = not session.peer.untrusted or session.peer.relays
        if announced.invalid:
            if row is not None and judges:
                self.store.put(name, row.claims.withdraw(device, self._clock.now))
            return True
        if row is None:
            if not self._fetch(session, announced):
                return False
            self.store.put(name, Claims(version, {device: version} if judges else {}), announced)
            return True
        if not judges and version.number <= row.claims.current.number:
            return True
        if session.peer.relays:
            claims = row.claims.relayed(device, version)
        else:
            claims = row.claims.claim(device, version, self._clock.now) if judges else row.claims.replaced(version)
        if version not in row.announced:
            is_behind = version.number <= row.claims.current.number and device not in row.claims.claimed
            if is_behind:
                if not self._had_chance(session, name):
                    return False
                if version.has_same_content(row.claims.current):
                    claims = row.claims.replaced(version, device)
                else:
                    claims = claims.decline(
                        device, row.claims.current, self._clock.now, shown_again=session.peer.relays
                    )
            if not self._fetch(session, announced):
                return False
        self.store.put(name, claims, announced)
        return True

    def _fetch(self, session: _Session, announced: Announced) -> bool:
        return announced.deleted or announced.content is None or session.peer.fetch(announced)

    def _had_chance(self, session: _Session, name: str) -> bool:
        return self.store.rows[name].sequence <= session.sent and session.shown[name] + CHANCE <= self._clock.now

    def _judge(self, device: int, session: _Session) -> bool:
        for name, row in self.store.rows.items():
            claims = row.claims
            own = claims.claimed.get(device)
            if name in self._pending[device] or (own is None and not claims.dissents):
                continue
            shown = claims.shown(device)
            if session.peer.relays:
                after = claims.relay(device, self._clock.now)
            else:
                before = claims.declined_by(device).get(shown)
                declines = shown != own and (before is None or before.shown_again)
                after = claims.decline(device, shown, self._clock.now) if declines else claims
            if after is not claims:
                if self._had_chance(session, name):
                    return self.store.put(name, after)
                continue
            for version, declined in claims.declined_by(device).items():
                pause = min(FIRST_PAUSE * 2 ** (declined.times - 1), LONGEST_PAUSE)
                if not declined.shown_again and declined.time + pause <= self._clock.now:
                    return self.store.put(name, claims.show_again(device, version))
        return False

    def disconnect(self, device: int) -> None:
        """The connection ended."""
        del self._sessions[device]

    def serve(self, announced: Announced) -> bool:
        """Return whether a content is stored."""
        row = self.store.rows.get(announced.name)
        return row is not None and any(version.content == announced.content for version in row.announced)

    def pass_time(self, seconds: int) -> None:
        """Time passes."""

    def crash(self, lose_state: bool) -> None:
        """The process ends and starts again."""
        self._sessions.clear()
        if lose_state:
            self._pending.clear()
            self._received.clear()

    def stored(self) -> set[tuple[str, Seen]]:
        """Return the versions that are stored now."""
        return {(name, version) for name, row in self.store.rows.items() for version in row.announced}
