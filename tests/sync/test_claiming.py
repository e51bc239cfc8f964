"""What devices claim, decline and take over, and what a folder writes of it and shows them: in virtual time, with
devices that judge which version wins."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.file_infos import device, encrypted_name
from tests.simulated import Call, Phase, SimulatedStore
from tests.sync.judging_device import Gateway, Judge, logged, segments, version, virtual_store
from tests.virtual_time import settled, virtual_time
from untrusted_s3.bep.events import RequestReceived

pytestmark = virtual_time

A, B, C = map(device, (1, 2, 3))
MINUTE = 60.0
NOT_YET, BY_THEN = 50.0, 20.0  # of the minute that a device has, and what is left of it with what else it takes


@pytest.fixture
async def store() -> SimulatedStore:
    return virtual_store()


@pytest.fixture
async def gateway(store: SimulatedStore, tmp_path: Path) -> AsyncIterator[Gateway]:
    made = Gateway(store, tmp_path / "one")
    await made.start()
    yield made
    await made.close()


async def meet(judge: Judge, gateway: Gateway, seconds: float = 70.0) -> None:
    """Let a device be connected for some time, alone."""
    await judge.connect(gateway.folder)
    await asyncio.sleep(seconds)
    await judge.disconnect()


async def apart(gateway: Gateway, *, of_a: int = 10, of_b: int = 20, a_wins: bool = True) -> tuple[Judge, Judge]:
    """Return two devices with versions of a file that are in conflict. A's is the current one."""
    a, b = Judge(1), Judge(2)
    a.edit(version("f", of_a, 2 if a_wins else 1))
    await meet(a, gateway)
    b.edit(version("f", of_b, 1 if a_wins else 2))
    return a, b


@pytest.mark.parametrize("a_wins", [True, False])
@pytest.mark.parametrize("numbers", [(10, 20), (20, 10)])
async def test_devices_that_meet_only_here_end_equal(gateway: Gateway, numbers: tuple[int, int], a_wins: bool) -> None:
    a, b = await apart(gateway, of_a=numbers[0], of_b=numbers[1], a_wins=a_wins)
    for judge in (b, a, b, a):
        await meet(judge, gateway)
        await asyncio.sleep(10)
    wins = numbers[0] if a_wins else numbers[1]
    assert a.number("f") == b.number("f") == wins
    assert gateway.numbers("f") == [wins]
    assert gateway.claimed("f") == {A: wins, B: wins}
    assert a.sees_complete() and b.sees_complete()


async def test_both_at_once(gateway: Gateway) -> None:
    a, b = await apart(gateway)
    await a.connect(gateway.folder)
    await b.connect(gateway.folder)
    await asyncio.sleep(200)
    assert a.number("f") == b.number("f") == 10
    assert gateway.numbers("f") == [10]
    assert a.sees_complete() and b.sees_complete()
    await a.disconnect()
    await b.disconnect()


async def test_who_is_only_behind_costs_nothing(gateway: Gateway, store: SimulatedStore) -> None:
    """An older version of a device that takes over the newer one is not even fetched."""
    _, b = await apart(gateway, of_a=20, of_b=10)
    before = len(logged(store))
    await meet(b, gateway, 300)
    assert b.number("f") == 20
    assert len(logged(store)) == before
    assert gateway.claimed("f") == {A: 20, B: 20}


async def test_an_older_version_waits_a_minute(gateway: Gateway, store: SimulatedStore) -> None:
    """A device that stays with an older version is connected for a minute before the version is stored."""
    _, b = await apart(gateway, of_a=20, of_b=10, a_wins=False)
    await b.connect(gateway.folder)
    await asyncio.sleep(NOT_YET)
    assert gateway.numbers("f") == [20]
    await asyncio.sleep(BY_THEN)
    assert gateway.numbers("f") == [20, 10]
    # It has declined A's version, so A is shown its own.
    assert gateway.claimed("f") == {A: 20, B: 10}
    assert b.sees_complete()
    await b.disconnect()


async def test_who_is_away_before_the_minute_is_over_has_another_one(gateway: Gateway) -> None:
    _, b = await apart(gateway, of_a=20, of_b=10, a_wins=False)
    for _ in range(5):
        await meet(b, gateway, NOT_YET)
        assert gateway.numbers("f") == [20]
    await meet(b, gateway, NOT_YET + BY_THEN)
    assert gateway.numbers("f") == [20, 10]


