"""The gateway as it is before claims: the larger number wins, and what has a smaller one is ignored."""

from __future__ import annotations

from collections.abc import Sequence

from tests.claims.device import Clock
from tests.claims.untrusted import Batch, Greeting, Peer
from tests.claims.version import FILE, Announced, EncryptedEntry, Seen


class TodaysGateway:
    """One gateway. Its log is in the bucket; what is pending, and how far each index was read, is on the local disk."""

    def __init__(self, number: int, clock: Clock) -> None:
        self.number = number
        self._index_id = clock.next_index_id()
        self._sequence = 0
        self._current: dict[str, EncryptedEntry] = {}
        self._pending: dict[int, dict[str, Announced]] = {}
        self._known: dict[int, tuple[int, int]] = {}
        self._peers: dict[int, Peer] = {}
        self._sent: dict[int, int] = {}
        self._tried: set[tuple[int, str]] = set()

    def greeting(self, device: int) -> Greeting:
        return Greeting(self._index_id, *self._known.get(device, (0, 0)))

    def connect(self, peer: Peer, greeting: Greeting) -> Greeting:
        number = peer.number
        if self._known.get(number, (0, 0))[0] != greeting.index_id:
            self._known[number] = (greeting.index_id, 0)
            self._pending[number] = {}
        self._peers[number] = peer
        fits = greeting.known_index_id == self._index_id and greeting.known_sequence <= self._sequence
        self._sent[number] = greeting.known_sequence if fits else 0
        self._tried.clear()
        return Greeting(self._index_id, *self._known[number])

    def receive(self, device: int, entries: Sequence[EncryptedEntry], full: bool) -> None:
        pending = self._pending[device]
        index_id, highest = self._known[device]
        if full:
            pending.clear()
            highest = 0
        for sequence, announced in entries:
            highest = max(highest, sequence)
            if not announced.invalid and self._wants(announced):
                pending[announced.name] = announced
            else:
                pending.pop(announced.name, None)
        self._known[device] = (index_id, highest)
        self._tried.clear()

    def _wants(self, announced: Announced) -> bool:
        current = self._current.get(announced.name)
        return current is None or announced.number > current.announced.number

    def to_send(self, device: int) -> Batch | None:
        start = self._sent[device]
        if start >= self._sequence:
            return None
        entries = sorted(entry for entry in self._current.values() if entry.sequence > start)
        self._sent[device] = self._sequence
        return Batch(entries, start == 0)

    def step(self) -> bool:
        candidates = [
            (-announced.number, number, name)
            for number in self._peers
            for name, announced in self._pending[number].items()
            if (number, name) not in self._tried
        ]
        for _, number, name in sorted(candidates):
            self._tried.add((number, name))
            announced = self._pending[number][name]
            if not self._wants(announced):
                del self._pending[number][name]
                continue
            current = self._current.get(name)
            has_data = announced.kind == FILE and not announced.deleted
            same = current is not None and current.announced.content == announced.content
            if not has_data or same or self._peers[number].fetch(announced):
                self._sequence += 1
                self._current[name] = EncryptedEntry(self._sequence, announced)
                del self._pending[number][name]
                return True
        return False

    def disconnect(self, device: int) -> None:
        self._peers.pop(device, None)
        self._sent.pop(device, None)

    def serve(self, announced: Announced) -> bool:
        current = self._current.get(announced.name)
        return current is not None and current.announced.content == announced.content

    def pass_time(self, seconds: int) -> None:
        self._tried.clear()

    def crash(self, lose_state: bool) -> None:
        self._peers.clear()
        self._sent.clear()
        self._tried.clear()
        if lose_state:
            self._pending.clear()
            self._known.clear()

    def stored(self) -> set[tuple[str, Seen]]:
        return {(name, entry.announced.seen) for name, entry in self._current.items()}
