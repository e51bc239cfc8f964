"""What a store holds is counted by what names it, while gateways go on."""

from __future__ import annotations

import pytest

from tests.check.damaged import KEYS, PEER, Damage, FilledStore, delete, flip_bit
from tests.file_infos import device
from tests.simulated import Call, SimulatedBucket
from untrusted_s3.errors import DataError, NoSuchFolder
from untrusted_s3.settings import ReadSettings, Settings
from untrusted_s3.stats.amounts import Amount, Contents
from untrusted_s3.stats.store import StoreStats
from untrusted_s3.store.layout import NODES, PEERS, RECORDS, RETENTION, usage_key
from untrusted_s3.store.records import FolderRecord, write_record
from untrusted_s3.store.usage import RECEIVED, UsageRecord
from untrusted_s3.units import DAY

NOTHING = Amount()
LARGE = Settings(reading=ReadSettings(large_folder=1))


async def counted(bucket: SimulatedBucket, *folders: str, settings: Settings | None = None) -> StoreStats:
    """Count, which must write nothing."""
    reader = SimulatedBucket(bucket.store, gate=bucket.gate, fault=bucket.fault)
    stats = StoreStats(reader, settings or Settings())
    await stats.run(folders)
    assert not {call.operation for call in reader.calls} & {"put", "delete", "upload_file", "upload_part"}
    return stats


async def contents(bucket: SimulatedBucket, settings: Settings | None = None) -> Contents:
    stats = await counted(bucket, "folder", settings=settings)
    (folder,) = stats.folders
    assert folder.problem is None
    return folder.contents


def size_of(filled: FilledStore, *prefixes: str) -> int:
    store = filled.bucket.store
    return sum(len(store.body(key)) for prefix in prefixes for key in store.keys(prefix))


@pytest.mark.parametrize("settings", [Settings(), LARGE], ids=["small", "large"])
async def test_objects_are_counted_by_what_names_them(filled: FilledStore, settings: Settings) -> None:
    found = await contents(filled.bucket, settings)
    assert (found.live.objects, found.history.objects) == (4, 1)
    assert (found.garbage, found.unclear, found.uploads, found.unknown) == (NOTHING,) * 4
    assert found.live.bytes + found.history.bytes == size_of(filled, KEYS.objects)
    assert sum(one.objects for one in found.classes) == 5
    assert [one.objects for one in found.classes] == [2, 2, 0, 0, 1, 0, 0]


async def test_everything_in_the_store_is_counted_once(filled: FilledStore) -> None:
    stats = await counted(filled.bucket)
    assert stats.total.all == Amount(len(filled.bucket.store.keys()), size_of(filled, ""))
    assert stats.outside.log.bytes == size_of(filled, PEERS, NODES, *RECORDS)
    assert stats.total.storage_classes == {"STANDARD": stats.total.all}
    (folder,) = stats.folders
    assert (folder.id, folder.files, folder.segments, folder.read_segments, folder.checkpoints) == (
        "folder",
        4,
        6,
        6,
        3,
    )
    parts = (KEYS.segments, KEYS.checkpoints, KEYS.record, KEYS.retention, KEYS.history)
    assert folder.contents.log.bytes == size_of(filled, *parts)


@pytest.mark.parametrize("settings", [Settings(), LARGE], ids=["small", "large"])
async def test_what_nothing_names_is_garbage(filled: FilledStore, settings: Settings) -> None:
    filled.bucket.store.put(KEYS.object("another name", "0" * 32), bytes(100))
    found = await contents(filled.bucket, settings)
    assert (found.garbage, found.live.objects, found.history.objects) == (Amount(1, 100), 4, 1)


async def test_history_ends_with_what_names_it(filled: FilledStore) -> None:
    for key in (KEYS.checkpoint(2), KEYS.checkpoint(4)):
        del filled.bucket.store.objects[key]
    found = await contents(filled.bucket)
    assert (found.live.objects, found.history.objects, found.garbage.objects) == (4, 0, 1)


async def test_a_state_that_is_kept_is_history(filled: FilledStore) -> None:
    store = filled.bucket.store
    store.put(KEYS.kept_checkpoint(2, 1_700_000_000), store.body(KEYS.checkpoint(2)))
    store.put(KEYS.retention, b"{}")
    store.put(KEYS.present_objects, b"")
    store.put(RETENTION, b"{}")
    for key in (KEYS.checkpoint(2), KEYS.checkpoint(4)):
        del store.objects[key]
    stats = await counted(filled.bucket)
    assert (stats.total.live.objects, stats.total.history.objects) == (4, 1)
    assert (stats.total.garbage, stats.total.unknown) == (NOTHING, NOTHING)
    assert stats.total.all.objects == len(store.keys())


