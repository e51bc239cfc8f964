"""Schedules: what happens to some devices, and what must hold at the end."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar

from hypothesis import strategies as st

from tests.claims.device import RECEIVE_ONLY_FOLDER, SEND_ONLY, SEND_RECEIVE
from tests.claims.world import IDLE, World

T = TypeVar("T")
# Chooses a number from 0 up to, but not including, another one.
Choose = Callable[[int], int]

NAMES: Final = (("a",), ("a",), ("a", "b"), ("d", "d/x"), ("a", "d", "d/x"))
MINUTE: Final = 60
HOUR: Final = 3600
DAY: Final = 24 * HOUR
YEAR: Final = 365 * DAY


class Action(NamedTuple):
    """One thing that happens.

    Attributes:
        after: Seconds since the last one.
        device: Which device, from 0.
        other: Another device, or one of the untrusted devices.
        number: A content, or how many steps a meeting has at most.
        age: How much older than now a modification time is, or which transfers fail (bits).
        scanned: Whether the change is scanned at once; whether the copy is an old one; whether the state is lost;
            whether a meeting ends well, not with a crash.
    """

    after: int
    op: str
    device: int
    name: str = ""
    other: int = 0
    number: int = 0
    age: int = 0
    scanned: bool = True

    def fields(self) -> dict[str, Any]:
        """Return the fields by name."""
        return self._asdict()

    def but(self, **changes: Any) -> Action:
        """Return it with other fields."""
        return self._replace(**changes)


class Schedule(NamedTuple):
    """Devices (kind and generation), how many untrusted devices there are, and what happens.

    Attributes:
        chain: Whether each device reaches only one of the untrusted devices, which meet each other.
    """

    devices: tuple[tuple[str, int], ...]
    middles: int
    actions: tuple[Action, ...]
    chain: bool = False

    def but(self, **changes: Any) -> Schedule:
        """Return it with other fields."""
        return self._replace(**changes)


# What happens how often.
_OPS: Final = (
    *("write",) * 22,
    *("delete",) * 10,
    *("meet",) * 34,
    *("pass",) * 5,
    *("rename",) * 3,
    *("make_directory",) * 3,
    *("scan",) * 2,
    *("direct",) * 3,
    *("ignore",) * 2,
    *("take_back_ignore",) * 2,
    *("pause",) * 1,
    *("resume",) * 1,
    *("reset",) * 1,
    *("bring",) * 2,
    *("gone",) * 1,
    *("crash",) * 2,
    *("meet_both",) * 4,
    *("long",) * 1,
)
_AFTER: Final = (1, 1, 1, 1, 7, MINUTE, HOUR, DAY)
_AGES: Final = (0, 0, 0, 0, 1, HOUR, DAY, 30 * DAY, 2 * YEAR)
# Few steps cut a meeting early; 0 means that it is not cut.
_STEPS: Final = (0, 0, 0, 0, 0, 1, 2, 3, 4, 6, 9)
_FAILURES: Final = (0, 0, 0, 0, 1, 2, 5, 0xFF)
_KINDS: Final = (*(SEND_RECEIVE,) * 10, SEND_ONLY, RECEIVE_ONLY_FOLDER)
# Devices of different generations may disagree on deletions, so that no untrusted device can help.
_GENERATIONS: Final = ((1,), (1,), (2,), (2,), (2,), (2,), (2,), (1, 2))
_DEVICES: Final = (2, 2, 2, 3, 3, 4)
_CONTENTS: Final = 3


def draw(choose: Choose, *, middles: int = 1, chain: bool = False, longest: int = 24) -> Schedule:
    """Return a schedule."""

    def one(of: tuple[T, ...]) -> T:
        return of[choose(len(of))]

    generations = one(_GENERATIONS)
    devices = tuple((one(_KINDS), one(generations)) for _ in range(one(_DEVICES)))
    count = len(devices)
    names = one(NAMES)
    actions: list[Action] = []
    fresh = 100
    if choose(4):
        # All begin with the same files.
        for name in names:
            fresh += 1
            actions.append(Action(1, "make_directory" if name == "d" else "write", 0, name, number=fresh))
        actions.extend(Action(MINUTE, "meet", device) for device in (*range(count), 0))
    for _ in range(2 + choose(longest)):
        op = one(_OPS)
        if chain and choose(8) == 0:
            op = "chain"
        after = one(_AFTER)
        device = choose(count)
        if op == "write":
            fresh += 1
            content = 1 + choose(_CONTENTS) if choose(5) == 0 else fresh
            action = Action(after, op, device, one(names), number=content, age=one(_AGES), scanned=choose(5) > 0)
        elif op in ("delete", "make_directory", "ignore", "take_back_ignore"):
            action = Action(after, op, device, one(names), scanned=choose(5) > 0)
        elif op == "rename":
            action = Action(after, op, device, one(names), other=choose(len(names)), scanned=choose(5) > 0)
        elif op in ("meet", "meet_both"):
            other = choose(count) if op == "meet_both" else choose(middles)
            scanned = choose(20) > 0
            action = Action(after, op, device, other=other, number=one(_STEPS), age=one(_FAILURES), scanned=scanned)
        elif op == "direct":
            action = Action(after, op, device, other=choose(count), number=one(_STEPS), age=one(_FAILURES))
        elif op == "bring":
            action = Action(after, op, device, other=choose(count), scanned=choose(2) == 0)
        elif op == "crash":
            action = Action(after, op, 0, other=choose(middles), scanned=choose(2) == 0)
        elif op == "chain":
            action = Action(after, op, 0, number=one(_STEPS), age=one(_FAILURES))
        elif op == "pass":
            action = Action(one((HOUR, DAY, 30 * DAY)), "pass", 0)
        elif op == "long":
            action = Action(500 * DAY, "pass", 0)
        else:
            action = Action(after, op, device)
        actions.append(action)
    if names[-1] == names[0]:
        actions = [action for action in actions if action.op != "rename"]
    else:
        actions = [
            action.but(name=action.name + ">" + names[action.other]) if action.op == "rename" else action
            for action in actions
        ]
    return Schedule(devices, middles, tuple(actions), chain)


def from_seed(seed: int, *, middles: int = 1, chain: bool = False) -> Schedule:
    """Return the schedule of a seed."""
    generator = random.Random(seed)
    below = generator.random

    def choose(count: int) -> int:
        return int(below() * count)

    return draw(choose, middles=middles, chain=chain)


@st.composite
def schedules(draw_: st.DrawFn, middles: int = 1) -> Schedule:
    """The same schedules for hypothesis."""
    return draw(lambda count: draw_(st.integers(0, count - 1)), middles=middles)


def play(world: World, action: Action) -> None:
    """Let one thing happen.

    Time passes before it, so that no two devices make changes in the same second: two first versions of a directory or
    of equal content would look the same to an untrusted device, and yet be different to the devices.
    """
    world.pass_time(max(1, action.after))
    device = world.devices[action.device]
    op = action.op
    if op == "crash":
        world.middles[action.other].crash(action.scanned)
        return
    if op == "chain":
        world.meet_chain(action.number or 10_000, action.age)
        return
    if op == "pass" or device.number in world.gone:
        return
    steps = action.number or 10_000
    idle = len(IDLE) - action.age % 5
    if op in ("write", "delete", "make_directory", "rename"):
        if op == "write":
            device.write(action.name, action.number, world.clock.now - action.age)
        elif op == "delete":
            device.delete(action.name)
        elif op == "make_directory":
            device.make_directory(action.name)
        else:
            device.rename(*action.name.split(">"))
        if action.scanned:
            device.scan()
    elif op == "meet":
        reached = world.reaches(device)
        middle = reached[action.other % len(reached)]
        world.meet([device], middle, steps=steps, idle=idle, failures=action.age, crash=not action.scanned)
    elif op in ("meet_both", "direct"):
        other = world.devices[action.other]
        if other is device or other.number in world.gone:
            return
        if op == "meet_both":
            pairs = [(one, world.reaches(one)) for one in (device, other)]
            several = [(one, reached[one.number % len(reached)]) for one, reached in pairs]
            world.meet_several(several, steps=steps, idle=idle, failures=action.age)
        else:
            world.directly([device, other], steps=steps, failures=action.age)
    elif op == "scan":
        device.scan()
    elif op == "ignore":
        device.ignore(action.name)
    elif op == "take_back_ignore":
        device.take_back_ignore(action.name)
    elif op in ("pause", "resume"):
        device.paused = op == "pause"
    elif op == "reset":
        device.reset_database()
    elif op == "bring":
        source = world.devices[action.other]
        if source is not device:
            device.bring(source.snapshot if action.scanned else source.disk)
            device.scan()
    elif op == "gone" and len(world.present) > 2:
        world.gone.add(device.number)
    if op in ("meet", "reset", "scan"):
        device.snapshot = dict(device.disk)


_ROUNDS: Final = 30
_CALM_ROUNDS: Final = 3
# Devices are shown again what they declined, with growing pauses. In so many rounds nothing must come of that.
_QUIET_ROUNDS: Final = 10
_LONGEST_PAUSE: Final = 5 * DAY


def end(world: World) -> bool:
    """Let nobody change anything, while each device meets the middle in turn. Return whether it came to rest."""
    calm = quiet = 0
    pause = HOUR
    before: object = None
    at_rest: object = None
    for _ in range(_ROUNDS):
        for device in world.present:
            for middle in world.reaches(device):
                world.meet([device], middle)
            world.pass_time(pause)
        if world.chain:
            world.meet_chain()
        pause = min(2 * pause, _LONGEST_PAUSE)
        after = [(device.database.sequence, dict(device.database.known)) for device in world.present]
        calm = calm + 1 if after == before else 0
        if calm == _CALM_ROUNDS:
            return True
        valid = [device.valid_rows() for device in world.present]
        quiet = quiet + 1 if valid == at_rest else 0
        before, at_rest = after, valid
    return quiet >= _QUIET_ROUNDS