async def test_a_device_that_requests_blocks_is_not_judged(gateway: Gateway) -> None:
    a, b = await apart(gateway, of_a=20, of_b=10, a_wins=False)
    block = a.files[encrypted_name("f")].message.blocks[0]
    request = RequestReceived(1, "folder", encrypted_name("f"), 0, block.size, block.hash, False)
    await b.connect(gateway.folder)
    for _ in range(10):
        await asyncio.sleep(NOT_YET)
        await gateway.folder.requested_block(request, B)
    assert gateway.numbers("f") == [20]
    await asyncio.sleep(NOT_YET + BY_THEN)
    assert gateway.numbers("f") == [20, 10]
    await b.disconnect()


async def test_a_device_that_could_not_is_reminded(gateway: Gateway, store: SimulatedStore) -> None:
    """Its disk was full, say. It is shown what it has declined after ten minutes, and then after twice as long."""
    a, b = await apart(gateway)
    b.waits = True
    await a.connect(gateway.folder)
    await b.connect(gateway.folder)
    await asyncio.sleep(5 * MINUTE)
    assert b.sees_complete() and a.sees_complete()
    before = len(b.sent)
    reminded: list[int] = []
    for minute in range(170):
        await asyncio.sleep(MINUTE)
        if not b.sees_complete() and (not reminded or minute > reminded[-1] + 2):
            reminded.append(minute)
    pauses = [later - sooner for sooner, later in itertools.pairwise(reminded)]
    assert len(reminded) == 4 and all(x * 1.8 < y < x * 2.2 for x, y in itertools.pairwise(pauses))
    assert len(b.sent) - before <= 3 * 2 * len(reminded)
    assert gateway.numbers("f") == [20, 10]
    while b.sees_complete():
        await asyncio.sleep(MINUTE / 2)
    b.try_again()
    await asyncio.sleep(MINUTE)
    assert b.number("f") == 10
    assert gateway.numbers("f") == [10]
    assert a.sees_complete() and b.sees_complete()
    await a.disconnect()
    await b.disconnect()


async def test_a_lasting_difference_costs_less_and_less(gateway: Gateway, store: SimulatedStore) -> None:
    """A send-only device stays with its own, and the others with theirs."""
    a, b = Judge(1, takes_over=False), Judge(2)
    a.edit(version("f", 10, 1))
    await meet(a, gateway)
    b.edit(version("f", 20, 2))
    await a.connect(gateway.folder)
    await b.connect(gateway.folder)
    entries: list[int] = []
    for _ in range(4):
        await asyncio.sleep(600 * 2 ** len(entries))
        entries.append(len(logged(store)))
    assert (a.number("f"), b.number("f")) == (10, 20)
    assert all(later - sooner <= 6 for sooner, later in itertools.pairwise(entries))
    assert a.sees_complete() and b.sees_complete()
    await a.disconnect()
    await b.disconnect()


@pytest.mark.parametrize("keep_state", [True, False])
async def test_restarts_in_the_middle(gateway: Gateway, keep_state: bool) -> None:
    """What was shown and judged is in the log; a minute that had begun begins again."""
    a, b = await apart(gateway)
    await a.connect(gateway.folder)
    await b.connect(gateway.folder)
    for _ in range(8):
        await asyncio.sleep(MINUTE + 10)
        await gateway.restart(a, b, keep_state=keep_state)
    assert a.number("f") == b.number("f") == 10
    await asyncio.sleep(MINUTE)
    assert gateway.numbers("f") == [10]
    assert a.sees_complete() and b.sees_complete()
    await a.disconnect()
    await b.disconnect()


async def test_two_gateways(gateway: Gateway, store: SimulatedStore, tmp_path: Path) -> None:
    """Each device meets one of two gateways on a store, and both meet both."""
    other = Gateway(store, tmp_path / "other")
    await other.start()
    a, b = await apart(gateway)
    await a.connect(gateway.folder)
    await b.connect(other.folder)
    await asyncio.sleep(6 * MINUTE)
    assert a.number("f") == b.number("f") == 10
    assert gateway.numbers("f") == other.numbers("f") == [10]
    assert a.sees_complete() and b.sees_complete()
    await a.disconnect()
    await b.disconnect()
    await other.close()


