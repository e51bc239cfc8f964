"""What keeps an entry out of the log: an object that is, or may be, deleted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.file_infos import deleted, entry, file
from tests.index.gateways import KEYS, SimulatedGateway
from tests.simulated import Call, Fault, SimulatedBucket, SimulatedClock
from untrusted_s3.errors import ObjectIsGarbage, StoreUnreachable
from untrusted_s3.index.entry import NAMED_ONLY, Entry, NamedObject, Removal
from untrusted_s3.store.garbage import GARBAGE_RULES, Candidate, GarbageRecord, write_garbage
from untrusted_s3.store.layout import name_key

ONE, OTHER = entry(file("f", 1)), entry(file("f", 2, content=2))


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[SimulatedGateway]:
    gateway = SimulatedGateway(SimulatedBucket(), 1, tmp_path)
    yield gateway
    gateway.close()


def seen(one: Entry, time: float | None) -> Entry:
    assert one.stored is not None
    return replace(one, stored=replace(one.stored, seen=time))


async def note(gateway: SimulatedGateway, *entries: Entry) -> None:
    """Write down that the objects of entries are to be deleted."""
    named = [named for one in entries if (named := NamedObject.of(one)) is not None]
    candidates = [Candidate(one.name_hash, one.object_name, one.size) for one in named]
    await write_garbage(gateway.bucket, KEYS, GarbageRecord.new(gateway.clock(), candidates))


def looks(gateway: SimulatedGateway) -> int:
    return sum(call.operation == "list" and call.key == KEYS.garbage for call in gateway.bucket.calls)


def pass_time(gateway: SimulatedGateway, seconds: float) -> None:
    assert isinstance(gateway.bucket.store.clock, SimulatedClock)
    gateway.bucket.store.clock.now += seconds


async def test_the_records_are_read_when_the_last_look_is_too_old(gateway: SimulatedGateway) -> None:
    await gateway.log.append([entry(deleted("g"))])
    assert looks(gateway) == 0, "nothing is named"
    await gateway.log.append([entry(file("g", 2))])
    await gateway.log.append([entry(file("h", 1))])
    assert looks(gateway) == 1
    await note(gateway, ONE)
    pass_time(gateway, GARBAGE_RULES.look - 1)
    await gateway.log.append([entry(file("i", 1))])
    assert looks(gateway) == 1
    pass_time(gateway, 2)
    with pytest.raises(ObjectIsGarbage):
        await gateway.log.append([ONE])
    assert looks(gateway) == 2
    await gateway.log.append([OTHER])
    assert gateway.log.garbage.keeps_out(ONE)


async def test_nothing_is_written_while_the_records_cannot_be_read(gateway: SimulatedGateway) -> None:
    def fault(call: Call) -> Fault | None:
        return Fault.UNREACHABLE if KEYS.garbage in call.key else None

    await note(gateway, ONE)
    gateway.bucket.fault = fault
    with pytest.raises(StoreUnreachable):
        await gateway.log.append([OTHER])
    gateway.bucket.fault = lambda call: fault(call) if call.operation == "get" else None
    with pytest.raises(StoreUnreachable):
        await gateway.log.append([OTHER])
    gateway.bucket.fault = lambda call: None
    await gateway.log.append([OTHER])


async def test_what_the_folder_names_may_be_named_again(gateway: SimulatedGateway) -> None:
    await gateway.log.append([ONE])
    await note(gateway, ONE)
    await gateway.log.garbage.candidates.look()
    again = Entry(file("f", 3), ONE.stored)
    assert not gateway.log.garbage.keeps_out(again)
    await gateway.log.append([again])
    await gateway.log.append([entry(deleted("f", 4))])
    assert gateway.log.garbage.keeps_out(Entry(file("f", 5), ONE.stored))


async def test_what_was_seen_long_ago_has_to_be_looked_for(gateway: SimulatedGateway) -> None:
    keeps_out = gateway.log.garbage.keeps_out
    fresh = seen(ONE, gateway.clock())
    assert not keeps_out(fresh)
    assert not keeps_out(seen(ONE, None))
    assert keeps_out(seen(ONE, NAMED_ONLY))
    assert keeps_out(seen(ONE, gateway.clock() + 1)), "the clock was put back"
    pass_time(gateway, GARBAGE_RULES.look + 1)
    assert keeps_out(fresh)
    with pytest.raises(ObjectIsGarbage):
        await gateway.log.append([fresh])
    await gateway.log.append([ONE])
    assert not keeps_out(seen(ONE, NAMED_ONLY)), "it is named now"


async def test_a_renewal_names_nothing_that_is_gone(gateway: SimulatedGateway) -> None:
    removal = Removal(name_key(ONE.file_info.name))
    with pytest.raises(ObjectIsGarbage, match="not there any more"):
        await gateway.log.renew(lambda state: ([removal], [ONE]), check_objects=True)
    assert gateway.state.position == 0
    assert ONE.stored is not None
    gateway.bucket.store.put(KEYS.object(ONE.file_info.name, ONE.stored.object_name), b"x")
    await gateway.log.renew(lambda state: ([removal], [ONE]), check_objects=True)
    assert gateway.state.position == 1
    await note(gateway, OTHER)
    await gateway.log.garbage.candidates.look()
    with pytest.raises(ObjectIsGarbage, match="deleted"):
        await gateway.log.renew(lambda state: ([removal], [OTHER]))
