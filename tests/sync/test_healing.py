"""A folder whose store loses something: what it notices, and what comes of it. tests/healing plays all combinations."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from tests.file_infos import deleted, directory, file
from tests.simulated import Call, Fault, Phase, SimulatedBucket
from tests.sync.fakes import DEFAULTS, has, new_folder, working
from tests.sync.scripted_device import KEYS, RECORD, Device
from tests.virtual_time import virtual_time
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.errors import DataError, IndexClaimed, LogWentBack, SegmentsMissing, StateDamaged
from untrusted_s3.index.local_files import STATE_FILE
from untrusted_s3.settings import LogSettings, Settings, SyncSettings
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.healing import is_unfinished

pytestmark = virtual_time

LOG, SYNC = DEFAULTS.log, DEFAULTS.sync
A_MOMENT = 1.0


@contextlib.asynccontextmanager
async def opened(
    bucket: SimulatedBucket, home: Path, one: Device | None = None, settings: LogSettings = LOG
) -> AsyncIterator[Folder]:
    folder = new_folder(RECORD, bucket, home, settings=Settings(log=settings))
    await folder.open()
    async with working(folder):
        if one is not None:
            await give(folder, one)
        yield folder


def _edit_state(home: Path, statement: str) -> None:
    """Damage a row of the only local state below `home`."""
    (path,) = home.rglob(STATE_FILE)
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


async def give(folder: Folder, one: Device, infos: Iterable[FileInfo] = ()) -> None:
    """Connect a device, let it announce all that it has, and store it."""
    for info in infos:
        one.take(info)
    one.share(folder)
    await one.announce(folder, 1000)
    await asyncio.sleep(A_MOMENT)


@pytest.fixture
def bucket() -> SimulatedBucket:
    return SimulatedBucket()


def device_with(*infos: FileInfo) -> Device:
    one = Device(1)
    for info in infos:
        one.take(info)
    return one


async def loss(folder: Folder) -> DataError:
    """Return what the folder says once it has noticed a loss; it must do so in time."""
    try:
        async with asyncio.timeout(LOG.check_interval + 2 * LOG.poll_interval):
            await folder.until_damaged()
    except (LogWentBack, SegmentsMissing) as error:
        return error
    except StateDamaged:
        pass
    raise AssertionError("no loss was noticed")


async def test_an_idle_folder_notices_within_a_minute_that_the_log_went_back(
    bucket: SimulatedBucket, tmp_path: Path
) -> None:
    one = device_with(file("a"), directory("b"))
    async with opened(bucket, tmp_path, one) as folder:
        del bucket.store.objects[KEYS.segment(folder.position)]
        assert isinstance(await loss(folder), LogWentBack)


async def test_a_gap_before_the_end_is_noticed(bucket: SimulatedBucket, tmp_path: Path) -> None:
    async with opened(bucket, tmp_path) as folder:
        for number in range(3):
            await give(folder, Device(1 + number), [file(number)])
        assert folder.position == 3
        del bucket.store.objects[KEYS.segment(2)]
        assert "no segment 2" in str(await loss(folder))


async def test_healing_brings_back_what_the_local_state_knows(bucket: SimulatedBucket, tmp_path: Path) -> None:
    infos = file("a"), directory("b")
    async with opened(bucket, tmp_path, device_with(*infos)) as folder:
        before = folder.own_index
    for key in bucket.store.keys(KEYS.segments):
        del bucket.store.objects[key]
    folder = new_folder(RECORD, bucket, tmp_path)
    with pytest.raises(LogWentBack):
        await folder.open()
    healed = await folder.heal()
    await folder.open()
    assert (healed.restored, healed.missing, healed.losses) == (2, 0, ())
    assert all(has(folder, info) for info in infos)
    assert folder.own_index.index_id != before.index_id
    assert folder.received(Device(1).device_id) == IndexState(), "the device sends its whole index again"
    folder.close()


async def test_healing_brings_back_a_version_with_another_object(bucket: SimulatedBucket, tmp_path: Path) -> None:
    """The store has lost the segments in which a missing object was taken back and stored again."""
    one = device_with(file("a"))
    async with opened(bucket, tmp_path, one) as folder:
        first = folder.position
        (lost,) = bucket.store.keys(KEYS.objects)
        del bucket.store.objects[lost]
        folder.read_failed(lost, 0, 100)
        await asyncio.sleep(A_MOMENT)
        await give(folder, one)
        stored_again = folder.entry(file("a").name)
        last = folder.position
    for position in range(first + 1, last + 1):
        del bucket.store.objects[KEYS.segment(position)]
    folder = new_folder(RECORD, bucket, tmp_path)
    with pytest.raises(LogWentBack):
        await folder.open()
    healed = await folder.heal()
    await folder.open()
    assert (healed.restored, folder.missing_files) == (1, 0)
    assert folder.entry(file("a").name) == stored_again
    folder.close()


async def test_what_the_local_state_knows_and_the_store_has_lost_is_named(
    bucket: SimulatedBucket, tmp_path: Path
) -> None:
    one = device_with(file("a"), file("b"))
    async with opened(bucket, tmp_path, one) as folder:
        pass
    for key in [*bucket.store.keys(KEYS.segments), *bucket.store.keys(KEYS.objects_of(file("a").name))]:
        del bucket.store.objects[key]
    folder = new_folder(RECORD, bucket, tmp_path)
    healed = await folder.heal()
    await folder.open()
    assert (healed.restored, healed.missing) == (2, 1)
    assert has(folder, file("b")) and not has(folder, file("a"))
    assert [name for name, _ in folder.missing_examples(10)] == [file("a").name]
    async with working(folder):
        await give(folder, one)
        assert has(folder, file("a"))
        assert folder.missing_files == 0


@pytest.mark.parametrize("kept", [0, 1], ids=["the whole log is lost", "the older version is in the log"])
async def test_what_is_missing_stays_named_beside_an_older_version_when_the_log_is_lost_again(
    bucket: SimulatedBucket, tmp_path: Path, kept: int
) -> None:
    older, newer = file("a", 1, content=1), file("a", 2, content=2)
    one = device_with(older)
    async with opened(bucket, tmp_path, one) as folder:
        await give(folder, one, [newer])
        stored = folder.entry(newer.name)
    assert stored is not None and stored.stored is not None
    for key in [*bucket.store.keys(KEYS.segments)[1:], KEYS.object(newer.name, stored.stored.object_name)]:
        del bucket.store.objects[key]
    for _ in range(2):
        folder = new_folder(RECORD, bucket, tmp_path)
        await folder.heal()
        await folder.open()
        assert has(folder, older) and not has(folder, newer)
        assert [name for name, _ in folder.missing_examples(10)] == [newer.name]
        folder.close()
        for key in bucket.store.keys(KEYS.segments)[kept:]:
            del bucket.store.objects[key]


async def test_a_gateway_that_knows_less_does_not_undo_what_another_one_heals_meanwhile(tmp_path: Path) -> None:
    store = SimulatedBucket().store
    go_on = asyncio.Event()

    async def gate(call: Call, phase: Phase) -> None:
        if healing and (call.operation, call.key) == ("put", KEYS.segment(lost)):
            await go_on.wait()

    healing = False
    behind, knowing = SimulatedBucket(store, gate=gate), SimulatedBucket(store)
    one = device_with(file("a", 5))
    async with opened(behind, tmp_path / "behind"), opened(knowing, tmp_path / "knowing", one) as second:
        await asyncio.sleep(LOG.poll_interval + 1)
        lost = second.position
    async with opened(knowing, tmp_path / "knowing") as second:
        await give(second, one, [deleted("a", 6)])
        assert has(second, deleted("a", 6))
    for key in store.keys(KEYS.segments)[lost - 1 :]:
        del store.objects[key]
    healing = True
    folders = [
        new_folder(RECORD, bucket, tmp_path / name) for bucket, name in ((behind, "behind"), (knowing, "knowing"))
    ]
    async with asyncio.TaskGroup() as tasks:
        for folder in folders:
            with pytest.raises(LogWentBack):
                await folder.open()
        tasks.create_task(folders[0].heal())
        await asyncio.sleep(A_MOMENT)
        await folders[1].heal()
        go_on.set()
    for folder in folders:
        await folder.open()
        assert has(folder, deleted("a", 6))
        folder.close()


async def test_healing_that_was_interrupted_is_done_again(bucket: SimulatedBucket, tmp_path: Path) -> None:
    async with opened(bucket, tmp_path, device_with(file("a"))):
        pass
    for key in bucket.store.keys(KEYS.segments):
        del bucket.store.objects[key]
    bucket.fault = lambda call: Fault.UNREACHABLE if call.operation == "put" else None
    folder = new_folder(RECORD, bucket, tmp_path)
    with pytest.raises(Exception, match="no answer"):
        await folder.heal()
    folder.close()
    bucket.fault = lambda call: None
    folder = new_folder(RECORD, bucket, tmp_path)
    with pytest.raises(LogWentBack, match="interrupted"):
        await folder.open()
    assert (await folder.heal()).restored == 1
    await folder.open()
    assert has(folder, file("a"))
    folder.close()


async def test_healing_leaves_out_what_cannot_be_read_of_the_local_state(
    bucket: SimulatedBucket, tmp_path: Path
) -> None:
    async with opened(bucket, tmp_path, device_with(file("a"), directory("b"))):
        pass
    for key in bucket.store.keys(KEYS.segments):
        del bucket.store.objects[key]
    _edit_state(tmp_path, "UPDATE files SET file_info = x'ff' WHERE sequence = 1")
    folder = new_folder(RECORD, bucket, tmp_path)
    assert (await folder.heal()).restored == 1
    await folder.open()
    assert folder.totals.files + folder.totals.directories == 1
    folder.close()


async def test_healing_without_a_local_state_that_can_be_read(bucket: SimulatedBucket, tmp_path: Path) -> None:
    one = device_with(file("a"))
    async with opened(bucket, tmp_path, one) as folder:
        await give(folder, one)
        (key,) = bucket.store.keys(KEYS.objects)
        del bucket.store.objects[key]
        folder.read_failed(key, 0, 1)
        await asyncio.sleep(A_MOMENT)
        index = folder.own_index
    for key in bucket.store.keys(KEYS.segments)[1:]:
        del bucket.store.objects[key]
    _edit_state(tmp_path, "UPDATE missing SET version = x'ff'")
    folder = new_folder(RECORD, bucket, tmp_path)
    await folder.heal()
    await folder.open()
    assert folder.own_index.index_id != index.index_id
    assert not is_unfinished(next(tmp_path.rglob("*.sqlite")).parent)
    folder.close()


async def test_healing_with_a_local_state_that_cannot_be_copied(bucket: SimulatedBucket, tmp_path: Path) -> None:
    async with opened(bucket, tmp_path, device_with(file("a"))):
        pass
    bucket.store.objects.pop(KEYS.segment(1))
    (path,) = tmp_path.rglob(STATE_FILE)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        ((page, size),) = connection.execute(
            "SELECT rootpage, page_size FROM sqlite_master, pragma_page_size WHERE name = 'files'"
        )
    with path.open("r+b") as state:
        state.seek((page - 1) * size)
        state.write(b"\xff" * size)
    folder = new_folder(RECORD, bucket, tmp_path)
    assert (await folder.heal()).restored == 0
    await folder.open()
    assert folder.own_index.index_id != RECORD.index_id
    folder.close()


async def test_a_device_that_knows_more_of_our_index_than_there_is(bucket: SimulatedBucket, tmp_path: Path) -> None:
    async with opened(bucket, tmp_path, device_with(file("a"))) as folder:
        own = folder.own_index
        folder.note_known(IndexState(own.index_id + 1, 1000))
        folder.note_known(own)
        await asyncio.sleep(2 * LOG.poll_interval)
        folder.note_known(IndexState(own.index_id, own.max_sequence + 1))
        assert isinstance(await loss(folder), IndexClaimed)


async def test_what_is_written_meanwhile_does_not_hide_that_the_end_is_lost(
    bucket: SimulatedBucket, tmp_path: Path
) -> None:
    """The device sends again what is lost, so the log is soon as long as the device knows it."""
    async with opened(bucket, tmp_path, device_with(file("a"))) as folder:
        own = folder.own_index
        await asyncio.sleep(2 * LOG.poll_interval)
        folder.note_known(IndexState(own.index_id, own.max_sequence + 2))
        await give(folder, Device(2), [file("b"), file("c"), file("d")])
        assert folder.own_index.max_sequence > own.max_sequence + 2
        assert isinstance(await loss(folder), IndexClaimed)


async def test_what_other_gateways_have_written_is_no_loss(bucket: SimulatedBucket, tmp_path: Path) -> None:
    async with opened(bucket, tmp_path / "1", device_with(file("a"))) as folder:
        await asyncio.sleep(2 * LOG.poll_interval)
        async with opened(bucket, tmp_path / "2") as other:
            await give(other, Device(2), [file("b"), file("c")])
            folder.note_known(other.own_index)
            await give(folder, Device(3), [file("d")])
            with pytest.raises(TimeoutError):
                await loss(folder)
            assert folder.own_index == other.own_index


async def test_a_device_that_is_not_believed(bucket: SimulatedBucket, tmp_path: Path) -> None:
    async with opened(bucket, tmp_path, device_with(file("a"))) as folder:
        folder.heeds_claims = lambda: False
        folder.note_known(IndexState(folder.own_index.index_id, 2**62))
        with pytest.raises(TimeoutError):
            await loss(folder)


async def test_another_gateways_renewal_ends_what_is_known_of_indexes(bucket: SimulatedBucket, tmp_path: Path) -> None:
    one = device_with(file("a"))
    async with opened(bucket, tmp_path / "1", one) as first, opened(bucket, tmp_path / "2") as second:
        ended: list[str] = []
        for name, folder in (("first", first), ("second", second)):
            folder.on_renewed = lambda name=name: ended.append(name)  # type: ignore[misc]
        await asyncio.sleep(LOG.poll_interval + 1)
        (key,) = bucket.store.keys(KEYS.objects)
        del bucket.store.objects[key]
        first.read_failed(key, 0, 1)
        await asyncio.sleep(LOG.poll_interval + 1)
        assert ended == ["first", "second"]
        assert first.own_index == second.own_index
        assert first.received(one.device_id) == IndexState()


async def test_a_missing_object_is_stored_again_under_another_name(bucket: SimulatedBucket, tmp_path: Path) -> None:
    one = device_with(file("a"), file("b"))
    async with opened(bucket, tmp_path, one) as folder:
        lost = bucket.store.keys(KEYS.objects_of(file("a").name))[0]
        del bucket.store.objects[lost]
        folder.read_failed(lost, 0, 100)
        await asyncio.sleep(A_MOMENT)
        assert not has(folder, file("a")) and has(folder, file("b"))
        assert list(folder.missing_examples(5)) == [(file("a").name, lost)]
        bucket.store.put(lost, b"something that came back")
        await give(folder, one)
        entry = folder.entry(file("a").name)
        assert entry is not None and entry.stored is not None
        assert KEYS.object(file("a").name, entry.stored.object_name) == f"{lost}-1"
        assert folder.missing_files == 0


async def test_an_object_that_is_cut_short(bucket: SimulatedBucket, tmp_path: Path) -> None:
    async with opened(bucket, tmp_path, device_with(file("a"))) as folder:
        (key,) = bucket.store.keys(KEYS.objects)
        bucket.store.put(key, bucket.store.body(key)[:10])
        folder.read_failed(key, 0, 100)
        await asyncio.sleep(A_MOMENT)
        assert folder.missing_files == 1 and not has(folder, file("a"))


@pytest.mark.parametrize("fault", [Fault.UNREACHABLE, Fault.REFUSED])
async def test_a_store_that_does_not_answer_has_lost_nothing(
    bucket: SimulatedBucket, tmp_path: Path, fault: Fault
) -> None:
    def failing(call: Call) -> Fault | None:
        return fault if call.key.startswith(KEYS.objects) else None

    async with opened(bucket, tmp_path, device_with(file("a"))) as folder:
        index = folder.own_index
        (key,) = bucket.store.keys(KEYS.objects)
        bucket.fault = failing
        for _ in range(5):
            folder.read_failed(key, 0, 100)
            await asyncio.sleep(60)
        assert (folder.missing_files, folder.own_index) == (0, index)


async def test_missing_objects_are_taken_back_together_and_ever_more_rarely(
    bucket: SimulatedBucket, tmp_path: Path
) -> None:
    one = device_with(*(file(number) for number in range(20)))
    async with opened(bucket, tmp_path, one) as folder:
        renewals: list[float] = []
        folder.on_renewed = lambda: renewals.append(asyncio.get_running_loop().time())
        for _ in range(6):
            keys = bucket.store.keys(KEYS.objects)
            for key in keys[:5]:
                del bucket.store.objects[key]
                folder.read_failed(key, 0, 1)
            await asyncio.sleep(10)
            await give(folder, one)
            await asyncio.sleep(50)
        pauses = [after - before for before, after in itertools.pairwise(renewals)]
        assert pauses == sorted(pauses) and pauses[0] >= SYNC.missing_pause
        assert len(renewals) <= 4


async def test_very_many_missing_objects_are_taken_back_in_turns(bucket: SimulatedBucket, tmp_path: Path) -> None:
    settings = Settings(sync=SyncSettings(missing_at_once=2, missing_pause=1.0))
    folder = new_folder(RECORD, bucket, tmp_path, settings=settings)
    await folder.open()
    async with working(folder):
        one = device_with(*(file(number) for number in range(5)))
        await give(folder, one)
        keys = bucket.store.keys(KEYS.objects)
        for key in keys:
            del bucket.store.objects[key]
        folder.read_failed(keys[0], 0, 1)
        await asyncio.sleep(60)
        assert folder.missing_files == 5 and folder.totals.files == 0


async def test_what_is_missing_is_taken_back_before_anybody_shares_the_folder(
    bucket: SimulatedBucket, tmp_path: Path
) -> None:
    one = device_with(*(file(number) for number in range(5)))
    async with opened(bucket, tmp_path, one):
        pass
    keys = [bucket.store.keys(KEYS.objects_of(file(number).name))[0] for number in range(3)]
    for key in keys:
        del bucket.store.objects[key]
    settings = Settings(sync=SyncSettings(missing_at_once=2, missing_pause=1.0))
    folder = new_folder(RECORD, bucket, tmp_path, settings=settings)
    await folder.open()
    assert (folder.missing_files, folder.totals.files) == (0, 5)
    await folder.look_for_missing()
    assert (folder.missing_files, folder.totals.files) == (3, 2)
    assert {key for _, key in folder.missing_examples(5)} == set(keys)
    position = folder.position
    await folder.look_for_missing()
    assert folder.position == position
    async with working(folder):
        await give(folder, one)
        assert (folder.missing_files, folder.totals.files) == (0, 5)


async def test_cursors_of_before_a_renewal_are_not_written_after_it(bucket: SimulatedBucket, tmp_path: Path) -> None:
    one = device_with(file("a"))
    async with opened(bucket, tmp_path, one) as folder:
        (key,) = bucket.store.keys(KEYS.objects)
        del bucket.store.objects[key]
        folder.read_failed(key, 0, 1)
        await asyncio.sleep(2 * LOG.cursor_interval)
        assert folder.handled(one.device_id) == IndexState()


async def test_cursors_computed_before_another_gateways_renewal_are_not_written_after_it(tmp_path: Path) -> None:
    """The renewal is known here, and the end of the log is still looked for, when a segment is to be written."""
    store = SimulatedBucket().store
    go_on = asyncio.Event()
    held = ""

    async def gate(call: Call, phase: Phase) -> None:
        if call.key == held:
            await go_on.wait()

    one = device_with(file("a"))
    async with (
        opened(SimulatedBucket(store), tmp_path / "1") as first,
        opened(SimulatedBucket(store, gate=gate), tmp_path / "2", one) as second,
    ):
        await asyncio.sleep(LOG.poll_interval + 1)
        assert second.handled(one.device_id) == IndexState(one.index_id, 1)
        held = KEYS.segment(second.position + 2)
        (key,) = store.keys(KEYS.objects)
        del store.objects[key]
        first.read_failed(key, 0, 1)
        await asyncio.sleep(LOG.poll_interval + 1)
        assert not has(second, file("a"))
        one.take(directory("b"))
        await one.announce(second, 1)
        await asyncio.sleep(A_MOMENT)
        go_on.set()
        await asyncio.sleep(A_MOMENT)
        assert not has(second, directory("b")), "it belongs to the index before"
        assert second.handled(one.device_id) == IndexState(), "or the device would not send the file again"
        await give(second, one)
        assert has(second, directory("b")) and has(second, file("a"))


async def test_an_entry_whose_object_is_found_damaged_before_it_is_written(tmp_path: Path) -> None:
    """It is not handled: what the device announces of the file after the renewal stays pending."""
    store = SimulatedBucket().store
    bucket = SimulatedBucket(
        store,
        fault=lambda call: Fault.UNREACHABLE if (call.operation, call.key) == ("put", KEYS.segment(1)) else None,
    )
    retried = LogSettings(segment_interval=100.0, max_append_delay=100.0)
    one, two = device_with(file("a")), Device(2)
    two.take(file("a"))
    async with (
        opened(SimulatedBucket(store), tmp_path / "1") as first,
        opened(bucket, tmp_path / "2", two, retried) as second,
    ):
        assert "cannot be written" in str(second.error)
        await give(first, one)
        (key,) = store.keys(KEYS.objects)
        store.put(key, store.body(key)[:10])
        first.read_failed(key, 0, 100)
        await asyncio.sleep(LOG.poll_interval + 1)
        assert first.missing_files == second.missing_files == 1
        second.remove_source(two.device_id, two)
        await give(second, two)
        assert second.missing_files == 1
        await asyncio.sleep(2 * retried.max_append_delay)
        assert has(second, file("a"))
        assert second.missing_files == 0
