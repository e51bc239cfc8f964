"""What must hold at the end of a schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.claims.device import SEND_ONLY
from tests.claims.schedules import Action, Schedule, end, play
from tests.claims.version import Seen
from tests.claims.world import MiddleFactory, World, oracle

CALM: Final = "rest: everything comes to rest"
I1: Final = "I1: each version that a device announces is stored"
I2: Final = "I2: connecting the devices directly changes no file"
I3: Final = "I3: each device sees the untrusted device at 100 %"
I4: Final = "I4: no device needs what it would not need if they were connected directly"
I5: Final = "I5: connecting the devices directly changes no version (nothing is lost if it does)"
ALL: Final = (CALM, I1, I2, I3, I4, I5)


class Broken(dict[str, list[str]]):
    """What does not hold: details by invariant."""

    def note(self, invariant: str, detail: str) -> None:
        self.setdefault(invariant, []).append(detail)


def run(schedule: Schedule, middles: MiddleFactory, tell: Callable[[str], None] | None = None) -> Broken:
    """Play a schedule and its end, and return what does not hold."""
    world = World(schedule.devices, middles)
    for action in schedule.actions:
        play(world, action)
        if tell is not None:
            tell(f"{world.clock.now} {describe(action)}")
            tell(state(world))
    calm = end(world)
    if tell is not None:
        tell("--- the end")
        tell(state(world))
    return check(world, calm)


def check(world: World, calm: bool = True) -> Broken:
    """Return what does not hold now."""
    broken = Broken()
    if not calm:
        broken.note(CALM, "there is always something to do")
    _check_stored(world, broken)
    _check_seen(world, broken)
    after, settled = oracle(world)
    if not settled:
        return broken
    for device, later in zip(world.present, after, strict=True):
        if device.tree() != later.tree():
            broken.note(I2, f"device {device.number} has {device.tree()}, would have {later.tree()}")
        mine = {name: device.database.rows[name][0] for name in device.database.sequences}
        theirs = {name: later.database.rows[name][0] for name in later.database.sequences}
        for name, version in mine.items():
            if name in theirs and theirs[name].vector != version.vector and not version.flags:
                broken.note(I5, f"device {device.number}: {name}: {version.vector}, would be {theirs[name].vector}")
        if device.kind != SEND_ONLY:
            for name in sorted(device.database.needed - later.database.needed):
                broken.note(I4, f"device {device.number} needs {name}: {device.database.global_row(name)}")
    return broken


def _check_stored(world: World, broken: Broken) -> None:
    stored: set[tuple[str, Seen]] = set()
    for middle in world.middles:
        stored |= middle.stored()
    live = {name for name, seen in stored if not seen.deleted}
    for device in world.present:
        for name in device.database.sequences:
            announced = device.announces(name)
            if announced is None or announced.invalid or (name, announced.seen) in stored:
                continue
            if announced.deleted and name not in live:
                continue
            broken.note(I1, f"device {device.number}: {name}: {announced.seen}")


def _check_seen(world: World, broken: Broken) -> None:
    # What nobody has who is there cannot be had.
    held = {
        (name, device.database.rows[name][0].vector)
        for device in world.present
        for name in device.database.sequences
        if not device.database.rows[name][0].flags
    }
    for device in world.present:
        for middle in world.middles:
            for name in device.database.needs_of(middle.number):
                best = device.database.global_row(name)
                if best is not None and (name, best.vector) in held:
                    shown = device.database.row(name, middle.number)
                    broken.note(I3, f"device {device.number}: {name} is {best}, shown {shown}")


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
    for middle in world.middles:
        lines.append(f"    middle {middle.number}: {sorted(middle.stored(), key=str)}")
    return "\n".join(lines)
