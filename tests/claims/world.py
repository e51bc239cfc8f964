"""Devices, untrusted devices in the middle, and how they meet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import combinations, pairwise
from typing import Final, Protocol, cast

from tests.claims.device import Clock, TrustedDevice
from tests.claims.untrusted import Greeting, Peer, UntrustedDevice
from tests.claims.version import DIRECTORY, Announced, EncryptedEntry, Seen, Version, encrypt

# How long a connection stays while nothing moves, at most.
IDLE: Final = (10, 60, 600, 3600)
# The number of the first untrusted device. Trusted ones are numbered from 1.
MIDDLE: Final = 100

_MAINTENANCE_INTERVAL: Final = 8 * 3600
_ENDLESS: Final = 1_000
# A meeting in which so many of these pauses pass, and nothing has moved for so many seconds at its end, is long enough
# to store what a device has. A device that is shown something else has time for that first.
_LONG_ENOUGH: Final = 3
_STILL: Final = 60


class Luck:
    """Which transfers of a meeting fail: the n-th, if the n-th bit is set."""

    __slots__ = ("_bits",)

    def __init__(self, bits: int) -> None:
        self._bits = bits

    def holds(self) -> bool:
        bit = self._bits & 1
        self._bits >>= 1
        return not bit


class _TrustedPeer:
    """A trusted device as an untrusted one sees it."""

    __slots__ = ("_device", "_luck", "number", "relays", "untrusted")

    def __init__(self, device: TrustedDevice, luck: Luck) -> None:
        self._device = device
        self._luck = luck
        self.number = device.number
        self.untrusted = False
        self.relays = False

    def fetch(self, announced: Announced) -> bool:
        return self._luck.holds() and self._device.give_encrypted(announced)


class _UntrustedPeer:
    """An untrusted device as a trusted one or another untrusted one sees it."""

    __slots__ = ("_luck", "_middle", "number", "relays", "untrusted")

    def __init__(self, middle: UntrustedDevice, luck: Luck) -> None:
        self._middle = middle
        self._luck = luck
        self.number = middle.number
        self.untrusted = True
        self.relays = getattr(middle, "relays", False)

    def fetch(self, announced: Announced) -> bool:
        return self._luck.holds() and self._middle.serve(announced)

    def give(self, name: str, version: Version) -> bool:
        return self._luck.holds() and self._middle.serve(encrypt(name, version))


class _Source:
    """A trusted device as another one sees it."""

    __slots__ = ("_device", "_luck", "number")

    def __init__(self, device: TrustedDevice, luck: Luck) -> None:
        self._device = device
        self._luck = luck
        self.number = device.number

    def give(self, name: str, version: Version) -> bool:
        return self._luck.holds() and self._device.give(name, version)


class _ToMiddle:
    """A connection of a trusted device to an untrusted one."""

    __slots__ = ("_sent", "device", "middle", "source")

    def __init__(self, device: TrustedDevice, middle: UntrustedDevice, luck: Luck) -> None:
        self.device = device
        self.middle = middle
        self.source = _UntrustedPeer(middle, luck)
        database = device.database
        greeting = Greeting(database.index_id, *database.known.get(middle.number, (0, 0)))
        answer = middle.connect(_TrustedPeer(device, luck), greeting)
        database.greet(middle.number, answer.index_id)
        self._sent = database.start(answer.known_index_id, answer.known_sequence)
        device.began()

    def send(self) -> bool:
        found = self.device.database.since(self._sent)
        if not found:
            return False
        entries = [EncryptedEntry(number, encrypt(name, row.sent())) for number, name, row in found]
        self.middle.receive(self.device.number, entries, self._sent == 0)
        self._sent = found[-1][0]
        return True

    def receive(self) -> bool:
        batch = self.middle.to_send(self.device.number)
        if batch is None:
            return False
        entries = [(number, announced.name, announced.real) for number, announced in batch.entries]
        self.device.receive(self.middle.number, entries, batch.full)
        return True


class _Direct:
    """A connection of two trusted devices, one direction of it."""

    __slots__ = ("_from", "_sent", "_to")

    def __init__(self, device: TrustedDevice, to: TrustedDevice) -> None:
        self._from = device
        self._to = to
        index_id, sequence = to.database.known.get(device.number, (0, 0))
        to.database.greet(device.number, device.database.index_id)
        self._sent = device.database.start(index_id, sequence)
        to.began()

    def send(self) -> bool:
        found = self._from.database.since(self._sent)
        if not found:
            return False
        entries = [(number, name, row.sent()) for number, name, row in found]
        self._to.receive(self._from.number, entries, self._sent == 0)
        self._sent = found[-1][0]
        return True


MiddleFactory = Callable[[Clock], Sequence[UntrustedDevice]]


class Chained(UntrustedDevice, Protocol):
    """An untrusted device that meets others of its kind."""

    def greeting(self, device: int) -> Greeting:
        """Return what to say to a device that connects, before it is known what it says."""


class World:
    """The state of everything."""

    def __init__(self, kinds: Iterable[tuple[str, int]], middles: MiddleFactory, *, chain: bool = False) -> None:
        """In a chain each device reaches only one of the untrusted devices, which meet each other."""
        self.clock = Clock()
        self.devices = [TrustedDevice(number, *kind, self.clock) for number, kind in enumerate(kinds, 1)]
        self.middles = middles(self.clock)
        # Devices that never come back.
        self.gone: set[int] = set()
        # What was stored after any meeting, and what was not though it was announced for long enough.
        self.history: set[tuple[str, Seen]] = set()
        self.lacking: list[str] = []
        self.chain = chain

    @property
    def present(self) -> list[TrustedDevice]:
        """The devices that are still there."""
        return [device for device in self.devices if device.number not in self.gone]

    def reaches(self, device: TrustedDevice) -> Sequence[UntrustedDevice]:
        """Return the untrusted devices that a device meets."""
        if not self.chain:
            return self.middles
        return self.middles[device.number % len(self.middles) :][:1]

    def pass_time(self, seconds: int) -> None:
        """Let time pass, with maintenance."""
        self.clock.now += seconds
        for middle in self.middles:
            middle.pass_time(seconds)
        if seconds >= _MAINTENANCE_INTERVAL:
            for device in self.devices:
                device.forget_deletions()

    def meet(
        self,
        devices: Sequence[TrustedDevice],
        middle: UntrustedDevice,
        *,
        steps: int = _ENDLESS,
        idle: int = len(IDLE),
        failures: int = 0,
        crash: bool = False,
    ) -> None:
        """Connect devices to an untrusted one, until the steps are used up or nothing has moved for a while.

        It may end with a crash of the untrusted device. What is on its local disk stays.
        """
        pairs = [(device, middle) for device in devices]
        self.meet_several(pairs, steps=steps, idle=idle, failures=failures, crash=crash)

    def meet_several(
        self,
        pairs: Sequence[tuple[TrustedDevice, UntrustedDevice]],
        *,
        steps: int = _ENDLESS,
        idle: int = len(IDLE),
        failures: int = 0,
        crash: bool = False,
    ) -> None:
        """The same with several untrusted devices. Each device is connected to one of them."""
        luck = Luck(failures)
        links = [_ToMiddle(device, middle, luck) for device, middle in pairs]
        idled = still = 0
        while steps > 0:
            moved = 0
            for link in links:
                moved += link.send()
                if moved >= steps:
                    break
                moved += link.receive()
                if moved >= steps:
                    break
                moved += link.middle.step()
                if moved >= steps:
                    break
                moved += link.device.step((link.source,))
                if moved >= steps:
                    break
            steps -= moved
            if moved:
                still = 0
                continue
            if idled >= idle:
                break
            self.pass_time(IDLE[idled])
            still += IDLE[idled]
            idled += 1
            for link in links:
                link.device.began()
        self.history |= self.stored()
        for link in links:
            if steps > 0 and not failures and not crash and idled >= _LONG_ENOUGH and still >= _STILL:
                self._note_lacking(link.device)
            if not crash:
                link.middle.disconnect(link.device.number)
        if crash:
            for middle in {link.middle.number: link.middle for link in links}.values():
                middle.crash(False)

    def stored(self) -> set[tuple[str, Seen]]:
        """Return what the untrusted devices have."""
        return {version for middle in self.middles for version in middle.stored()}

    def _note_lacking(self, device: TrustedDevice) -> None:
        for name in device.database.sequences:
            announced = device.announces(name)
            if announced is None or announced.invalid or announced.deleted or announced.kind == DIRECTORY:
                continue
            item = device.disk.get(name)
            if (name, announced.seen) not in self.history and item is not None and item.content == announced.content:
                self.lacking.append(f"device {device.number}: {name}: {announced.seen}")

    def meet_chain(self, steps: int = _ENDLESS, failures: int = 0) -> None:
        """Connect each untrusted device with the next one."""
        for a, b in pairwise(cast(Sequence[Chained], self.middles)):
            self.join_middles(a, b, steps=steps, failures=failures)

    def join_middles(self, a: Chained, b: Chained, *, steps: int = _ENDLESS, failures: int = 0) -> None:
        """Connect two untrusted devices."""
        luck = Luck(failures)
        to_a: Peer = _UntrustedPeer(a, luck)
        to_b: Peer = _UntrustedPeer(b, luck)
        of_a, of_b = a.greeting(b.number), b.greeting(a.number)
        a.connect(to_b, of_b)
        b.connect(to_a, of_a)
        idled = 0
        while steps > 0:
            moved = 0
            for one, other in ((a, b), (b, a)):
                batch = one.to_send(other.number)
                if batch is not None:
                    other.receive(one.number, batch.entries, batch.full)
                    moved += 1
                moved += other.step()
            steps -= moved
            if moved:
                continue
            if idled >= len(IDLE):
                break
            self.pass_time(IDLE[idled])
            idled += 1
        a.disconnect(b.number)
        b.disconnect(a.number)

    def directly(self, devices: Sequence[TrustedDevice], *, steps: int = _ENDLESS, failures: int = 0) -> bool:
        """Connect trusted devices with each other. Return whether it ended because nothing moved any more."""
        return connect_directly(devices, steps=steps, failures=failures)


def connect_directly(devices: Sequence[TrustedDevice], *, steps: int = 1000, failures: int = 0) -> bool:
    """Connect devices, each with each other. Return whether it ended because nothing moved any more."""
    luck = Luck(failures)
    links = [link for a, b in combinations(devices, 2) for link in (_Direct(a, b), _Direct(b, a))]
    sources = {device.number: _Source(device, luck) for device in devices}
    others = {
        device.number: [source for number, source in sources.items() if number != device.number] for device in devices
    }
    while steps > 0:
        moved = 0
        for link in links:
            moved += link.send()
        for device in devices:
            moved += device.step(others[device.number])
        if not moved:
            return True
        steps -= moved
    return False


def oracle(world: World) -> tuple[list[TrustedDevice], bool]:
    """Return copies of the devices that are there after they were connected directly, and whether they settled."""
    clock = world.clock.copy()
    copies = [device.copy(clock) for device in world.present]
    return copies, connect_directly(copies)
