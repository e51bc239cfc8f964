"""What devices' announcements mean for a folder: what is new to it, what only confirms what it has, and which devices
have had time to take over what they are shown (index/claims.py).

A device that announces an older version than the folder has will mostly take over the folder's within moments. So its
own is stored only when it had its chance and stayed. A device has had its chance when it was sent the folder's version
a while ago, is still connected, and has requested no block since then.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from enum import Enum, auto

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.bep.vector import total
from untrusted_s3.index.changes import Change, Refusal, Reminder, Withdrawal
from untrusted_s3.index.entry import KIND_FILE, kind_of
from untrusted_s3.index.pending import Pending, PendingIndex
from untrusted_s3.index.row import CurrentVersion, RowClaims, VersionKey
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import ClaimSettings
from untrusted_s3.store.layout import name_key
from untrusted_s3.sync.sources import Sources

_NAMES_AT_ONCE = 100


class Meaning(Enum):
    """What an announcement means."""

    NEW = auto()  # it is to be brought in
    KNOWN = auto()  # the folder has it, and knows that the device has it
    CONFIRMS = auto()  # the folder has it as the only version of the name
    ENDS = auto()  # the device no longer announces what it claimed


class _Chances:
    """What a connected device has had time to take over: sequence numbers and when they were sent."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, int]] = deque()
        self._asked = float("-inf")
        self._had = -1
        # All disputed names up to here were looked at for this device, and again for what it declined long ago.
        self.judged = 0
        self.reminded = 0

    def sent(self, sequence: int, now: float) -> None:
        """Note that everything up to a sequence number was sent."""
        if self._sent and now - self._sent[-1][0] < 1:
            self._sent[-1] = (self._sent[-1][0], sequence)
        else:
            self._sent.append((now, sequence))

    def asked(self, now: float) -> None:
        """Note that the device has requested a block."""
        self._asked = now

    def had(self, now: float, chance: float) -> int:
        """Return up to which sequence number the device has had its chance."""
        if self._asked + chance <= now:
            while self._sent and self._sent[0][0] + chance <= now:
                self._had = self._sent.popleft()[1]
        return self._had


