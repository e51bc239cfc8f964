"""Renewals: entries are taken back, and the folder's index begins again under another id."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.file_infos import deleted, device, encrypted_name, entry, file
from tests.index.gateways import KEYS, SimulatedGateway, contents, written_segments
from tests.simulated import Call, Phase, SimulatedBucket, SimulatedStore
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.errors import DataError
from untrusted_s3.index.entry import Entry, PeerCursor, Removal, Renewal
from untrusted_s3.index.renewal import Plan
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.state import FolderState, FolderTotals
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.layout import name_key

SETTINGS = LogSettings(segment_entries=20)


def key(name: str | int) -> bytes:
    return name_key(encrypted_name(name))


def fixed(removals: Iterable[Removal] = (), entries: Iterable[Entry] = ()) -> Plan:
    return lambda _: (removals, entries)


async def opened(store: SimulatedStore, number: int, directory: Path) -> SimulatedGateway:
    gateway = SimulatedGateway(SimulatedBucket(store), number, directory, settings=SETTINGS)
    await gateway.log.load()
    return gateway


async def test_a_renewal(tmp_path: Path) -> None:
    store = SimulatedStore()
    gateway = await opened(store, 1, tmp_path)
    cursor = PeerCursor(device(2), 5, 7)
    await gateway.log.append([entry(file("a", 5)), entry(file("b")), entry(file("c"))], [cursor])
    assert gateway.state.index_id == 0
    stored = entry(file("b")).stored
    assert stored is not None

    removals = [Removal(key("a")), Removal(key("b"), stored.object_name)]
    assert await gateway.log.renew(fixed(removals, [entry(file("c", 0))])) == 1
    state = gateway.state
    assert 0 < state.index_id < 2**63
    assert state.cursor(device(2)) == IndexState()
    assert [state.entry(encrypted_name(name)) for name in "abc"] == [None, None, entry(file("c", 0))]
    assert (state.sequence, state.totals) == (4, FolderTotals(1, 0, 0, 1064))
    (missing,) = state.missing()
    assert (missing.name_hash, missing.name, missing.object_name) == (
        key("b"),
        encrypted_name("b"),
        stored.object_name,
    )
    assert missing.version == file("b").message.version
    assert state.missing_count == 1
    assert state.condemned(key("b")) == {stored.object_name}
    assert state.wants(file("a", 1)), "a removed name may come back with any version"

    other = await opened(store, 2, tmp_path)
    assert contents(other.state) == contents(state)
    await other.log.append([entry(file("b"))])
    assert other.state.missing_count == 1, "its object is missing"
    again = replace(stored, object_name=f"{stored.object_name}-1")
    await other.log.append([replace(entry(file("b")), stored=again)])
    await gateway.log.refresh()
    for one in (gateway, other):
        assert (list(one.state.missing()), one.state.missing_count) == ([], 0)
        assert one.state.condemned(key("b")) == {stored.object_name}, "the old object stays damaged"
        one.close()


async def test_a_missing_file_stays_listed_in_its_newest_version(tmp_path: Path) -> None:
    gateway = await opened(SimulatedStore(), 1, tmp_path)
    for version in (2, 1):
        found = entry(file("a", version, content=version))
        assert found.stored is not None
        await gateway.log.append([found])
        await gateway.log.renew(fixed([Removal(key("a"), found.stored.object_name)]))
        (missing,) = gateway.state.missing()
        assert missing.version == file("a", 2).message.version
    assert gateway.state.entry(encrypted_name("a")) is None
    assert len(gateway.state.condemned(key("a"))) == 2
    await gateway.log.append([entry(file("a", 1, content=3))])
    assert gateway.state.missing_count == 1, "an older version does not replace it"
    gateway.close()


@pytest.mark.parametrize("force", [False, True])
async def test_an_empty_plan(force: bool, tmp_path: Path) -> None:
    gateway = await opened(SimulatedStore(), 1, tmp_path)
    await gateway.log.append([entry(file("a"))], [PeerCursor(device(2), 5, 7)])
    plan = fixed([Removal(key("unknown"))], [entry(file("a"))])
    assert await gateway.log.renew(plan, force=force) == force
    assert bool(gateway.state.index_id) is force
    assert gateway.state.cursor(device(2)) == (IndexState() if force else IndexState(5, 7))
    assert list(gateway.state.file_infos_after(0, 10)) == [(1, file("a").raw)]
    gateway.close()


async def test_the_plan_is_made_again_if_another_gateway_was_first(tmp_path: Path) -> None:
    store = SimulatedStore()
    first, second = await opened(store, 1, tmp_path), await opened(store, 2, tmp_path)
    await first.log.append([entry(file("a"))])
    await second.log.refresh()
    await first.log.append([entry(file("b")), entry(deleted("c"))])
    seen: list[int] = []

    def everything(state: FolderState) -> tuple[Iterable[Removal], Iterable[Entry]]:
        seen.append(state.position)
        return [Removal(name_hash) for _, name_hash, _ in state.sources()], ()

    assert await second.log.renew(everything) == 1
    assert seen == [1, 2]
    assert second.state.totals == FolderTotals(0, 0, 0, 0)
    await first.log.refresh()
    assert contents(first.state) == contents(second.state)
    first.close()
    second.close()


async def test_a_large_plan_is_split(tmp_path: Path) -> None:
    store = SimulatedStore()
    gateway = await opened(store, 1, tmp_path)
    count = 3 * SETTINGS.segment_entries
    for version in (1, 2):
        await gateway.log.append([entry(file(number, version)) for number in range(count)])
    before = gateway.state.position
    removals = [Removal(key(number)) for number in range(count - 1)]
    assert await gateway.log.renew(fixed(removals, [entry(file(number)) for number in range(count)])) == 3
    segments = [segment for position, segment in written_segments(store).items() if position > before]
    ids = {segment.renewal.index_id for segment in segments if segment.renewal}
    assert len(ids) == 3
    assert gateway.state.entry(encrypted_name(5)) == entry(file(5))
    assert gateway.state.totals.files == count
    gateway.close()


async def test_an_entry_that_a_renewal_removes_while_it_is_appended_again(tmp_path: Path) -> None:
    store = SimulatedStore()
    first, second = await opened(store, 1, tmp_path), await opened(store, 2, tmp_path)
    await first.log.append([entry(file("a"))])
    await second.log.refresh()

    async def renew_before(call: Call, phase: Phase) -> None:
        if call.operation == "put" and call.key == KEYS.segment(2) and phase is Phase.REQUEST:
            await second.log.renew(fixed([Removal(key("a"))]))

    first.bucket.gate = renew_before
    assert await first.log.append([entry(file("a"))], [PeerCursor(device(3), 1, 1)])
    assert first.state.has(entry(file("a")))
    assert first.state.cursor(device(3)) == IndexState()
    first.close()
    second.close()


async def test_removals_with_long_names_and_versions_are_split(tmp_path: Path) -> None:
    store, size = SimulatedStore(), 10_000
    gateway = SimulatedGateway(SimulatedBucket(store), 1, tmp_path, settings=LogSettings(segment_size=size))
    version = pb.Vector(counters=[pb.Counter(id=number, value=1) for number in range(1, 100)]).SerializeToString()
    removals = [Removal(key(number), "0" * 32, encrypted_name(number), version) for number in range(100)]
    assert await gateway.log.renew(fixed(removals)) > 3
    assert max(len(store.body(name)) for name in store.keys(KEYS.segments)) < 2 * size
    assert gateway.state.missing_count == 100
    gateway.close()


def test_a_renewal_that_keeps_the_index_id_is_refused(tmp_path: Path) -> None:
    state = FolderState(tmp_path / "state.sqlite")
    state.apply(1, Segment(device(1), bytes(16), 0, 1, (entry(file("a")),), (), Renewal(5)))
    with pytest.raises(DataError, match="segment 2"):
        state.apply(2, Segment(device(1), bytes(16), 0, 2, (), (), Renewal(5, (Removal(key("a")),))))
    assert (state.position, state.entry(encrypted_name("a"))) == (1, entry(file("a")))
    state.close()


async def test_sources_and_renewals_are_in_checkpoints(tmp_path: Path) -> None:
    store = SimulatedStore()
    gateway = await opened(store, 1, tmp_path)
    for number in range(6):
        info = file(number)
        await gateway.log.append([Entry(info, entry(info).stored, device(number % 2) if number else None)])
    await gateway.log.renew(fixed([Removal(key(3), "0" * 32), Removal(key(4))]))
    await gateway.log.checkpoint()
    for position in range(1, gateway.state.position + 1):
        del store.objects[KEYS.segment(position)]
    other = await opened(store, 2, tmp_path)
    assert contents(other.state) == contents(gateway.state)
    assert other.state.index_id == gateway.state.index_id != 0
    assert [(sequence, source) for sequence, _, source in other.state.sources()] == [
        (1, None),
        (2, device(1)),
        (3, device(0)),
        (6, device(1)),
    ]
    found = other.state.entry(encrypted_name(1))
    assert found is not None and found.source == device(1)
    assert list(other.state.missing()) == list(gateway.state.missing()) != []
    gateway.close()
    other.close()