async def confirming(gateway: Gateway, other: Gateway, *, rank: int) -> Judge:
    """Start another gateway on the store. Return a device that has just confirmed here what a first one made."""
    await other.start()
    a, b = Judge(1), Judge(2)
    a.edit(version("f", 20, rank))
    await meet(a, gateway)
    b.edit(version("f", 20, rank))
    await b.connect(gateway.folder)
    await settled()
    return b


async def test_what_a_device_confirms_as_another_gateway_replaces_it(
    gateway: Gateway, store: SimulatedStore, tmp_path: Path
) -> None:
    """The confirmation is not written yet when the name gets another sequence number."""
    other = Gateway(store, tmp_path / "other")
    b, c = await confirming(gateway, other, rank=2), Judge(3)
    c.edit(version("f", 30, 1))
    c.waits = True
    await c.connect(other.folder)
    await asyncio.sleep(10)
    assert gateway.claimed("f") == {A: 20, B: 20, C: 30}
    c.waits = False
    await asyncio.sleep(4 * MINUTE)
    assert b.number("f") == c.number("f") == 20
    assert b.sees_complete() and c.sees_complete()
    await b.disconnect()
    await c.disconnect()
    await other.close()


async def test_a_device_that_moves_on_after_its_confirmation_came_too_late(
    gateway: Gateway, store: SimulatedStore, tmp_path: Path
) -> None:
    other = Gateway(store, tmp_path / "other")
    b, c = await confirming(gateway, other, rank=1), Judge(3)
    c.edit(version("f", 30, 2))
    await c.connect(other.folder)
    await asyncio.sleep(2 * MINUTE)
    assert gateway.claimed("f") == {A: 20, B: 30, C: 30}
    assert gateway.numbers("f") == [30, 20]
    await b.disconnect()
    await c.disconnect()
    await other.close()


async def test_a_version_that_is_no_longer_wanted_is_not_fetched(gateway: Gateway, store: SimulatedStore) -> None:
    """Nor stored: it waited, and its device takes over the current version meanwhile."""
    _, b = await apart(gateway, of_a=20, of_b=10)
    b.waits = True
    await b.connect(gateway.folder)
    await asyncio.sleep(NOT_YET)
    b.try_again()
    await asyncio.sleep(5 * MINUTE)
    assert gateway.numbers("f") == [20]
    assert [entry.claims for entry in logged(store)] == [None]
    assert gateway.folder.pending_totals == (0, 0)
    await b.disconnect()


async def test_a_device_that_has_forgotten_a_deletion_is_not_shown_it_again(gateway: Gateway) -> None:
    """Syncthing 2 forgets it at some time, and takes over the file of a send-only device then."""
    a, b, c = Judge(1), Judge(2), Judge(3, takes_over=False)
    c.edit(version("f", 10, 1))
    for judge in (c, a, b):
        await meet(judge, gateway)
    a.edit(version("f", 20, 2, gone=True))
    for judge in (a, c):
        await meet(judge, gateway)
    await meet(b, gateway, 20)
    assert b.number("f") == 20
    assert gateway.claimed("f") == {A: 20, B: 20, C: 10}
    del b.files[encrypted_name("f")]
    await meet(b, gateway)
    assert b.number("f") == 10
    for judge in (a, b, a, b):
        await meet(judge, gateway, 40 * MINUTE)
    assert b.number("f") == 10
    assert gateway.claimed("f") == {A: 20, B: 10, C: 10}


# A device that begins its index again


async def test_an_index_that_begins_again_keeps_what_is_disputed(gateway: Gateway) -> None:
    """After `-reset-deltas`, a device announces the same versions under another index id."""
    a, b = await apart(gateway, of_a=20, of_b=10, a_wins=False)
    await meet(b, gateway)
    assert gateway.claimed("f") == {A: 20, B: 10}
    b.reset()
    await meet(b, gateway, 200)
    assert gateway.claimed("f") == {A: 20, B: 10}
    await meet(a, gateway, 200)
    assert a.number("f") == 10


async def test_a_device_that_begins_again_and_only_declined_is_shown_the_name_under_another_number(
    gateway: Gateway,
) -> None:
    """It is shown the current version again, which it had declined, and must not have had it under the same number."""
    _, b = await apart(gateway, of_a=20, of_b=10, a_wins=False)
    await meet(b, gateway)
    c = Judge(3, takes_over=False)
    c.edit(version("g", 5, 1))
    await meet(c, gateway)
    before = gateway.row("f")
    assert before is not None
    assert before.claims.shown(C).number == 10
    c.reset()
    await meet(c, gateway, 10)
    row = gateway.row("f")
    assert row is not None
    assert row.claims.shown(C).number == 20
    assert row.sequence > before.sequence