class Claiming:
    """The claims of the devices that share a folder."""

    def __init__(
        self,
        state: FolderState,
        pending: PendingIndex,
        sources: Sources,
        settings: ClaimSettings,
        *,
        change: Callable[[Change], None],
        confirm: Callable[[DeviceID, int], None],
        on_chance: Callable[[], None],
        in_work: Callable[[bytes], bool],
        time_of_day: Callable[[], float],
    ) -> None:
        """`change` takes what is to be written to the log, `confirm` a device and a sequence number that it confirms.

        `on_chance` is called when an announcement no longer `has_to_wait`. `in_work` returns whether anything that was
        announced under a name is on its way to the log.
        """
        self._state = state
        self._pending = pending
        self._sources = sources
        self._settings = settings
        self._change = change
        self._confirm = confirm
        self._on_chance = on_chance
        self._in_work = in_work
        self._time_of_day = time_of_day
        self._chances: dict[DeviceID, _Chances] = {}
        # By device: the lowest sequence number for which an announcement waits.
        self._waiting: dict[DeviceID, int] = {}

    # What sessions report

    def joined(self, device_id: DeviceID) -> None:
        """Note that a device is connected. It was sent nothing yet."""
        self._chances[device_id] = _Chances()

    def left(self, device_id: DeviceID) -> None:
        """Note that a device is no longer connected."""
        self._chances.pop(device_id, None)
        self._waiting.pop(device_id, None)

    def sent(self, device_id: DeviceID, sequence: int) -> None:
        """Note that a device was sent our index up to a sequence number."""
        if device_id in self._chances:
            self._chances[device_id].sent(sequence, _loop_time())

    def asked(self, device_id: DeviceID) -> None:
        """Note that a device has requested a block."""
        if device_id in self._chances:
            self._chances[device_id].asked(_loop_time())

    def had_chance(self, device_id: DeviceID, sequence: int) -> bool:
        """Return whether a device had time to take over what it is shown under a sequence number."""
        chances = self._chances.get(device_id)
        return chances is not None and sequence <= chances.had(_loop_time(), self._settings.chance)

    # What announcements mean

    def expect(self, keys: Sequence[bytes]) -> None:
        """Note that announcements of the names with these hashes come: what the folder has of them is read at once."""
        self._state.look_up(keys)

    def take(self, device_id: DeviceID, info: FileInfo, content: str | None) -> Meaning:
        """Return what a file info means that a device announces.

        What CONFIRMS or ENDS a claim is noted for the log. `content` is the content hash of a file with data.
        """
        key = name_key(info.name)
        if info.message.invalid:
            return self._take_invalid(device_id, key)
        current = self._state.current(key)
        if current is None or current.is_older_than(info.message.version):
            return Meaning.NEW
        if not self._sources.judges(device_id):
            return Meaning.KNOWN
        if self._in_work(key):
            return Meaning.NEW  # what is in the log then may be something else, also of this device
        version = VersionKey(total(info.message.version), kind_of(info.message), content or "")
        meaning = self._meaning(device_id, key, version, current)
        if meaning is Meaning.CONFIRMS:
            self._confirm(device_id, current.sequence)
        return meaning

    def _take_invalid(self, device_id: DeviceID, key: bytes) -> Meaning:
        claims = self._state.disputed_claims(key) if self._sources.judges(device_id) else None
        claimed = claims.claimed.get(device_id) if claims is not None else None
        if claimed is None:
            return Meaning.KNOWN
        self._change(Withdrawal(key, device_id, claimed, self._time_of_day()))
        return Meaning.ENDS

    def is_new(self, entry: Pending) -> bool:
        """Return whether a pending entry is still to be brought in."""
        current = self._state.current(entry.name_hash)
        if current is None or current.is_older_than(entry.vector):
            return True
        if not self._sources.judges(entry.device_id):
            return False
        version = self._version(entry)
        if version is None:
            return False
        return self._meaning(entry.device_id, entry.name_hash, version, current) is not Meaning.KNOWN

    def has_to_wait(self, entry: Pending) -> bool:
        """Return whether the device that announces an entry may still take over the folder's version instead."""
        if not self._sources.judges(entry.device_id):
            return False
        current = self._state.current(entry.name_hash)
        if current is None or current.is_older_than(entry.vector) or self.had_chance(entry.device_id, current.sequence):
            return False
        claims = self._state.disputed_claims(entry.name_hash)
        if claims is not None:
            knows = entry.device_id in claims.claimed or self._version(entry) in claims.versions
        else:
            knows = self._state.is_claimed(entry.device_id, current.sequence) or self._version(entry) == current.key
        if knows:
            return False
        waiting = self._waiting.get(entry.device_id, current.sequence)
        self._waiting[entry.device_id] = min(current.sequence, waiting)
        return True

    def _meaning(self, device_id: DeviceID, key: bytes, version: VersionKey, current: CurrentVersion) -> Meaning:
        claims = self._state.disputed_claims(key)
        is_gateway = self._sources.is_gateway(device_id)
        if claims is not None:
            says_nothing = is_gateway and device_id not in claims.claimed and version in claims.claimed.values()
            return Meaning.KNOWN if says_nothing or claims.claimed.get(device_id) == version else Meaning.NEW
        if current.key != version:
            return Meaning.NEW
        if is_gateway:
            return Meaning.KNOWN
        return Meaning.KNOWN if self._state.is_claimed(device_id, current.sequence) else Meaning.CONFIRMS

    def _version(self, entry: Pending) -> VersionKey | None:
        """Return the version of a pending entry, or None if the device has announced another one since."""
        if entry.content_hash is not None:
            return VersionKey(total(entry.vector), KIND_FILE, entry.content_hash)
        info = self._pending.file_info(entry)
        return VersionKey.of(info) if info is not None else None

    # Who declines what

    async def run(self) -> None:
        """Note who declines what it is shown, and show it again from time to time, until cancelled."""
        while True:
            await asyncio.sleep(self._settings.interval)
            self._end_waits()
            for device_id, chances in list(self._chances.items()):
                if self._state.disputed_count and self._sources.judges(device_id):
                    await self._judge(device_id, chances)
                    await self._remind(device_id, chances)

    def _end_waits(self) -> None:
        ended = [device_id for device_id, sequence in self._waiting.items() if self.had_chance(device_id, sequence)]
        for device_id in ended:
            del self._waiting[device_id]
        if ended:
            self._on_chance()

    async def _judge(self, device_id: DeviceID, chances: _Chances) -> None:
        """Look at the disputed names that a device has had time for, a part at a time."""
        had = chances.had(_loop_time(), self._settings.chance)
        for sequence in self._state.disputed_sequences(chances.judged, _NAMES_AT_ONCE):
            if sequence > had:
                return
            chances.judged = sequence
            name = self._state.disputed_name(sequence)
            if name is None:
                continue  # no longer
            if self._declines(device_id, name.claims) and not self._is_pending(device_id, name.key):
                is_gateway = self._sources.is_gateway(device_id)
                self._change(Refusal(name.key, device_id, sequence, self._time_of_day(), is_gateway))
            await asyncio.sleep(0)

    def _declines(self, device_id: DeviceID, claims: RowClaims) -> bool:
        shown = claims.shown(device_id)
        if shown == claims.claimed.get(device_id):
            return False
        if self._sources.is_gateway(device_id):
            return claims.relay(device_id, self._time_of_day()) is not claims
        before = claims.declined_by(device_id).get(shown)
        return before is None or before.shown_again

    def _is_pending(self, device_id: DeviceID, key: bytes) -> bool:
        return any(other.device_id == device_id for other in self._pending.of_name(key))

    async def _remind(self, device_id: DeviceID, chances: _Chances) -> None:
        """Show a device again what it declined long enough ago: perhaps it could not take it over then."""
        now, first, longest = self._time_of_day(), self._settings.first_pause, self._settings.longest_pause
        last = 0
        for sequence in self._state.declined_long_ago(device_id, chances.reminded, now, first, longest, _NAMES_AT_ONCE):
            last = sequence
            name = self._state.disputed_name(sequence)
            if name is None or not self._has_seen_all(device_id, name.claims):
                continue
            for version, declined in name.claims.declined_by(device_id).items():
                pause = min(first * 2 ** min(declined.times - 1, 30), longest)
                if not declined.shown_again and declined.time + pause <= now:
                    self._change(Reminder(name.key, device_id, sequence, version))
                    break
            await asyncio.sleep(0)
        chances.reminded = last

    def _has_seen_all(self, device_id: DeviceID, claims: RowClaims) -> bool:
        own = claims.claimed.get(device_id)
        return claims.shown(device_id) == own or (own is None and self._sources.is_gateway(device_id))


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
