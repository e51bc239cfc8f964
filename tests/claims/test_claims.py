"""The model: its version vectors, known stories, and direct connections."""

from __future__ import annotations

import random
from itertools import combinations, product
from typing import cast

import pytest
from hypothesis import given, settings

from tests.claims.checks import CALM, I1, I2, I3, Broken, check, run
from tests.claims.device import RECEIVE_ONLY_FOLDER, SEND_ONLY, SEND_RECEIVE, TrustedDevice
from tests.claims.middles import several
from tests.claims.schedules import DAY, Schedule, end, from_seed, schedules
from tests.claims.stories import shrink
from tests.claims.vector import (
    CONCURRENT_GREATER,
    CONCURRENT_LESSER,
    EQUAL,
    GREATER,
    LESSER,
    Vector,
    compare,
    drop_others,
    merge,
    total,
    update,
)
from tests.claims.world import Chained, World, connect_directly

KINDS = ("native", "today")


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((), (), EQUAL),
        (((1, 5),), (), GREATER),
        ((), ((1, 5),), LESSER),
        (((1, 5),), ((1, 5),), EQUAL),
        (((1, 6),), ((1, 5),), GREATER),
        (((1, 5), (2, 1)), ((1, 5),), GREATER),
        (((1, 5),), ((1, 5), (2, 1)), LESSER),
        # The first device that differs tells which concurrent one is the greater.
        (((1, 6),), ((1, 5), (2, 1)), CONCURRENT_GREATER),
        (((1, 5), (2, 1)), ((1, 6),), CONCURRENT_LESSER),
        (((1, 1),), ((2, 1),), CONCURRENT_GREATER),
        (((2, 1),), ((1, 1),), CONCURRENT_LESSER),
        (((1, 1), (3, 9)), ((1, 1), (2, 1)), CONCURRENT_LESSER),
        (((1, 1), (2, 2), (3, 3)), ((2, 3), (3, 3)), CONCURRENT_GREATER),
        (((2, 2),), ((1, 1), (2, 2), (3, 3)), LESSER),
    ],
)
def test_vectors_compare_as_in_syncthing(a: Vector, b: Vector, expected: int) -> None:
    assert compare(a, b) == expected


def test_a_change_raises_the_own_counter_to_the_time() -> None:
    assert update((), 2, 100) == ((2, 100),)
    assert update(((1, 50), (3, 7)), 2, 100) == ((1, 50), (2, 100), (3, 7))
    assert update(((2, 200),), 2, 100) == ((2, 201),)
    assert merge(((1, 5), (2, 3)), ((2, 4), (3, 1))) == ((1, 5), (2, 4), (3, 1))
    assert drop_others(((1, 5), (2, 3)), 2) == ((2, 3),)
    assert total(((1, 5), (2, 3))) == 8


class Pair:
    """Devices A and B that never meet each other, and an untrusted device."""

    def __init__(self, middle: str, generation: int = 2) -> None:
        self.world = World([(SEND_RECEIVE, generation)] * 2, several(middle))
        self.a, self.b = self.world.devices

    def write(self, device: TrustedDevice, name: str, content: int) -> None:
        self.world.pass_time(60)
        device.write(name, content, self.world.clock.now)
        device.scan()

    def delete(self, device: TrustedDevice, name: str) -> None:
        self.world.pass_time(60)
        device.delete(name)
        device.scan()

    def turn(self, times: int = 1) -> None:
        """Each device meets the untrusted one."""
        for _ in range(times):
            for device in self.world.devices:
                self.world.meet([device], self.world.middles[0])

    def end(self) -> Broken:
        return check(self.world, end(self.world))


@pytest.mark.parametrize("middle", KINDS)
def test_edits_of_one_file_by_two_devices_stay_apart(middle: str) -> None:
    pair = Pair(middle)
    pair.write(pair.a, "f", 1)
    pair.turn(2)
    pair.write(pair.b, "f", 2)
    pair.write(pair.a, "f", 3)
    broken = pair.end()
    assert pair.a.tree() == {"f": (0, 3)}
    assert pair.b.tree() == {"f": (0, 2)}
    assert {I1, I2, I3} <= set(broken)
    assert [detail for detail in broken[I3] if detail.startswith("device 2")] == []


