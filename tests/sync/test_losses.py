"""What healing finds lost for good is in the store before the log is renewed, said once, and stays there."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.file_infos import device, file
from tests.simulated import Call, Fault, Phase, SimulatedBucket, SimulatedStore, fast_directory, inline_threads
from tests.sync.fakes import new_folder, working
from tests.sync.scripted_device import KEYS, RECORD, Device
from tests.virtual_time import settled, virtual_time
from untrusted_s3.errors import DataError, IndexClaimed, LogWentBack, SegmentDamaged, SegmentsMissing, StoreError
from untrusted_s3.store.losses import LossReader
from untrusted_s3.sync.folder import Folder

pytestmark = virtual_time

CLAIM = IndexClaimed("a device knows more", 0, 20, 5)


async def fill(store: SimulatedStore, home: Path, numbers: range) -> None:
    """Write a segment with a file for each number."""
    folder = new_folder(RECORD, SimulatedBucket(store), home)
    await folder.open()
    async with working(folder):
        for number in numbers:
            one = Device(number)
            one.take(file(number))
            one.share(folder)
            await one.announce(folder, 10)
            await settled()


async def lose_for_good(store: SimulatedStore, home: Path) -> None:
    """Lose a segment in the middle, and damage another one, of which nobody has a local state."""
    await fill(store, home.with_name("filled"), range(1, 6))
    del store.objects[KEYS.segment(2)]
    store.put(KEYS.segment(4), store.body(KEYS.segment(4))[:-5])


async def forget(store: SimulatedStore, home: Path) -> None:
    """Lose the end, and have a gateway without a local state renew the log, before the one that knows the end does."""
    await fill(store, home, range(1, 6))
    for position in (4, 5):
        del store.objects[KEYS.segment(position)]
    store.clock.now += 60  # type: ignore[attr-defined]
    other = new_folder(RECORD, SimulatedBucket(store), home.with_name("other"), own_id=device(8))
    await other.heal()
    other.close()
    store.clock.now += 60  # type: ignore[attr-defined]


async def claim(store: SimulatedStore, home: Path) -> None:
    await fill(store, home, range(1, 6))


STORIES = {
    "segments are lost and damaged": (lose_for_good, ["segment 2 with 1 entries", "segment 4 with 1", "damaged/"]),
    "a gateway knew more": (forget, ["2 entries that the gateway"]),
    "a device knew more": (claim, ["up to sequence 20, and the log had it up to 5"]),
}


class Process:
    """A gateway that dies in a phase of its writing call number `dies_at` (from 1; 0 for never) as it opens the folder.

    What is on its disk at that moment is kept in `home` with the suffix `.dead`.
    """

    def __init__(self, store: SimulatedStore, home: Path, dies_at: int = 0, phase: Phase | None = None) -> None:
        self.calls: list[Call] = []
        self._home, self._dies_at, self._phase = home, dies_at, phase
        self._died = asyncio.Event()
        bucket = SimulatedBucket(store, gate=self._gate)
        self.folder = new_folder(RECORD, bucket, home)

    async def open(self, reason: IndexClaimed | None = None) -> bool:
        """Open the folder, healed where it has to be or for a reason. Return whether it survived."""
        opening = asyncio.ensure_future(open_healed(self.folder, reason))
        died = asyncio.ensure_future(self._died.wait())
        await asyncio.wait([opening, died], return_when=asyncio.FIRST_COMPLETED)
        for task in (opening, died):
            task.cancel()
        await asyncio.gather(died, return_exceptions=True)
        if self._died.is_set():
            await asyncio.gather(opening, return_exceptions=True)
        else:
            await opening
        self.folder.close()
        return not self._died.is_set()

    async def _gate(self, call: Call, phase: Phase) -> None:
        if phase is Phase.REQUEST and call.operation in ("put", "upload_file", "delete"):
            self.calls.append(call)
        at_call = self.calls[self._dies_at - 1 :] == [call]
        if self._dies_at and at_call and phase is self._phase and not self._died.is_set():
            self._died.set()
            shutil.copytree(self._home, self._home.with_suffix(".dead"))
        if self._died.is_set():
            await asyncio.Event().wait()


async def open_healed(folder: Folder, reason: IndexClaimed | None) -> None:
    try:
        await folder.open()
        if reason is None:
            return
    except (LogWentBack, SegmentDamaged, SegmentsMissing):
        pass
    await folder.heal(reason)
    await folder.open()


async def said(store: SimulatedStore) -> list[str]:
    """Return what all records say, also twice."""
    reader = LossReader(SimulatedBucket(store), KEYS)
    await reader.read()
    assert not reader.unreadable
    return [text for record in reader.found.values() for text in record.texts(KEYS).values()]


@pytest.mark.parametrize("keep_state", [True, False], ids=["state kept", "state lost"])
@pytest.mark.parametrize("story", STORIES)
async def test_a_crash_at_any_write_loses_no_word_and_doubles_none(story: str, keep_state: bool) -> None:
    begin, expected = STORIES[story]
    reason = CLAIM if begin is claim else None
    survived = False
    with inline_threads(), fast_directory() as directory:
        template, begun = SimulatedStore(), directory / "begun"
        await begin(template, begun)
        begun.mkdir(exist_ok=True)
        for dies_at, phase in ((number, phase) for number in itertools.count(1) for phase in Phase):
            store, home = SimulatedStore(template.clock), directory / f"{dies_at} {phase.name}"
            store.objects = dict(template.objects)
            shutil.copytree(begun, home)
            survived = await Process(store, home, dies_at, phase).open(reason)
            if not survived:
                shutil.rmtree(home)
                dead = home.with_suffix(".dead")
                if keep_state:
                    dead.rename(home)
                # A gateway that loses its state before it said what it knew takes that with it.
                if keep_state or begin is not forget:
                    assert await Process(store, home).open(None if await said(store) else reason)
            texts = await said(store)
            if survived or keep_state or begin is not forget or texts:
                assert len(texts) == len(expected), texts
                assert all(part in text for part, text in zip(expected, texts, strict=True)), texts
            assert await Process(store, directory / "fresh").open()
            assert await said(store) == texts, "nobody finds the same loss again"
            shutil.rmtree(directory / "fresh")
            if survived:
                break
    assert survived and dies_at >= 2


@pytest.mark.parametrize("story", STORIES)
async def test_the_record_comes_before_the_renewal(story: str) -> None:
    begin, _ = STORIES[story]
    with inline_threads(), fast_directory() as directory:
        store, home = SimulatedStore(), directory / "home"
        await begin(store, home)
        process = Process(store, home)
        assert await process.open(CLAIM if begin is claim else None)
    written = [call.key for call in process.calls]
    notes = [index for index, key in enumerate(written) if key.startswith(KEYS.losses)]
    changes = [index for index, key in enumerate(written) if key.startswith((KEYS.segments, KEYS.checkpoints))]
    assert len(notes) == 1
    assert all(index > notes[0] for index in changes)


async def test_two_gateways_that_heal_at_once_say_the_same(tmp_path: Path) -> None:
    store = SimulatedStore()
    await lose_for_good(store, tmp_path / "home")
    written = asyncio.Event()

    async def gate(call: Call, phase: Phase) -> None:
        """Hold the first gateway up before its record, until the other one has healed the log."""
        if call.operation == "put" and call.key.startswith(KEYS.losses) and phase is Phase.REQUEST:
            await written.wait()

    first = new_folder(RECORD, SimulatedBucket(store, gate=gate), tmp_path / "1", own_id=device(1))
    second = new_folder(RECORD, SimulatedBucket(store), tmp_path / "2", own_id=device(2))
    healing = asyncio.ensure_future(open_healed(first, None))
    await settled()
    await open_healed(second, None)
    written.set()
    with pytest.raises(LogWentBack):
        await healing  # the log is another one than it has read
    await open_healed(first, None)
    reader = LossReader(SimulatedBucket(store), KEYS)
    await reader.read()
    assert {record.writer for record in reader.found.values()} == {device(1), device(2)}
    assert len(reader.texts()) == 3, "two records, which say the same"
    for folder in (first, second):
        folder.close()


def damaged(store: SimulatedStore) -> None:
    store.put(KEYS.loss(3, "a" * 32), b"{")


def foreign(store: SimulatedStore) -> None:
    store.put(KEYS.losses + "notes.txt", b"something else")


def of_another_key(store: SimulatedStore) -> None:
    value = {"position": 3, "id": "b" * 32, "writer": str(device(1)), "time": 1, "index_id": "0" * 16}
    store.put(KEYS.loss(4, "b" * 32), json.dumps(value).encode())


def too_many(store: SimulatedStore) -> None:
    for number in range(1001):
        store.put(f"{KEYS.losses}{number:04d}", b"")


@pytest.mark.parametrize("put", [damaged, foreign, of_another_key, too_many])
async def test_what_else_lies_among_the_records_stops_no_healing(
    put: Callable[[SimulatedStore], None], tmp_path: Path
) -> None:
    store = SimulatedStore()
    await lose_for_good(store, tmp_path / "home")
    put(store)
    before = set(store.keys(KEYS.losses))
    await open_healed(folder := new_folder(RECORD, SimulatedBucket(store), tmp_path / "home"), None)
    folder.close()
    assert len(set(store.keys(KEYS.losses)) - before) == 1 and before <= set(store.keys(KEYS.losses))


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.REFUSED])
async def test_a_record_that_the_store_does_not_give_stops_no_healing(fault: Fault, tmp_path: Path) -> None:
    store = SimulatedStore()
    await lose_for_good(store, tmp_path / "home")
    key = KEYS.loss(3, "a" * 32)
    store.put(key, b"{}")
    bucket = SimulatedBucket(store)
    bucket.fault = lambda call: fault if call.key == key else None
    await open_healed(folder := new_folder(RECORD, bucket, tmp_path / "other"), None)
    folder.close()
    reader = LossReader(bucket, KEYS)
    await reader.read()
    assert (len(reader.found), [problem.path for problem in reader.unreadable]) == (1, [key])
    assert not reader.damaged


async def test_a_record_that_cannot_be_written_keeps_the_log_as_it_is(tmp_path: Path) -> None:
    store = SimulatedStore()
    await lose_for_good(store, tmp_path / "home")
    before = store.keys(KEYS.segments)
    bucket = SimulatedBucket(store)
    bucket.fault = lambda call: Fault.REFUSED if call.operation == "put" and KEYS.losses in call.key else None
    folder = new_folder(RECORD, bucket, tmp_path / "home")
    with pytest.raises(StoreError, match="losses"):
        await open_healed(folder, None)
    assert store.keys(KEYS.segments) == before
    bucket.fault = lambda call: None
    with contextlib.suppress(DataError):
        await folder.open()
    await folder.heal()
    await folder.open()
    folder.close()
    assert len(await said(store)) == 3


async def test_what_comes_back_is_no_loss(tmp_path: Path) -> None:
    """The local state knows what the store has lost."""
    store, home = SimulatedStore(), tmp_path / "home"
    await fill(store, home, range(1, 6))
    for position in (4, 5):
        del store.objects[KEYS.segment(position)]
    assert await Process(store, home).open()
    assert store.keys(KEYS.losses) == []
