"""A check without the password finds each kind of damage, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.check.damaged import KEYS, PEER, Damage, FilledStore, delete, flip_bit, swap, truncate
from tests.file_infos import device
from tests.simulated import Call, Fault, SimulatedBucket
from untrusted_s3.check.share import ALL, Share
from untrusted_s3.check.store import StoreCheck
from untrusted_s3.check.strangers import Strangers
from untrusted_s3.errors import DataError, NoSuchFolder, RequestRefused
from untrusted_s3.index.entry import Removal
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.problem import Finding, Kind
from untrusted_s3.settings import ReadSettings, Settings
from untrusted_s3.store.layout import HISTORY, QUOTAS, RETENTION, STORE


def kinds(found: list[Finding]) -> set[tuple[str, Kind]]:
    return {(finding.path, finding.kind) for finding in found}


async def test_a_sound_store_has_no_findings(filled: FilledStore) -> None:
    assert await filled.findings(ALL) == []


async def test_what_was_checked_is_counted(filled: FilledStore) -> None:
    check = StoreCheck(filled.bucket, ALL)
    assert [finding async for finding in check.run(["folder"])] == []
    (folder,) = check.folders
    assert (folder.id, folder.files, folder.objects, folder.read_objects) == ("folder", 4, 4, 4)
    assert (folder.segments, folder.checkpoints, folder.unused_objects) == (6, 3, 1)
    assert folder.read_bytes == folder.bytes > 17 << 20


RECORDS = [STORE, PEER, KEYS.record, QUOTAS, RETENTION, KEYS.retention, HISTORY, KEYS.history]


@pytest.mark.parametrize("key", RECORDS)
@pytest.mark.parametrize("damage", [flip_bit, truncate, delete])
async def test_a_damaged_record_is_found(filled: FilledStore, key: str, damage: Damage) -> None:
    if damage is flip_bit:
        filled.bucket.store.put(key, b"{" + filled.bucket.store.body(key))
    else:
        damage(filled.bucket, key)
    is_known = damage is not delete or key in (STORE, KEYS.record)  # nobody knows of the others
    expected = {(key, Kind.RECORD)} if is_known else set()
    assert kinds(await filled.findings()) == expected


@pytest.mark.parametrize("position", [3, 6, 8])
@pytest.mark.parametrize("damage", [flip_bit, truncate])
async def test_a_damaged_segment_is_found(filled: FilledStore, position: int, damage: Damage) -> None:
    damage(filled.bucket, KEYS.segment(position))
    assert kinds(await filled.findings()) == {(KEYS.segment(position), Kind.SEGMENT_DAMAGED)}


async def test_a_lost_segment_that_a_checkpoint_covers_is_a_note(filled: FilledStore) -> None:
    delete(filled.bucket, KEYS.segment(4))
    (finding,) = await filled.findings()
    assert (finding.path, finding.kind, finding.kind.is_damage) == (KEYS.segment(4), Kind.HISTORY_MISSING, False)
    delete(filled.bucket, KEYS.segment(7))
    assert (KEYS.segment(7), Kind.SEGMENT_MISSING) in kinds(await filled.findings())


async def test_the_state_goes_on_behind_a_lost_segment(filled: FilledStore) -> None:
    """What later segments say is true, and their objects are checked."""
    delete(filled.bucket, KEYS.segment(7))
    (last,) = [key for key in filled.bucket.store.keys(KEYS.objects) if len(filled.bucket.store.body(key)) < 1500][-1:]
    check = StoreCheck(filled.bucket)
    assert [finding.kind async for finding in check.run()] == [Kind.SEGMENT_MISSING]
    assert check.folders[0].files == 4, last


async def test_segments_that_are_exchanged_are_found(filled: FilledStore) -> None:
    swap(filled.bucket, KEYS.segment(7), KEYS.segment(8))
    assert {path for path, _ in kinds(await filled.findings())} == {KEYS.segment(7), KEYS.segment(8)}


@pytest.mark.parametrize("position", [2, 4, 6])
@pytest.mark.parametrize("damage", [flip_bit, truncate])
async def test_a_damaged_checkpoint_is_found(filled: FilledStore, position: int, damage: Damage) -> None:
    damage(filled.bucket, KEYS.checkpoint(position))
    assert (KEYS.checkpoint(position), Kind.CHECKPOINT_DAMAGED) in kinds(await filled.findings())


async def test_an_older_checkpoint_in_the_place_of_another_is_found(filled: FilledStore) -> None:
    store = filled.bucket.store
    store.put(KEYS.checkpoint(6), store.body(KEYS.checkpoint(4)))
    assert kinds(await filled.findings()) == {(KEYS.checkpoint(6), Kind.CHECKPOINT_DAMAGED)}


async def test_a_checkpoint_of_another_history_is_found(filled: FilledStore, tmp_path: Path) -> None:
    """It is sound in itself: for example a copy from a time before the store was put back."""
    other = SimulatedBucket()
    for key in filled.bucket.store.keys(""):
        other.store.put(key, filled.bucket.store.body(key))
    for position in (6, 7, 8):
        delete(other, KEYS.segment(position))
    delete(other, KEYS.checkpoint(6))
    log = FolderLog(other, KEYS, FolderState(tmp_path / "other.sqlite"), device(3))
    await log.load()
    await log.append([filled.folder.directory("of another history")])
    await log.checkpoint()
    filled.bucket.store.put(KEYS.checkpoint(6), other.store.body(KEYS.checkpoint(6)))
    (finding,) = await filled.findings()
    assert (finding.path, finding.kind) == (KEYS.checkpoint(6), Kind.CHECKPOINT_DIFFERS)
    assert "does not say what the log says" in finding.reason


async def test_a_checkpoint_is_believed_if_the_next_segment_follows_it(filled: FilledStore) -> None:
    filled.bucket.store.put(KEYS.segment(6), b"")
    assert kinds(await filled.findings()) == {(KEYS.segment(7), Kind.SEGMENT_DAMAGED)}


@pytest.mark.parametrize("name", ["small", "large"])
async def test_damaged_objects_are_found(filled: FilledStore, name: str) -> None:
    entry = filled.small if name == "small" else filled.large
    key, store = filled.key(entry), filled.bucket.store
    whole = store.body(key)
    delete(filled.bucket, key)
    assert kinds(await filled.findings()) == {(key, Kind.OBJECT_MISSING)}
    store.put(key, whole[:-1])
    (finding,) = await filled.findings(ALL)
    assert (finding.path, finding.kind, finding.name) == (key, Kind.OBJECT_SIZE, entry.file_info.name)
    store.put(key, whole)
    flip_bit(filled.bucket, key)
    assert await filled.findings() == []
    (finding,) = await filled.findings(ALL)
    assert (finding.path, finding.kind, finding.name) == (key, Kind.OBJECT_DAMAGED, entry.file_info.name)
    assert ("part 2 of 3" in finding.reason) == (name == "large")


async def test_exchanged_objects_are_found_by_reading(filled: FilledStore) -> None:
    keys = filled.key(filled.small), filled.key(filled.other)
    swap(filled.bucket, *keys)
    assert await filled.findings() == []
    assert kinds(await filled.findings(ALL)) == {(key, Kind.OBJECT_DAMAGED) for key in keys}


async def test_parts_of_all_together_read_each_object_once(filled: FilledStore) -> None:
    for entry in (filled.small, filled.other, filled.large):
        flip_bit(filled.bucket, filled.key(entry))
    found = [finding for part in range(7) for finding in await filled.findings(Share(part / 7, (part + 1) / 7))]
    assert sorted(finding.path for finding in found) == sorted(
        map(filled.key, (filled.small, filled.other, filled.large))
    )


async def test_a_file_that_was_taken_back_is_named(filled: FilledStore) -> None:
    delete(filled.bucket, filled.key(filled.small))
    state, entry = filled.folder.state, filled.small
    assert entry.stored is not None
    name_hash = KEYS.parse_object(filled.key(entry))
    assert name_hash is not None
    removal = Removal(name_hash[0], entry.stored.object_name)
    await filled.folder.log.renew(lambda _: ([removal], []))
    assert state.missing_count == 1
    (finding,) = await filled.findings()
    assert (finding.path, finding.kind) == (filled.key(entry), Kind.FILE_MISSING)
    assert finding.name == entry.file_info.name


async def test_an_object_that_is_taken_back_meanwhile_is_no_finding(filled: FilledStore) -> None:
    """A gateway may store a newer version while the objects are listed, and delete the old one."""
    key = filled.key(filled.small)
    log = filled.folder.log

    async def gate(call: Call, phase: object) -> None:
        if call.operation == "size" and call.key == key and key not in replaced:
            replaced.append(key)
            await log.append([filled.folder.deleted("small")])

    replaced: list[str] = []
    delete(filled.bucket, key)
    filled.bucket.gate = gate
    assert await filled.findings() == []
    assert replaced


@pytest.mark.parametrize("large_folder", [1, 20_000])
async def test_strange_keys_are_noted(filled: FilledStore, large_folder: int) -> None:
    objects = f"{KEYS.objects}.DS_Store", f"{KEYS.objects}ab/file", f"{KEYS.objects}ab/cd{'0' * 30}/{'0' * 32}"
    strangers = [*objects, f"{KEYS.base}photos/a.jpg", f"{KEYS.base}note", "other/thing", "README", "store.json.old"]
    for key in (*strangers, KEYS.present_objects):
        filled.bucket.store.put(key, b"anything")
    found = await filled.findings(settings=Settings(reading=ReadSettings(large_folder=large_folder)))
    noted = [finding.path for finding in found if finding.kind is Kind.UNKNOWN]
    assert sorted(noted) == sorted(
        [*objects, f"{KEYS.base}photos/", f"{KEYS.base}note", "other/", "README", "store.json.old"]
    )


def test_of_many_strange_keys_the_first_are_named() -> None:
    strangers = Strangers("place/", most=2)
    for number in range(1002):
        strangers.add(f"place/{number}")
    *named, rest = strangers.findings()
    assert [finding.path for finding in named] == ["place/0", "place/1"]
    assert (rest.path, rest.reason) == ("place/", "1,000 more keys below it are not of this program")


async def test_an_object_that_the_store_refuses_is_named(filled: FilledStore) -> None:
    key = filled.key(filled.small)
    filled.bucket.fault = lambda call: Fault.REFUSED if (call.operation, call.key) == ("get", key) else None
    assert kinds(await filled.findings(ALL)) == {(key, Kind.OBJECT_UNREADABLE)}


async def test_a_store_that_refuses_everything_is_an_error(filled: FilledStore) -> None:
    entries = [await filled.folder.file(f"file {number}", b"x") for number in range(30)]
    await filled.folder.append(*entries)

    def refuse(call: Call) -> Fault | None:
        return Fault.REFUSED if call.operation == "get" and call.key.startswith(KEYS.objects) else None

    filled.bucket.fault = refuse
    with pytest.raises(RequestRefused):
        await filled.findings(ALL)


async def test_an_empty_bucket_is_no_store() -> None:
    with pytest.raises(DataError, match="no store"):
        [finding async for finding in StoreCheck(SimulatedBucket()).run()]


async def test_a_folder_that_is_not_there_is_an_error(filled: FilledStore) -> None:
    with pytest.raises(NoSuchFolder):
        [finding async for finding in StoreCheck(filled.bucket).run(["another"])]


async def test_a_large_folder_is_listed_in_many_pieces_at_once(filled: FilledStore) -> None:
    settings = Settings(reading=ReadSettings(large_folder=1))
    assert await filled.findings(ALL, settings) == []
    delete(filled.bucket, filled.key(filled.small))
    assert kinds(await filled.findings(ALL, settings)) == {(filled.key(filled.small), Kind.OBJECT_MISSING)}