@pytest.mark.parametrize("middle", KINDS)
def test_a_file_made_after_its_deletion_was_forgotten(middle: str) -> None:
    pair = Pair(middle)
    pair.write(pair.a, "report.txt", 1)
    pair.turn(2)
    pair.delete(pair.b, "report.txt")
    pair.turn(2)
    pair.world.pass_time(500 * DAY)
    pair.write(pair.a, "report.txt", 2)
    broken = pair.end()
    if middle == "native":
        assert not broken
        assert pair.b.tree() == {"report.txt": (0, 2)}
    else:
        assert {I1, I2, I3} <= set(broken)
        assert pair.b.tree() == {}


@pytest.mark.parametrize("middle", KINDS)
def test_a_directory_that_is_ignored_deleted_elsewhere_and_ignored_no_longer(middle: str) -> None:
    """In version 1 what is there wins over a deletion. In version 2 it does if it was changed after the deletion."""
    pair = Pair(middle, generation=1)
    pair.write(pair.a, "d/x", 1)
    pair.turn(2)
    pair.a.ignore("d")
    pair.turn()
    pair.delete(pair.b, "d")
    pair.turn(2)
    pair.a.take_back_ignore("d")
    broken = pair.end()
    assert {I1, I2, I3} <= set(broken)
    assert pair.a.tree() == {"d": (1, None), "d/x": (0, 1)}
    assert pair.b.tree() == {}


@pytest.mark.parametrize("middle", KINDS)
def test_edits_of_an_ignored_file_that_was_deleted_elsewhere_are_not_stored(middle: str) -> None:
    pair = Pair(middle)
    pair.write(pair.a, "f", 1)
    pair.turn(2)
    pair.a.ignore("f")
    pair.delete(pair.b, "f")
    pair.write(pair.a, "f", 2)
    pair.turn(1)
    pair.a.take_back_ignore("f")
    broken = pair.end()
    assert {I1, I2, I3} <= set(broken)
    assert pair.b.tree() == {}


@pytest.mark.parametrize("middle", KINDS)
def test_a_file_that_was_ignored_for_a_while_is_shown_as_missing(middle: str) -> None:
    """Nothing changed. The modification times are equal, so that the device with the smaller number wins."""
    pair = Pair(middle)
    pair.write(pair.a, "f", 1)
    pair.turn(2)
    pair.b.ignore("f")
    pair.world.pass_time(60)
    pair.b.take_back_ignore("f")
    assert set(pair.end()) == {I1, I3}


def test_a_native_device_forgets_a_deletion_before_another_device_hears_of_it() -> None:
    pair = Pair("native")
    pair.write(pair.a, "f", 1)
    pair.turn(2)
    pair.delete(pair.a, "f")
    pair.world.meet([pair.a], pair.world.middles[0])
    pair.world.pass_time(DAY)
    assert I2 in pair.end()
    assert pair.b.tree() == {"f": (0, 1)}


@pytest.mark.parametrize("middle", KINDS)
def test_changes_one_after_the_other_reach_all(middle: str) -> None:
    pair = Pair(middle)
    for number, (device, name) in enumerate(product((pair.a, pair.b), ("a", "d/x")), 1):
        pair.write(device, name, number)
        pair.turn()
    pair.delete(pair.a, "a")
    assert not pair.end()
    assert pair.a.tree() == pair.b.tree() == {"d": (1, None), "d/x": (0, 4)}


def test_directly_connected_devices_end_equal() -> None:
    """Where no device is special, and no directory stands against a file or its deletion."""
    for seed in range(300):
        generator = random.Random(seed)
        # More devices of version 1 may stay apart: a deletion follows one version and loses against an older one.
        generation, count = generator.choice(((1, 2), (2, 2), (2, 3), (2, 4)))
        world = World([(SEND_RECEIVE, generation)] * count, several("today"))
        for _ in range(20):
            world.pass_time(generator.choice((0, 1, 60)))
            device = generator.choice(world.devices)
            name = generator.choice("abc")
            if generator.random() < 0.6:
                device.write(name, generator.randrange(5), world.clock.now - generator.choice((0, 0, 3600)))
            else:
                device.delete(name)
            device.scan()
            if generator.random() < 0.4:
                connect_directly(generator.sample(world.devices, 2), steps=generator.randrange(9))
        assert connect_directly(world.devices), seed
        assert len({tuple(sorted(device.tree().items())) for device in world.devices}) == 1, seed
        assert not any(device.database.needed for device in world.devices), seed


