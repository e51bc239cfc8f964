"""Healing with very many missing objects takes the names in parts: the end is the same as with all at once."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import device, directory, entry, file
from tests.index.gateways import KEYS, SimulatedGateway
from tests.simulated import SimulatedBucket, SimulatedStore, fast_directory, inline_threads
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.index.entry import Entry
from untrusted_s3.store.losses import LossNotes
from untrusted_s3.sync.healing import heal

NAMES = 6
# What is appended: a name and its version, with or without data.
CHANGES = st.lists(st.tuples(st.integers(1, NAMES), st.integers(1, 3), st.booleans()), min_size=1, max_size=12)
LOST = st.sets(st.integers(0, 11))


def changed(name: int, version: int, has_data: bool) -> Entry:
    return entry(file(name, version, content=version) if has_data else directory(name, version))


async def healed(
    home: Path, changes: list[tuple[int, int, bool]], segments: set[int], objects: set[int], at_once: int
) -> tuple[object, object]:
    """Let a store lose segments and objects, and heal the folder. Return what healing says and what the folder has."""
    store = SimulatedStore()
    home.mkdir()
    gateway = SimulatedGateway(SimulatedBucket(store), 1, home)
    await gateway.log.load()
    for change in changes:
        one = changed(*change)
        if one.stored is not None:
            store.put(KEYS.object(one.file_info.name, one.stored.object_name), bytes(one.stored.size))
        await gateway.log.append([one])
    for number, key in enumerate(store.keys(KEYS.segments)):
        if number in segments:
            del store.objects[key]
    for number, key in enumerate(store.keys(KEYS.objects)):
        if number in objects:
            del store.objects[key]
    notes = LossNotes(gateway.bucket, KEYS, device(1))
    said = await heal(gateway.bucket, KEYS, gateway.log, gateway.state, notes, at_once=at_once)
    state = gateway.state
    has = sorted(raw for _, raw in state.file_infos_after(0, 1000))
    missing = sorted((one.name, one.object_name, one.version.SerializeToString()) for one in state.missing())
    await gateway.log.load()
    gateway.close()
    return (said.restored, said.missing, len(said.losses)), (has, missing, state.totals)


@settings(deadline=None, max_examples=25)
@given(CHANGES, LOST, LOST, st.integers(1, 4))
def test_the_end_is_the_same(
    changes: list[tuple[int, int, bool]], segments: set[int], objects: set[int], at_once: int
) -> None:
    async def play(home: Path) -> None:
        whole = await healed(home / "whole", changes, segments, objects, 1000)
        in_parts = await healed(home / "in parts", changes, segments, objects, at_once)
        assert in_parts == whole

    with fast_directory() as home, inline_threads():
        run_in_virtual_time(play(home))
