"""What must hold at the end of a schedule."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from tests.claims.device import SEND_ONLY, TrustedDevice
from tests.claims.schedules import Action, Schedule, end, play
from tests.claims.untrusted import UntrustedDevice
from tests.claims.vector import covers
from tests.claims.version import is_conflict, original
from tests.claims.world import MIDDLE, MiddleFactory, World, oracle

CALM: Final = "rest: everything comes to rest"
I1: Final = "I1: each version that a device announces is stored"
I2: Final = "I2: connecting the devices directly changes no file"
I3: Final = "I3: each device sees the untrusted device at 100 %"
I4: Final = "I4: no device needs what it would not need if they were connected directly"
I5: Final = "I5: connecting the devices directly changes no version (nothing is lost if it does)"
I6: Final = "I6: each file that a device announced while it was connected long enough was stored at some time"
ALL: Final = (CALM, I1, I2, I3, I4, I5, I6)
# For information: some of it depends on who meets whom first. More conflict copies are no difference: a device that has
# taken over a version before it hears of the one that wins keeps a copy.
SAME: Final = "same: each file is as if the devices had been connected directly instead"
COPIES: Final = "copies: no conflict copy lacks that there would be if the devices had been connected directly instead"
COMPARED: Final = (SAME, COPIES)


class Broken(dict[str, list[str]]):
    """What does not hold: details by invariant."""

    def note(self, invariant: str, detail: str) -> None:
        self.setdefault(invariant, []).append(detail)


def run(
    schedule: Schedule, middles: MiddleFactory, tell: Callable[[str], None] | None = None, *, compare: bool = False
) -> Broken:
    """Play a schedule and its end, and return what does not hold. `compare` looks at `COMPARED` too."""
    world = World(schedule.devices, middles, chain=schedule.chain)
    for action in schedule.actions:
        play(world, action)
        if tell is not None:
            tell(f"{world.clock.now} {describe(action)}")
            tell(state(world))
    for device in world.present:
        device.paused = False
        world.clock.now += 1
        device.scan()
    instead = oracle(world) if compare and not world.gone else None
    calm = end(world)
    if tell is not None:
        tell("--- the end")
        tell(state(world))
    broken = check(world, calm)
    if instead is not None and instead[1]:
        for device, other in zip(world.present, instead[0], strict=True):
            _compare(device, other, broken)
    return broken


def _compare(device: TrustedDevice, other: TrustedDevice, broken: Broken) -> None:
    """Compare a device with itself as it would be. The times in the names of conflict copies do not matter."""
    tree, would = device.tree(), other.tree()
    here, there = ({name: what for name, what in one.items() if not is_conflict(name)} for one in (tree, would))
    if here != there:
        broken.note(SAME, f"device {device.number} has {here}, would have {there}")
    has, copies = (
        {(original(name), content) for name, (_, content) in one.items() if content is not None}
        for one in (tree, would)
    )
    if not copies <= has:
        broken.note(COPIES, f"device {device.number} has {tree}, would have {would}")


def check(world: World, calm: bool = True) -> Broken:
    """Return what does not hold now."""
    broken = Broken()
    if not calm:
        broken.note(CALM, "there is always something to do")
    for detail in world.lacking:
        broken.note(I6, detail)
    after, settled = oracle(world)
    _check_stored(world, broken)
    _check_seen(world, after, broken)
    if not settled:
        return broken
    # Who forgot a deletion that was the global version looks at the name again only with its next change.
    forgotten = {
        original(name)
        for device in world.present
        for name in device.database.rows
        if name not in device.database.globals
    }
    for device, later in zip(world.present, after, strict=True):
        _check_directly(device, later, forgotten, broken)
    return broken


def _check_directly(device: TrustedDevice, later: TrustedDevice, forgotten: Collection[str], broken: Broken) -> None:
    mine, theirs = device.tree(), later.tree()
    for name in mine.keys() | theirs.keys():
        if mine.get(name) != theirs.get(name) and original(name) not in forgotten:
            broken.note(I2, f"device {device.number}: {name}: {mine.get(name)}, would be {theirs.get(name)}")
    database, other = device.database, later.database
    for name in database.sequences.keys() & other.sequences.keys():
        version, changed = database.rows[name][0], other.rows[name][0]
        if version.vector != changed.vector and not version.flags and original(name) not in forgotten:
            broken.note(I5, f"device {device.number}: {name}: {version.vector}, would be {changed.vector}")
    if device.kind != SEND_ONLY:
        for name in sorted(database.needed - other.needed):
            # What another trusted device had when they met last is not the untrusted device's affair.
            if database.globals[name] >= MIDDLE:
                broken.note(I4, f"device {device.number} needs {name}: {database.global_row(name)}")


def _check_stored(world: World, broken: Broken) -> None:
    stored = world.stored()
    live = {name for name, seen in stored if not seen.deleted}
    for device in world.present:
        for name in device.database.sequences:
            announced = device.announces(name)
            if announced is None or announced.invalid or (name, announced.seen) in stored:
                continue
            if announced.deleted and name not in live:
                continue
            shown = [device.database.row(name, middle.number) for middle in world.middles]
            if any(one is not None and covers(one.vector, announced.real.vector) for one in shown):
                continue  # a version that includes it is stored
            broken.note(I1, f"device {device.number}: {name}: {announced.seen}")


def _check_seen(world: World, after: Collection[TrustedDevice], broken: Broken) -> None:
    # What nobody has who is there cannot be had.
    held = {
        (name, device.database.rows[name][0].vector)
        for device in world.present
        for name in device.database.sequences
        if not device.database.rows[name][0].flags
    }
    for device in world.present:
        for middle in world.reaches(device):
            for name in device.database.needs_of(middle.number):
                best = device.database.global_row(name)
                if best is None or (name, best.vector) not in held or _is_disputed(name, after):
                    continue
                # What another trusted device had when they met last may be out of date.
                if device.database.globals[name] in (0, middle.number):
                    shown = device.database.row(name, middle.number)
                    broken.note(I3, f"device {device.number}: {name} is {best}, shown {shown}")


def _is_disputed(name: str, devices: Collection[TrustedDevice]) -> bool:
    """Return whether devices that are connected directly still disagree on which version of a name wins.

    Version 1 and 2 may: they judge deletions in conflict otherwise. So may three versions that beat each other in a
    circle.
    """
    best = {row.vector for device in devices if (row := device.database.global_row(name)) is not None and not row.flags}
    return len(best) > 1


def describe(action: Action) -> str:
    """Return a line for a person."""
    return " ".join(f"{key}={value}" for key, value in action.fields().items() if value not in ("", 0, None))


def state(world: World) -> str:
    """Return some lines that say who has what."""
    lines = []
    for device in world.devices:
        gone = " (gone)" if device.number in world.gone else ""
        lines.append(f"    device {device.number} {device.kind} {device.generation}{gone}: {device.tree()}")
        for name, rows in sorted(device.database.rows.items()):
            for number, row in sorted(rows.items()):
                mark = "*" if device.database.globals.get(name) == number else " "
                deleted = "deleted" if row.deleted else f"content {row.content}"
                flags = f" flags {row.flags}" if row.flags else ""
                lines.append(f"      {mark}{name} of {number}: {dict(row.vector)} {row.modified} {deleted}{flags}")
    lines.extend(map(_stored, world.middles))
    return "\n".join(lines)


def _stored(middle: UntrustedDevice) -> str:
    return f"    middle {middle.number}: {sorted(middle.stored(), key=str)}"
