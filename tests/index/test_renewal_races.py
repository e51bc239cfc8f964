"""Renewals against a model: beside other gateways' appends and renewals, with every fault, and after every crash."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import device, encrypted_name, entry, file
from tests.index.gateways import SimulatedGateway, contents, written_segments
from tests.simulated import (
    Crash,
    Fault,
    Scheduler,
    SimulatedBucket,
    SimulatedStore,
    fail_on,
    fast_directory,
    inline_threads,
)
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.errors import StoreError
from untrusted_s3.index.entry import Entry, PeerCursor, Removal
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.layout import name_key

SETTINGS = LogSettings(segment_entries=2)
NAMES = range(5)
NAME_OF = {name_key(encrypted_name(name)): encrypted_name(name) for name in NAMES}
OBJECTS = ["", "0" * 32, "1" * 32]


def version_of(found: Entry) -> int:
    return found.file_info.message.version.counters[0].value


@dataclass
class Model:
    """What docs/format.md says of the segments of a log."""

    sequence: int = 0
    index_id: int = 0
    files: dict[str, tuple[int, Entry]] = field(default_factory=dict)
    cursors: dict[bytes, tuple[int, int]] = field(default_factory=dict)
    missing: dict[str, tuple[str, int]] = field(default_factory=dict)
    condemned: set[tuple[bytes, str]] = field(default_factory=set)

    def apply(self, segment: Segment) -> None:
        if segment.renewal is not None:
            self.index_id = segment.renewal.index_id
            self.cursors.clear()
            for removal in segment.renewal.removals:
                name = NAME_OF[removal.name_hash]
                _, before = self.files.pop(name, (0, None))
                if not removal.missing_object:
                    self.missing.pop(name, None)
                    continue
                self.condemned.add((removal.name_hash, removal.missing_object))
                if before is not None and self.missing.get(name, ("", 0))[1] <= version_of(before):
                    self.missing[name] = removal.missing_object, version_of(before)
        for found in segment.entries:
            self.sequence += 1
            name = found.file_info.name
            self.files[name] = self.sequence, found
            if name in self.missing and self.missing[name][1] <= version_of(found):
                del self.missing[name]
        for cursor in segment.cursors:
            index_id, sequence = self.cursors.get(cursor.device_id.raw, (0, 0))
            highest = max(cursor.sequence, sequence) if index_id == cursor.index_id else cursor.sequence
            self.cursors[cursor.device_id.raw] = cursor.index_id, highest

    def check(self, state: FolderState) -> None:
        """Compare all that a state says."""
        assert (state.sequence, state.index_id) == (self.sequence, self.index_id)
        assert {number: state.entry_at(number) for number, _ in state.file_infos_after(0, -1)} == dict(
            self.files.values()
        )
        assert state.totals.files == len(self.files)
        missing = {found.name: (found.object_name, found.version.counters[0].value) for found in state.missing()}
        assert missing == self.missing
        assert state.missing_count == len(self.missing)
        for name in NAMES:
            key = name_key(encrypted_name(name))
            assert state.is_missing(key) == (encrypted_name(name) in self.missing)
            assert state.condemned(key) == {object_name for found, object_name in self.condemned if found == key}
        for number in range(4):
            known = state.cursor(device(number))
            assert (known.index_id, known.max_sequence) == self.cursors.get(device(number).raw, (0, 0))


def model_of(store: SimulatedStore) -> Model:
    """Check the form of a log, and return what it says."""
    assert store.created_twice == []
    segments = written_segments(store)
    assert sorted(segments) == list(range(1, len(segments) + 1))
    ids = [segment.renewal.index_id for segment in segments.values() if segment.renewal is not None]
    assert len(set(ids)) == len(ids), "each renewal has its own index id"
    model = Model()
    for _, segment in sorted(segments.items()):
        if segment is not EMPTY_SEGMENT:
            assert segment.first_sequence == model.sequence + 1, "sequence numbers go on over renewals"
            assert len(segment.entries) <= SETTINGS.segment_entries
            model.apply(segment)
    return model


@dataclass(frozen=True)
class Append:
    versions: dict[int, int]
    cursor: PeerCursor | None

    async def do(self, gateway: SimulatedGateway) -> None:
        for name, version in self.versions.items():
            info = file(name, version)
            change = Entry(info, entry(info).stored, device(version % 3) if version % 3 else None)
            await gateway.log.append([change], [self.cursor] if self.cursor else [])

    def check(self, state: FolderState) -> None:
        *_, (name, version) = self.versions.items()
        assert not state.wants(file(name, version)), "the last one was just appended"


@dataclass(frozen=True)
class Renew:
    removals: dict[int, str]
    back: dict[int, int]
    force: bool

    def plan(self, state: FolderState) -> tuple[Iterable[Removal], Iterable[Entry]]:
        removals = [Removal(name_key(encrypted_name(name)), missing) for name, missing in self.removals.items()]
        return removals, [entry(file(name, version)) for name, version in self.back.items()]

    async def do(self, gateway: SimulatedGateway) -> None:
        await gateway.log.renew(self.plan, force=self.force)

    def check(self, state: FolderState) -> None:
        for name in self.removals.keys() - self.back.keys():
            assert state.entry(encrypted_name(name)) is None
        for name, version in self.back.items():
            assert state.entry(encrypted_name(name)) == entry(file(name, version))


Step = Append | Renew
CURSORS = st.none() | st.builds(PeerCursor, st.builds(device, st.integers(0, 3)), st.integers(1, 2), st.integers(1, 9))
STEPS = st.one_of(
    st.builds(Append, st.dictionaries(st.sampled_from(NAMES), st.integers(1, 6), min_size=1, max_size=2), CURSORS),
    st.builds(
        Renew,
        st.dictionaries(st.sampled_from(NAMES), st.sampled_from(OBJECTS), max_size=4),
        st.dictionaries(st.sampled_from(NAMES), st.integers(1, 6), max_size=4),
        st.booleans(),
    ),
)
SCHEDULES = st.lists(st.integers(0, 5), max_size=60)
FAULTS = st.dictionaries(
    st.integers(1, 25), st.sampled_from([Fault.UNREACHABLE, Fault.ANSWER_LOST, Fault.CONFLICT]), max_size=4
)


async def do_all(gateway: SimulatedGateway, steps: Iterable[Step]) -> None:
    for step in steps:
        while True:
            try:
                await step.do(gateway)
                break
            except StoreError:
                pass
        step.check(gateway.state)


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.lists(STEPS, min_size=1, max_size=4), min_size=1, max_size=3),
    SCHEDULES,
    st.lists(FAULTS, min_size=3, max_size=3),
)
def test_all_gateways_agree_with_the_model(
    scripts: list[list[Step]], schedule: list[int], faults: list[dict[int, Fault]]
) -> None:
    async def play(directory: Path) -> None:
        store = SimulatedStore()
        scheduler = Scheduler(schedule)
        gateways = []
        for number, script in enumerate(faults[: len(scripts)]):
            bucket = SimulatedBucket(store, gate=scheduler.gate(number), fault=fail_on(script))
            gateways.append(SimulatedGateway(bucket, number, directory, settings=SETTINGS))
        await scheduler.run(*(do_all(gateway, own) for gateway, own in zip(gateways, scripts, strict=True)))

        model = model_of(store)
        newcomer = SimulatedGateway(SimulatedBucket(store), 9, directory)
        await newcomer.log.load()
        model.check(newcomer.state)
        await newcomer.log.checkpoint()
        reader = SimulatedGateway(SimulatedBucket(store), 8, directory)
        await reader.log.load()
        model.check(reader.state)
        for number, gateway in enumerate(gateways):
            gateway.close()
            followed = SimulatedGateway(SimulatedBucket(store), number, directory)
            await followed.log.load()
            assert contents(followed.state) == contents(newcomer.state)
            followed.close()
        newcomer.close()
        reader.close()

    with fast_directory() as directory, inline_threads():
        run_in_virtual_time(play(directory))


@pytest.mark.parametrize("fault", [Fault.CRASH_BEFORE, Fault.CRASH_AFTER, Fault.ANSWER_LOST, Fault.EMPTIED])
def test_a_fault_at_every_call(fault: Fault) -> None:
    """A renewal that was cut short is made again, and goes on with what is left."""
    removals = {name: OBJECTS[name % 2] for name in NAMES}
    story: list[Step] = [
        Append(dict.fromkeys(NAMES, 5), PeerCursor(device(1), 1, 1)),
        Renew(removals, {0: 1, 1: 2, 2: 3, 3: 4}, False),
        Append({4: 1}, None),
    ]

    async def play(directory: Path, number: int) -> None:
        store = SimulatedStore()
        bucket = SimulatedBucket(store, fault=fail_on({number: fault}))
        for attempt in itertools.count():
            gateway = SimulatedGateway(bucket, 1, directory / f"{number} {attempt}", settings=SETTINGS)
            try:
                await do_all(gateway, story)
                break
            except Crash:
                model_of(store)
                bucket = SimulatedBucket(store)  # all is done again, as by a person who does not know what was done
            finally:
                gateway.close()
        model = model_of(store)
        assert {
            name: found.file_info.message.version.counters[0].value for name, (_, found) in model.files.items()
        } == {encrypted_name(name): version for name, version in {0: 1, 1: 2, 2: 3, 3: 4, 4: 1}.items()}
        newer = {encrypted_name(name): (OBJECTS[1], 5) for name in (1, 3)}
        assert model.missing.items() <= newer.items(), "what was taken back is missing, not what came instead of it"

    with fast_directory() as directory, inline_threads():
        for number in range(1, 30):
            run_in_virtual_time(play(directory, number))