@pytest.mark.parametrize("kind", [SEND_ONLY, RECEIVE_ONLY_FOLDER])
def test_a_special_device_is_left_as_a_direct_connection_leaves_it(kind: str) -> None:
    world = World([(SEND_RECEIVE, 2), (kind, 2)], several("today"))
    for device in world.devices:
        world.pass_time(60)
        device.write(f"of {device.number}", device.number, world.clock.now)
        device.scan()
    assert not check(world, end(world))
    of_both = {"of 1": (0, 1), "of 2": (0, 2)}
    of_first, of_second = ({"of 1": (0, 1)}, of_both) if kind == RECEIVE_ONLY_FOLDER else (of_both, {"of 2": (0, 2)})
    assert [device.tree() for device in world.devices] == [of_first, of_second]


@settings(max_examples=25, deadline=None)
@given(schedule=schedules())
def test_all_comes_to_rest(schedule: Schedule) -> None:
    for kind in KINDS:
        assert CALM not in run(schedule, several(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_changes_pass_through_a_chain(kind: str) -> None:
    world = World([(SEND_RECEIVE, 2)] * 2, several(kind, 2), chain=True)
    for number, device in enumerate(world.devices * 2, 1):
        world.pass_time(60)
        device.write("f", number, world.clock.now)
        device.scan()
        assert not check(world, end(world))
        assert [device.tree() for device in world.devices] == [{"f": (0, number)}] * 2


@pytest.mark.parametrize(("of_a", "of_b"), [(0, 3600), (3600, 0)])
@pytest.mark.parametrize("kind", ["native", "claims"])
def test_edits_at_both_ends_of_a_chain(kind: str, of_a: int, of_b: int) -> None:
    """`of_a` and `of_b` are the ages of the edits. The one of B has the larger number."""
    world = World([(SEND_RECEIVE, 2)] * 2, several(kind, 2), chain=True)
    a, b = world.devices
    world.pass_time(60)
    a.write("f", 1, world.clock.now)
    a.scan()
    assert not check(world, end(world))
    for content, (device, age) in enumerate(((b, of_b), (a, of_a)), 2):
        world.pass_time(60)
        device.write("f", content, world.clock.now - age)
        device.scan()
    broken = check(world, end(world))
    if kind == "claims":
        assert not broken
        assert a.tree()["f"] == b.tree()["f"] == (0, 3 if of_a < of_b else 2)
    else:
        assert (I2 in broken) == (of_a < of_b)


def test_a_chain_of_gateways_brings_two_devices_together() -> None:
    middles = several("claims", 2)
    for seed in range(100):
        schedule = from_seed(seed, middles=2, chain=True)
        if len(schedule.devices) == 2 and {kind for kind, _ in schedule.devices} == {SEND_RECEIVE}:
            assert not run(schedule, middles), seed


def test_gateways_in_a_ring_come_to_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    def meet_all(world: World, steps: int = 1000, failures: int = 0) -> None:
        for a, b in combinations(world.middles, 2):
            world.join_middles(cast(Chained, a), cast(Chained, b), steps=steps, failures=failures)

    monkeypatch.setattr(World, "meet_chain", meet_all)
    middles = several("claims", 3)
    for seed in range(40):
        schedule = from_seed(seed, middles=3, chain=True)
        if len(schedule.devices) <= 3:
            assert CALM not in run(schedule, middles), seed


def test_a_schedule_that_fails_is_shrunk() -> None:
    middles = several("today")

    def fails(schedule: Schedule) -> bool:
        return I2 in run(schedule, middles)

    schedule = next(schedule for schedule in map(from_seed, range(100)) if fails(schedule))
    shorter = shrink(schedule, fails)
    assert fails(shorter)
    assert len(shorter.actions) < len(schedule.actions)
