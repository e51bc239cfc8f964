"""What must hold at the end of a schedule."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from tests.claims.device import RETENTION, SEND_ONLY, TrustedDevice
from tests.claims.schedules import Action, Schedule, end, play
from tests.claims.untrusted import UntrustedDevice
from tests.claims.vector import covers
from tests.claims.version import FILE, Version, is_conflict, original, parent
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
    devices = list(zip(world.present, after, strict=True))
    excused = {
        original(name)
        for device in world.present
        for name in list(device.database.rows)
        if device.database.is_behind(name) or _is_shown_what_it_deleted(device, name)
    }
    excused |= set(filter(None, map(parent, excused)))  # where a file comes back, its directory does
    held_up = _held_up(world, after)
    # Some winners cannot be taken over. Syncthing does not delete a directory for the deletion of a file, for example
    # (v2.1.3 lib/model/folder_sendrecv.go, processNeeded). Such a name is never settled.
    stuck = {name for later in after if later.kind != SEND_ONLY for name in later.database.needed}
    for device, later in devices:
        held = {name for number, name in held_up if number == device.number}
        # Of what a device that is held up has, others have no conflict copies, either.
        copied = {name for _, name in held_up}
        _check_files(device, later, excused, held, copied, broken)
        _check_versions(device, later, excused, held, broken)
        _check_needs(device, later, excused, stuck, broken)
    return broken


def _is_shown_what_it_deleted(device: TrustedDevice, name: str) -> bool:
    """Return whether a device lacks a file that it has deleted, as it had forgotten the deletion before it could tell.

    So the untrusted device shows it the file, and nobody knows better. The device takes it over, and then hears of what
    others have, but not where it has a file in place of the directory: then it always lacks it.
    """
    database = device.database
    if name not in database.forgotten or name not in database.needed:
        return False
    directory = parent(name)
    item = None if directory is None else device.disk.get(directory)
    is_shown = any(number >= MIDDLE and not row.deleted for number, row in database.rows[name].items())
    return is_shown and item is not None and item.kind == FILE


def _held_up(world: World, after: Collection[TrustedDevice]) -> set[tuple[int, str]]:
    """Return which devices lack which names though no untrusted device could help.

    There are two reasons. The one is what another trusted device had when they met directly, if that device has
    something else now. Connected directly, the device would hear of that, and take over what it would have then. As
    long as it does not, the other version wins for it, whatever is in the middle.

    The other one is a deletion older than Syncthing 2 keeps it. A device that has forgotten it may take over the file
    from a device that still has it, also directly; a device that has not forgotten it, as nothing has changed there
    since (v2.1.3 internal/db/sqlite/db_service.go, periodic), sends it to the first device that it meets.
    """
    found: set[tuple[int, str]] = set()
    for device, later in zip(world.present, after, strict=True):
        for name in device.database.rows:
            wanted = later.database.row(name) or later.database.global_row(name)
            if wanted is None:
                continue
            outdated = _outdated(world, device, name)
            is_old = wanted.deleted and wanted.modified < world.clock.now - RETENTION
            if any(device.database.comes_before(row, wanted) for row in outdated) or (
                is_old and name in device.database.once_forgotten
            ):
                found.add((device.number, name))
                directory = parent(name)
                if directory is not None and name in device.disk:
                    found.add((device.number, directory))  # with something in it, it is not deleted
                elif directory is not None and not wanted.deleted:
                    found |= {(other.number, directory) for other in world.present}  # it is made for the file
            elif any(row.vector == wanted.vector for row in outdated):
                # It comes to all from this device, which only believes that the other one has it.
                found |= {(other.number, name) for other in world.present}
    return found


def _outdated(world: World, device: TrustedDevice, name: str) -> list[Version]:
    """Return what other trusted devices announced to a device when they met directly, and announce no longer."""
    found = []
    for number, row in device.database.rows[name].items():
        if 0 < number < MIDDLE and not row.flags:
            now = world.devices[number - 1].database.row(name)
            if number in world.gone or now is None or now.flags or _essence(now) != _essence(row):
                found.append(row)
    return found


def _essence(row: Version) -> tuple[object, ...]:
    return row.vector, row.kind, row.deleted, row.content


def _check_files(
    device: TrustedDevice,
    later: TrustedDevice,
    excused: Collection[str],
    held_up: Collection[str],
    copied: Collection[str],
    broken: Broken,
) -> None:
    mine, theirs = device.tree(), later.tree()
    for name in mine.keys() | theirs.keys():
        if mine.get(name) == theirs.get(name) or original(name) in excused or name in held_up:
            continue
        if is_conflict(name) and original(name) in copied:
            continue
        broken.note(I2, f"device {device.number}: {name}: {mine.get(name)}, would be {theirs.get(name)}")


def _check_versions(
    device: TrustedDevice, later: TrustedDevice, excused: Collection[str], held_up: Collection[str], broken: Broken
) -> None:
    database, other = device.database, later.database
    for name in database.sequences.keys() & other.sequences.keys():
        version, changed = database.rows[name][0], other.rows[name][0]
        if version.vector == changed.vector or version.flags or original(name) in excused or name in held_up:
            continue
        broken.note(I5, f"device {device.number}: {name}: {version.vector}, would be {changed.vector}")


def _check_needs(
    device: TrustedDevice, later: TrustedDevice, excused: Collection[str], stuck: Collection[str], broken: Broken
) -> None:
    if device.kind == SEND_ONLY:
        return
    for name in sorted(device.database.needed - later.database.needed):
        # What another trusted device had when they met last is not the untrusted device's affair.
        if device.database.globals[name] >= MIDDLE and original(name) not in excused and name not in stuck:
            broken.note(I4, f"device {device.number} needs {name}: {device.database.global_row(name)}")


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
