"""How many bytes a folder has from each device: kept up to date, they are what counting gives."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.file_infos import deleted, device, directory, encrypted_name, entry, file
from tests.simulated import fast_directory
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError
from untrusted_s3.index.entry import KIND_FILE, Entry, PeerCursor, Removal, Renewal, kind_of
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key

DEVICES = [device(number) for number in range(3)]
NAMES = 8


@pytest.fixture
def home() -> Iterator[Path]:
    with fast_directory() as directory:
        yield directory


@pytest.fixture
def state(home: Path) -> Iterator[FolderState]:
    opened = FolderState(home / "state.sqlite")
    yield opened
    opened.close()


def counted(state: FolderState) -> dict[DeviceID, int]:
    """Count what is from each device, entry by entry."""
    found: Counter[DeviceID] = Counter(dict.fromkeys(DEVICES, 0))
    for sequence in state.sequences_after(0, 1000):
        one = state.entry_at(sequence)
        if one.source is not None and kind_of(one.file_info.message) == KIND_FILE:
            found[one.source] += one.file_info.message.size
    return dict(found)


def kept(state: FolderState) -> dict[DeviceID, int]:
    return {one: state.bytes_from(one) for one in DEVICES}


class Play:
    """Random segments, of which some do not fit, and copies in the place of the state."""

    def __init__(self, state: FolderState, seed: int, home: Path) -> None:
        self.state = state
        self.random = random.Random(seed)
        self.home = home
        self.version = 0

    def entry(self) -> Entry:
        self.version += 1
        name, choose = self.random.randrange(NAMES), self.random.randrange(5)
        made = [deleted, directory][choose](name, self.version) if choose < 2 else None
        info = made or file(name, self.version, sizes=(1064,) * self.random.randrange(1, 4))
        return replace(entry(info), source=self.random.choice([None, *DEVICES]))

    def segment(self) -> Segment:
        entries = tuple(self.entry() for _ in range(self.random.randrange(4)))
        segment = Segment(device(9), bytes(16), 0, self.state.sequence + 1, entries, ())
        if self.random.random() < 0.1:
            removals = (Removal(name_key(encrypted_name(self.random.randrange(NAMES)))),)
            segment = replace(segment, renewal=Renewal(self.state.position + 1, removals))
        return segment

    def step(self) -> None:
        chance = self.random.random()
        if chance < 0.2:
            self.state.count_sources(2)
        elif chance < 0.3:
            broken = replace(self.segment(), renewal=Renewal(self.state.index_id, ()))
            with pytest.raises(DataError):
                self.state.apply(self.state.position + 1, broken)
        elif chance < 0.35:
            copy = self.home / "copy.sqlite"
            self.state.write_copy(copy)
            self.state.replace(copy)
        else:
            self.state.apply(self.state.position + 1, self.segment())


@pytest.mark.parametrize("seed", range(20))
def test_they_are_what_counting_gives(state: FolderState, seed: int, home: Path) -> None:
    play = Play(state, seed, home)
    for _ in range(play.random.randrange(10)):
        play.step()
    while state.count_sources(2):
        play.step()  # changes come while it is counted
    most = 0
    for _ in range(20):
        play.step()
        assert kept(state) == counted(state)
        most = max(most, *kept(state).values())
    assert most


def test_entries_that_are_not_written_do_not_count(state: FolderState) -> None:
    def segment(made: Entry, source: DeviceID, *cursors: PeerCursor) -> Segment:
        return Segment(device(9), bytes(16), 0, state.sequence + 1, (replace(made, source=source),), cursors)

    state.apply(1, segment(entry(file("a")), DEVICES[0]))
    before = kept(state)
    assert before[DEVICES[0]] == 1064 and before == counted(state)
    with pytest.raises(OverflowError):
        state.apply(2, segment(entry(file("b")), DEVICES[1], PeerCursor(DEVICES[1], 7, 2**70)))
    assert kept(state) == before == counted(state)
    state.apply(2, segment(entry(deleted("a", 2)), DEVICES[0]))
    assert set(kept(state).values()) == {0}