async def test_an_index_that_begins_again_is_confirmed_again(gateway: Gateway, store: SimulatedStore) -> None:
    a, b = Judge(1), Judge(2)
    for number in range(5):
        a.edit(version(number, 10, 1))
    await meet(a, gateway)
    await meet(b, gateway)
    assert [gateway.claimed(number) for number in range(5)] == [{A: 10, B: 10}] * 5
    before = len(logged(store))
    for _ in range(2):
        b.reset()
        await meet(b, gateway)
        await asyncio.sleep(MINUTE)
        assert [gateway.claimed(number) for number in range(5)] == [{A: 10, B: 10}] * 5
    assert len(logged(store)) == before


async def test_what_a_device_has_forgotten_is_no_longer_shown(gateway: Gateway) -> None:
    """Another device is shown a version whose only device has lost its folder."""
    a, b = await apart(gateway, of_a=20, of_b=10, a_wins=False)
    await meet(b, gateway)
    a.waits = True
    await meet(a, gateway, 10)
    assert not a.sees_complete()
    b.files.clear()
    b.reset()
    await meet(b, gateway, 10)
    assert gateway.numbers("f") == [20]
    await meet(a, gateway, 10)
    assert a.sees_complete()


async def test_what_was_announced_again_meanwhile_is_not_withdrawn(gateway: Gateway) -> None:
    """A device ignores a file and includes it again, with another version, before the log has the first."""
    _, b = await apart(gateway, of_a=20, of_b=10, a_wins=False)
    await b.connect(gateway.folder)
    await asyncio.sleep(NOT_YET + BY_THEN)
    b.ignore("f")
    b.edit(version("f", 11, 3))
    await asyncio.sleep(2 * MINUTE)
    assert gateway.claimed("f") == {A: 20, B: 11}
    b.ignore("f")
    await asyncio.sleep(2 * MINUTE)
    assert gateway.claimed("f") == {A: 20}
    await b.disconnect()


# Crashes


@pytest.mark.parametrize("keep_state", [True, False])
async def test_a_crash_loses_no_confirmation(gateway: Gateway, keep_state: bool) -> None:
    """What a device has announced and nobody has written is announced again."""
    a, b = Judge(1), Judge(2)
    a.edit(version("f", 10, 1))
    await meet(a, gateway)
    b.edit(version("f", 10, 1))
    await b.connect(gateway.folder)
    await settled()
    assert gateway.claimed("f") == {A: 10}, "not in the log yet"
    await gateway.restart(b, keep_state=keep_state)
    await asyncio.sleep(2 * MINUTE)
    assert gateway.claimed("f") == {A: 10, B: 10}
    await b.disconnect()


@pytest.mark.parametrize("keep_state", [True, False])
async def test_a_crash_loses_no_withdrawal(store: SimulatedStore, tmp_path: Path, keep_state: bool) -> None:
    writes = asyncio.Event()

    async def gate(call: Call, phase: Phase) -> None:
        if call.operation == "put":
            await writes.wait()

    writes.set()
    gateway = Gateway(store, tmp_path / "stopped", gate=gate)
    await gateway.start()
    _, b = await apart(gateway, of_a=20, of_b=10, a_wins=False)
    await b.connect(gateway.folder)
    await asyncio.sleep(NOT_YET + BY_THEN)
    assert gateway.claimed("f") == {A: 20, B: 10}
    writes.clear()
    b.ignore("f")
    await settled()
    await b.disconnect()
    await gateway.crash(keep_state=keep_state)
    writes.set()
    await gateway.start()
    await b.connect(gateway.folder)
    await asyncio.sleep(MINUTE)
    assert gateway.claimed("f") == {A: 20}
    await b.disconnect()
    await gateway.close()