async def test_what_is_not_ours_is_unknown(filled: FilledStore) -> None:
    store = filled.bucket.store
    in_folder = [KEYS.objects + "ab/strange", KEYS.base + "note.txt", KEYS.base + "own/file", KEYS.segments + "last"]
    for key in (*in_folder, KEYS.checkpoints + "7", "elsewhere/a/b", "elsewhere/c"):
        store.put(key, bytes(10))
    stats = await counted(filled.bucket)
    assert stats.folders[0].contents.unknown == Amount(5, 50)
    assert (stats.outside.unknown, stats.total.unknown) == (Amount(2, 20), Amount(7, 70))
    assert stats.total.garbage == NOTHING


async def test_unfinished_uploads_count_with_their_parts(filled: FilledStore) -> None:
    bucket = filled.bucket
    upload_id = await bucket.create_multipart_upload(KEYS.object("name", "1" * 32))
    await bucket.upload_part(KEYS.object("name", "1" * 32), upload_id, 1, [bytes(300)])
    await bucket.create_multipart_upload(KEYS.object("other", "2" * 32))
    assert (await contents(bucket)).uploads == Amount(2, 300)


@pytest.mark.parametrize("damage", [flip_bit, delete])
async def test_with_a_damaged_log_it_is_unclear_what_is_garbage(filled: FilledStore, damage: Damage) -> None:
    damage(filled.bucket, KEYS.segment(7))
    stats = await counted(filled.bucket)
    (folder,) = stats.folders
    assert folder.problem is not None and "7" in folder.problem
    assert (folder.contents.unclear.objects, folder.contents.garbage) == (5, NOTHING)
    assert stats.total.all.objects == len(filled.bucket.store.keys())


async def test_a_folder_that_is_being_removed(filled: FilledStore) -> None:
    record = FolderRecord("folder", "", b"token", 1, removed=True)
    await write_record(filled.bucket, KEYS.record, record.to_json())
    (folder,) = (await counted(filled.bucket)).folders
    assert (folder.problem, folder.contents.unclear.objects) == ("the folder is being removed", 5)


async def test_a_log_that_is_trimmed_meanwhile_is_read_again(filled: FilledStore) -> None:
    store = filled.bucket.store
    trimmed = False

    def trim(call: Call) -> None:
        nonlocal trimmed
        if call.operation == "get" and call.key == KEYS.segment(3) and not trimmed:
            trimmed = True
            for key in (KEYS.segment(3), KEYS.segment(4), KEYS.checkpoint(2)):
                del store.objects[key]

    reader = SimulatedBucket(store, fault=trim)
    stats = StoreStats(reader)
    await stats.run()
    assert trimmed
    assert stats.folders[0].problem is None
    assert (stats.total.live.objects, stats.total.history.objects) == (4, 1)


async def test_what_is_stored_meanwhile_is_live(filled: FilledStore) -> None:
    """An entry that comes after the log was read, and before its object is listed."""
    entry = await filled.folder.file("late", b"late")
    writing = False

    async def gate(call: Call, _: object) -> None:
        nonlocal writing
        if call.operation == "list" and call.key == KEYS.base and not writing:
            writing = True
            await filled.folder.append(entry)

    stats = StoreStats(SimulatedBucket(filled.bucket.store, gate=gate))
    await stats.run()
    assert writing
    assert (stats.total.live.objects, stats.total.garbage) == (5, NOTHING)


async def test_requests_of_all_gateways_are_added_up(filled: FilledStore) -> None:
    bucket = filled.bucket
    now = bucket.now()
    for number, days in ((1, 10), (2, 3), (3, 40)):
        record = UsageRecord(device(number), int(now - days * DAY)).plus({"put": number}, now - days * DAY, "0" * 32)
        if days < 10:
            record = record.plus({"get": 100 * number, "put": 5, RECEIVED: 1000}, now, "1" * 32)
        await write_record(bucket, usage_key(device(number)), record.to_json())
    bucket.store.put(usage_key(device(4)), b"no record")
    requests = (await counted(bucket)).requests
    assert requests is not None
    assert (requests.gateways, len(requests.unreadable)) == (2, 1)
    assert (requests.day["put"], requests.day["get"]) == (5, 200)
    assert (requests.month["put"], requests.month["get"]) == (8, 200)
    assert requests.to_json()["received_bytes"] == {"day": 1000, "month": 1000}
    assert requests.days == pytest.approx(10, abs=0.01)
    assert requests.monthly["get"] == pytest.approx(600, rel=0.01)
    assert (await counted(bucket, "folder")).requests is None


async def test_no_store_and_no_such_folder(filled: FilledStore) -> None:
    with pytest.raises(DataError, match="no store"):
        await counted(SimulatedBucket())
    with pytest.raises(NoSuchFolder):
        await counted(filled.bucket, "other")
    del filled.bucket.store.objects[PEER]
    await counted(filled.bucket)
