"""What the entries of a segment mean for the pending entries that they were made from."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.vector import is_newer
from untrusted_s3.index.changes import Announcement
from untrusted_s3.index.entry import Entry, PeerCursor
from untrusted_s3.index.pending import Pending, PendingIndex
from untrusted_s3.index.state import FolderState


class HandledEntries:
    """Who announces what goes to the log, and which pending entries are handled then.

    Attributes:
        heard: The devices whose index states are known from themselves in this run; the pending index may be out of
            date about others, so only the cursors of these are written.
    """

    def __init__(
        self,
        state: FolderState,
        pending: PendingIndex,
        is_trusted: Callable[[DeviceID], bool],
        is_gateway: Callable[[DeviceID], bool],
        had_chance: Callable[[DeviceID, int], bool],
    ) -> None:
        """The functions are those of LogWriter."""
        self.heard: set[DeviceID] = set()
        self._state = state
        self._pending = pending
        self._is_trusted = is_trusted
        self._is_gateway = is_gateway
        self._had_chance = had_chance

    def announcements(
        self, batch: list[tuple[Pending, Entry]], announced_by: Mapping[bytes, list[Pending]], time: float
    ) -> list[Announcement]:
        """Return who announces what is in entries at a time, in seconds since 1970 UTC.

        `announced_by` has all pending entries of their names.
        """
        found = (self._announcement(*one, announced_by[one[0].name_hash], time) for one in batch)
        return [one for one in found if one is not None]

    def _announcement(self, pending: Pending, entry: Entry, others: list[Pending], time: float) -> Announcement | None:
        """Return who announces what is in an entry. `others` are all pending entries of its name.

        That is its device, too, if it has announced something else since: that comes next. None if it no longer
        announces anything under the name, nor does anybody else announce this.
        """
        announcing = [
            other.device_id
            for other in others
            if (other.version == pending.version and other.content_hash == pending.content_hash)
            or other.device_id == pending.device_id
        ]
        if not announcing:
            return None
        trusted = tuple(filter(self._is_trusted, announcing))
        gateways = tuple(filter(self._is_gateway, announcing))
        return Announcement(entry, trusted, time, self._had_chance, gateways)

    def handled_by(
        self, batch: list[tuple[Pending, Entry]], announced_by: Mapping[bytes, list[Pending]]
    ) -> list[Pending]:
        """Return the pending entries that are handled once these entries are in the log."""
        return [
            other
            for pending, _ in batch
            for other in announced_by[pending.name_hash]
            if self._is_handled(other, pending)
        ]

    def _is_handled(self, other: Pending, pending: Pending) -> bool:
        """Return whether an entry is done with when another one of the same name is in the log."""
        if self._is_trusted(other.device_id) or self._is_gateway(other.device_id):
            return other.version == pending.version and other.content_hash == pending.content_hash
        return not is_newer(other.vector, pending.vector)

    def moved_cursors(self, handled: list[Pending]) -> list[PeerCursor]:
        """Return how far devices' indexes are handled once these entries are, where that is new to the log."""
        by_device: dict[DeviceID, list[int]] = {}
        for pending in set(handled):
            by_device.setdefault(pending.device_id, []).append(pending.sequence)
        cursors = []
        for device_id in self.heard:
            reached = self._pending.handled(device_id, by_device.get(device_id, ()))
            known = self._state.cursor(device_id)
            moved = reached.index_id != known.index_id or reached.max_sequence > known.max_sequence
            # Of an index that is another one than before, the beginning is told too: it voids what the device claimed.
            if reached.index_id and moved and (reached.max_sequence > 0 or known.index_id):
                cursors.append(PeerCursor(device_id, reached.index_id, reached.max_sequence))
        return cursors