async def test_confirmations_are_few_bytes(gateway: Gateway, store: SimulatedStore) -> None:
    """In any order, between entries, and again."""
    a, b = Judge(1), Judge(2)
    infos = [version(number, 10, 1) for number in range(50)]
    for info in infos:
        a.edit(info)
    await a.connect(gateway.folder)
    await asyncio.sleep(10)
    for info in reversed(infos):
        b.edit(info)
    await b.connect(gateway.folder)
    a.edit(version(50, 10, 1))
    await asyncio.sleep(2 * MINUTE)
    assert all(gateway.claimed(number) == {A: 10, B: 10} for number in range(51))
    confirmed = [one for segment in segments(store) for one in segment.confirmations]
    assert all(one.device_id == B for one in confirmed)
    assert sum(len(one.sequences) for one in confirmed) <= 3
    await a.disconnect()
    await b.disconnect()


async def test_a_confirmation_beside_another_change_of_the_name(gateway: Gateway, store: SimulatedStore) -> None:
    """The entry that is written at the same time says all that is claimed of the name."""
    a, b, c = Judge(1), Judge(2), Judge(3, takes_over=False)
    a.edit(version("f", 20, 2))
    await meet(a, gateway)
    c.edit(version("f", 10, 1))
    await c.connect(gateway.folder)
    await asyncio.sleep(NOT_YET)
    b.edit(version("f", 20, 2))
    await b.connect(gateway.folder)
    await asyncio.sleep(BY_THEN)
    assert gateway.claimed("f") == {A: 20, B: 20, C: 10}
    await b.disconnect()
    await c.disconnect()


@pytest.mark.parametrize("delay", [0.0, 0.001, 1.0, 5.0])
async def test_a_device_changes_its_mind_while_its_version_is_on_its_way(
    store: SimulatedStore, tmp_path: Path, delay: float
) -> None:
    """It takes over the folder's version while its own one is fetched or written to the log."""

    async def gate(call: Call, phase: Phase) -> None:
        if call.operation == "put" and phase is Phase.REQUEST:
            await asyncio.sleep(delay)

    gateway = Gateway(store, tmp_path / "slow", gate=gate)
    await gateway.start()
    a, b = Judge(1), Judge(2)
    for number in range(10):
        a.edit(version(number, 20, 2))
    await a.connect(gateway.folder)
    await asyncio.sleep(2 * MINUTE)
    for number in range(10):
        b.edit(version(number, 30, 1))
    await b.connect(gateway.folder)
    await asyncio.sleep(3 * MINUTE)
    assert [gateway.claimed(number) for number in range(10)] == [{A: 20, B: 20}] * 10
    assert [gateway.numbers(number) for number in range(10)] == [[20]] * 10
    assert a.sees_complete() and b.sees_complete()
    await a.disconnect()
    await b.disconnect()
    await gateway.close()


async def test_an_equal_copy_that_wins_makes_no_dissents(gateway: Gateway, store: SimulatedStore) -> None:
    """A device joins with a copy of the folder. Its versions have smaller numbers and win."""
    a, b = Judge(1), Judge(2)
    for number in range(10):
        a.edit(version(number, 20, 1, content=0))
        b.edit(version(number, 10, 2, content=0))
    await meet(a, gateway)
    for judge in (b, a, b):
        await meet(judge, gateway)
    assert [gateway.claimed(number) for number in range(10)] == [{A: 10, B: 10}] * 10
    assert [entry.claims for entry in logged(store)] == [None] * 20
    assert gateway.bucket.count("put") - len(segments(store)) == 10, "objects"
    assert a.sees_complete() and b.sees_complete()


async def test_what_a_gone_author_made_comes_from_another_device(gateway: Gateway) -> None:
    """A cannot give what it announces. B has the same content, under another number."""
    a, b = Judge(1), Judge(2)
    a.edit(version("f", 20, 2, content=0))
    a.gives = False
    await meet(a, gateway, 10)
    assert gateway.numbers("f") == []
    b.edit(version("f", 10, 1, content=0))
    await meet(b, gateway)
    assert gateway.numbers("f") == [10]
    # When A is there again, it has to give nothing.
    await meet(a, gateway, 10)
    assert gateway.claimed("f") == {A: 20, B: 10}


async def test_who_has_the_content_gives_it_for_another_device(gateway: Gateway) -> None:
    """The same, where both are connected."""
    a, b = Judge(1), Judge(2, takes_over=False)
    a.gives = False
    a.edit(version("f", 20, 2, content=0))
    b.edit(version("f", 10, 1, content=0))
    await a.connect(gateway.folder)
    await asyncio.sleep(1)
    await b.connect(gateway.folder)
    await asyncio.sleep(8)
    assert gateway.claimed("f")[A] == 20
    await a.disconnect()
    await b.disconnect()
