"""Gateways by the rules of claims in the middle."""

from __future__ import annotations

import pytest

from tests.claims.checks import I1, I2, check, run
from tests.claims.device import RECEIVE_ONLY_FOLDER, SEND_ONLY, SEND_RECEIVE
from tests.claims.middles import several
from tests.claims.schedules import DAY, MINUTE, Action, Schedule, end, from_seed
from tests.claims.world import World

EACH_MIDDLE = pytest.mark.parametrize(("kind", "middles"), [("claims", 1), ("claims", 2), ("shared", 2)])


@EACH_MIDDLE
def test_schedules_end_as_if_the_devices_had_been_connected_directly(kind: str, middles: int) -> None:
    for seed in range(60):
        assert not run(from_seed(seed, middles=middles), several(kind, middles)), seed


# These ended with something broken, and showed what the rules and the checks lacked.
@pytest.mark.parametrize(
    "seed",
    [1457, 1779, 3711, 3903, 6667, 8164, 9097, 102430, 102767, 104930, 106953, 114102, 114234, 116247, 126792, 144796],
)
def test_schedules_that_did_not_end_so(seed: int) -> None:
    assert not run(from_seed(seed), several("claims"))


@pytest.mark.parametrize("seed", [2345, 2986, 3804, 314617])
def test_schedules_with_two_gateways_that_did_not_end_so(seed: int) -> None:
    assert not run(from_seed(seed, middles=2), several("claims", 2))


@pytest.mark.parametrize("seed", [212503, 216357])
def test_schedules_with_two_gateways_on_a_store_that_did_not_end_so(seed: int) -> None:
    assert not run(from_seed(seed, middles=2), several("shared", 2))


@EACH_MIDDLE
def test_a_deletion_that_devices_have_forgotten_makes_a_conflict_copy_once(kind: str, middles: int) -> None:
    """Syncthing 2 no longer keeps it. It wins over the file of a send-only device, which keeps that."""
    devices = ((SEND_RECEIVE, 2),) * 3 + ((SEND_ONLY, 2),)
    actions = (
        Action(1, "write", 0, "a", number=1),
        Action(MINUTE, "meet", 0),
        Action(MINUTE, "meet", 2),
        Action(1, "delete", 0, "a"),
        Action(1, "meet", 0, number=4),
        Action(MINUTE, "bring", 3, other=2, scanned=False),
        Action(500 * DAY, "pass", 0),
    )
    assert not run(Schedule(devices, middles, actions), several(kind, middles))


def test_what_a_device_heard_directly_and_is_so_no_longer_keeps_it_from_a_file() -> None:
    """The check of the ends allows that, until the two devices meet again."""
    world = World([(SEND_RECEIVE, 1), (RECEIVE_ONLY_FOLDER, 1), (SEND_RECEIVE, 1)], several("claims"))
    first, second, third = world.devices
    world.pass_time(MINUTE)
    first.write("a", 1, world.clock.now)
    first.scan()
    world.pass_time(MINUTE)
    third.write("a", 2, world.clock.now)
    third.scan()
    world.directly([second, third], steps=1, failures=0xFF)
    world.pass_time(MINUTE)
    third.write("a", 1, first.disk["a"].modified)
    third.scan()
    assert not check(world, end(world))
    assert "a" not in second.disk
    world.directly([second, third])
    assert not check(world, end(world))
    assert [device.tree() for device in world.devices] == [{"a": (0, 1)}] * 3


def test_the_check_of_the_ends_still_finds_what_a_device_lacks() -> None:
    """Here the device also heard directly of another one's version, which is what that one still has."""
    world = World([(SEND_RECEIVE, 2)] * 3, several("today"))
    first, second, third = world.devices
    world.pass_time(MINUTE)
    first.write("a", 1, world.clock.now)
    first.scan()
    world.directly([first, third])
    for device in world.devices:
        world.meet([device], world.middles[0])
    world.pass_time(MINUTE)
    second.write("a", 2, world.clock.now)
    second.scan()
    world.pass_time(MINUTE)
    first.write("a", 3, world.clock.now)
    first.scan()
    world.directly([first, third])
    broken = check(world, end(world))
    assert I1 in broken
    assert [second.tree(), third.tree()] == [{"a": (0, 2)}, {"a": (0, 3)}]
    assert any(detail.startswith("device 2: a:") for detail in broken[I2])
