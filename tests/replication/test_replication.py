"""A simulated store is copied into another one: whole, again, interrupted, damaged, and while gateways write to it."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.file_infos import device
from tests.simulated import Call, Fault, Phase, SimulatedBucket, SimulatedStore, deny_deletions, fail_once
from tests.vault.stored_folder import START, StoredFolder, flip, random_bytes, stored_folder
from untrusted_s3.errors import NoSuchFolder, StoreError, UsageError
from untrusted_s3.index.checkpoint import keep_checkpoint, read_checkpoint
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.history import load_as_of
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.present_objects import write_present_objects
from untrusted_s3.index.state import FolderState
from untrusted_s3.progress import Progress
from untrusted_s3.replication.folder_copy import ReplicationReport
from untrusted_s3.replication.kinds import OF_STORE, Kept, of_folder
from untrusted_s3.replication.replication import replicate
from untrusted_s3.settings import Settings
from untrusted_s3.store import layout
from untrusted_s3.store.history import write_history
from untrusted_s3.store.layout import QUOTAS, FolderKeys, identity_key, node_key, peer_key
from untrusted_s3.store.quotas import Quotas, write_quotas
from untrusted_s3.store.records import NodeRecord, PeerRecord, open_store, read_peers, write_record
from untrusted_s3.store.retention import KeepRules, read_rules, write_rules
from untrusted_s3.units import MIB


@pytest.fixture
async def folder(tmp_path: Path) -> StoredFolder:
    """A folder with some history."""
    made = await stored_folder(SimulatedBucket(), tmp_path)
    await made.append(await made.file("changed", b"before"), await made.file("goes", b"1"), time=START)
    await made.append(await made.file("large", random_bytes(17 * MIB)), made.directory("sub"), time=START + 10)
    await made.append(await made.file("changed", b"after"), made.deleted("goes"), time=START + 20)
    return made


async def copy(folder: StoredFolder, target: SimulatedStore, *only: str, **options: Any) -> ReplicationReport:
    """Copy as a program of its own does. `options` are for the client of the target."""
    source, progress = folder.bucket, Progress()
    bucket = SimulatedBucket(target, **options)
    report = await replicate(source, bucket, only, Settings(), 64 * MIB, progress)
    assert (progress.files, progress.bytes) == (progress.total_files, progress.total_bytes)
    return report


def contents(store: SimulatedStore) -> dict[str, bytes]:
    return {key: store.body(key) for key in store.keys("")}


def source_of(folder: StoredFolder) -> SimulatedStore:
    assert isinstance(folder.bucket, SimulatedBucket)
    return folder.bucket.store


async def state_of(folder: StoredFolder, target: SimulatedStore, directory: Path, time: float) -> list[Entry]:
    """Return what the copy says that the folder was at a time. Each object must be there."""
    state = FolderState(directory / "reader.sqlite")
    try:
        await load_as_of(SimulatedBucket(target), folder.keys, state, int(time * 1000))
        entries = [state.entry_at(sequence) for sequence in state.sequences_after(0, 1000)]
    finally:
        state.close()
        (directory / "reader.sqlite").unlink()
    for entry in entries:
        assert entry.stored is None or len(target.body(folder.object_key(entry))) == entry.stored.size
    return entries


async def test_the_copy_is_the_same_store(folder: StoredFolder, tmp_path: Path) -> None:
    source, target = source_of(folder), SimulatedStore()
    await write_record(folder.bucket, peer_key(device(5)), PeerRecord(device(5)).to_json())
    await write_quotas(folder.bucket, Quotas({"folder": 10}))
    await write_record(folder.bucket, node_key(device(1)), NodeRecord(device(1), "runs", 1, "0" * 32).to_json())
    await write_record(folder.bucket, identity_key("cloud"), {"version": 1})
    await folder.bucket.put(folder.keys.object("0.syncthing-enc/00/000", "0" * 32), [b"of nobody"])
    await folder.log.checkpoint()
    report = await copy(folder, target)
    assert (report.folders, report.objects, report.there, report.segments, report.checkpoints) == (1, 4, 0, 3, 1)
    assert report.failed == []
    wanted = contents(source)
    del wanted[node_key(device(1))], wanted[folder.keys.object("0.syncthing-enc/00/000", "0" * 32)]
    assert contents(target) == wanted
    # Nothing is new
    report = await copy(folder, target)
    assert dataclasses.replace(report, there=0) == ReplicationReport(folders=1) and report.there == 4
    # A change, and a device that is no longer accepted
    new = await folder.file("new", b"new")
    await folder.append(new, time=START + 30)
    await folder.bucket.delete(peer_key(device(5)))
    report = await copy(folder, target)
    assert (report.objects, report.there, report.segments) == (1, 4, 1)
    assert peer_key(device(5)) not in contents(target)
    assert QUOTAS in contents(target)
    for time in (START, START + 15, START + 30):
        then = await state_of(folder, target, tmp_path, time)
        assert then == await state_of(folder, source, tmp_path, time) and then


async def test_a_large_object_goes_on_where_it_was(folder: StoredFolder) -> None:
    target = SimulatedStore()
    with pytest.raises(StoreError):
        await copy(folder, target, fault=fail_once("upload_part", Fault.UNREACHABLE, number=3))
    assert [key for key in contents(target) if "/log/" in key] == []
    bucket = SimulatedBucket(target)
    report = await replicate(folder.bucket, bucket, (), Settings(), 64 * MIB, Progress())
    assert report.failed == [] and bucket.count("upload_part") < 3
    assert contents(target) == contents(source_of(folder))


async def test_a_damaged_part_of_an_upload_from_before_is_noticed(folder: StoredFolder) -> None:
    target = SimulatedStore()
    bucket = SimulatedBucket(target)
    large = next(key for key in contents(source_of(folder)) if len(source_of(folder).body(key)) > 16 * MIB)
    state = folder.state
    (stored,) = [one for _, key, _ in state.sources() for one in state.stored_objects(key) if one.size > 16 * MIB]
    upload_id = await bucket.create_multipart_upload(large)
    await bucket.upload_part(large, upload_id, 1, [bytes(stored.part_size)])
    report = await copy(folder, target)
    assert ["was damaged" in one.reason for one in report.failed] == [True]
    assert large not in contents(target)
    assert (await copy(folder, target)).failed == []
    assert contents(target) == contents(source_of(folder))


async def test_a_copy_that_ends_anywhere_is_whole(tmp_path: Path) -> None:
    folder = await stored_folder(SimulatedBucket(), tmp_path)
    await folder.append(await folder.file("changed", b"before"), time=START)
    await folder.append(await folder.file("changed", b"after"), folder.directory("sub"), time=START + 10)
    await folder.log.checkpoint()
    await folder.append(await folder.file("new", b"new"), time=START + 30)
    times = (START, START + 15, START + 35)
    source = source_of(folder)
    wanted = [await state_of(folder, source, tmp_path, time) for time in times]
    for number in itertools.count(0, 3):
        target, calls, ended = SimulatedStore(), itertools.count(), False

        def fail(call: Call, number: int = number, calls: Any = calls) -> Fault | None:
            if next(calls) < number:
                return None
            return Fault.UNREACHABLE if number % 2 else Fault.ANSWER_LOST

        with contextlib.suppress(StoreError):
            await copy(folder, target, fault=fail)
            ended = True
        if target.keys(folder.keys.segments) or target.keys(folder.keys.checkpoints):
            assert await state_of(folder, target, tmp_path, START + 1000) in wanted
        report = await copy(folder, target)
        assert report.failed == []
        assert [await state_of(folder, target, tmp_path, time) for time in times] == wanted
        assert contents(target) == contents(source)
        if ended:
            break
    assert number > 15


async def test_damage_in_the_store_is_named_and_not_copied(folder: StoredFolder) -> None:
    source, target = source_of(folder), SimulatedStore()
    damaged, missing = [await folder.file(name, random_bytes(5000, name)) for name in ("damaged", "missing")]
    await folder.append(damaged, missing, time=START + 30)
    assert isinstance(folder.bucket, SimulatedBucket)
    whole = source.body(folder.object_key(damaged))
    flip(folder.bucket, folder.object_key(damaged), 100)
    await folder.bucket.delete(folder.object_key(missing))
    report = await copy(folder, target)
    reasons = {problem.path: problem.reason for problem in report.failed}
    assert reasons == {
        folder.object_key(damaged): "the object differs from the checksum in the log, at byte 0 or after",
        folder.object_key(missing): "the object is missing",
    }
    assert (report.objects, report.segments) == (4, 4)
    source.put(folder.object_key(damaged), whole)
    report = await copy(folder, target)
    assert (report.objects, len(report.failed)) == (1, 1)


async def test_a_damaged_segment_ends_the_copy_before_it(folder: StoredFolder, tmp_path: Path) -> None:
    target = SimulatedStore()
    assert isinstance(folder.bucket, SimulatedBucket)
    flip(folder.bucket, folder.keys.segment(3), 50)
    report = await copy(folder, target)
    assert {problem.path for problem in report.failed} == {folder.keys.segment(3)}
    assert report.segments == 2
    flip(folder.bucket, folder.keys.segment(3), 50)
    assert (await copy(folder, target)).failed == []
    assert contents(target) == contents(source_of(folder))


async def test_a_copy_that_was_written_to_is_left_alone(folder: StoredFolder, tmp_path: Path) -> None:
    target = SimulatedStore()
    await copy(folder, target)
    state = FolderState(tmp_path / "gateway.sqlite")
    try:
        log = FolderLog(SimulatedBucket(target), folder.keys, state, device(2), clock=target.clock)
        await log.load()
        await log.append([folder.directory("made on the copy")])
    finally:
        state.close()
    before = contents(target)
    for _ in range(2):
        report = await copy(folder, target)
        assert ["somebody else has written to the copy" in one.reason for one in report.failed] == [True]
        assert contents(target) == before
        await folder.append(folder.directory("made on the store"))  # the same position


async def test_what_the_store_has_trimmed(folder: StoredFolder, tmp_path: Path) -> None:
    target = SimulatedStore()
    await copy(folder, target)
    await folder.append(folder.directory("four"), time=START + 40)
    await folder.log.checkpoint()
    await folder.append(folder.directory("five"), time=START + 50)
    for position in (1, 2, 3, 4):
        await folder.bucket.delete(folder.keys.segment(position))
    report = await copy(folder, target)
    assert (report.deleted, report.segments, report.checkpoints, report.failed) == (3, 1, 1, [])
    assert target.keys(folder.keys.segments) == [folder.keys.segment(5)]
    now = await state_of(folder, target, tmp_path, START + 60)
    assert now == await state_of(folder, source_of(folder), tmp_path, START + 60)


async def test_a_gateway_writes_meanwhile(folder: StoredFolder, tmp_path: Path) -> None:
    target = SimulatedStore()
    new = await folder.file("new", b"new")
    wanted = await state_of(folder, source_of(folder), tmp_path, START + 1000)
    appended = False

    async def gate(call: Call, phase: Phase) -> None:
        nonlocal appended
        if call.operation == "put" and "/objects/" in call.key and not appended:
            appended = True
            await folder.append(new, time=START + 30)

    assert (await copy(folder, target, gate=gate)).failed == []
    assert appended
    assert await state_of(folder, target, tmp_path, START + 1000) == wanted
    await copy(folder, target)
    assert contents(target) == contents(source_of(folder))


async def test_part_of_a_store_and_strange_targets(folder: StoredFolder, tmp_path: Path) -> None:
    other = await StoredFolder(folder.bucket, tmp_path, "other").create()
    await other.append(await other.file("x", b"x"))
    target = SimulatedStore()
    assert (await copy(folder, target, "other")).folders == 1
    assert target.keys(folder.keys.base) == [] and target.keys(other.keys.base)
    with pytest.raises(NoSuchFolder):
        await copy(folder, target, "none")
    another = SimulatedStore()
    await open_store(SimulatedBucket(another))
    with pytest.raises(UsageError, match="another store"):
        await copy(folder, another)
    running = NodeRecord(device(1), "runs", 1, "0" * 32).to_json()
    await write_record(SimulatedBucket(target), node_key(device(1)), running)
    with pytest.raises(UsageError, match="runs"):
        await copy(folder, target)
    await write_record(folder.bucket, folder.keys.record, dataclasses.replace(folder.record, index_id=22).to_json())
    await SimulatedBucket(target).delete(node_key(device(1)))
    await copy(folder, target)
    await write_record(folder.bucket, folder.keys.record, dataclasses.replace(folder.record, index_id=24).to_json())
    report = await copy(folder, target)
    assert ["another folder of this ID" in one.reason for one in report.failed] == [True]


# What each kind of key in docs/format.md becomes in a copy
FOLDER_KINDS = of_folder(FolderKeys("folders/{folder}/"))


def test_each_kind_of_key_is_told() -> None:
    """A kind that is added needs a rule for what a copy has of it."""
    text = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
    listed = [line.removeprefix("{prefix}") for line in text.splitlines() if line.startswith("{prefix}")]
    in_folders = {*FolderKeys("folders/{folder}/").records, *FolderKeys("folders/{folder}/").directories}
    assert set(FOLDER_KINDS) == in_folders
    assert set(OF_STORE) == {*layout.RECORDS, *layout.DIRECTORIES}
    for key in listed:
        kinds = FOLDER_KINDS if key.startswith("folders/{folder}/") else OF_STORE
        assert [kind for kind in kinds if key == kind or (kind.endswith("/") and key.startswith(kind))], key
    page = (Path(__file__).parents[2] / "docs" / "second-bucket.md").read_text(encoding="utf-8")
    for kind in (*OF_STORE, *FOLDER_KINDS):
        if kind != layout.FOLDERS:
            assert f"`{kind.replace('{folder}', '…')}{'…' if kind.endswith('/') else ''}`" in page, kind


async def with_all_kinds(folder: StoredFolder) -> dict[str, Kept]:
    """Add what the folder's store lacks. Return an example of each kind, and what becomes of it."""
    keys, bucket = folder.keys, folder.bucket
    await folder.log.checkpoint()
    await keep_checkpoint(bucket, keys, 3, keys.kept_checkpoint(3, 1_700_000_000))
    await write_present_objects(bucket, keys, folder.state)
    await write_record(bucket, peer_key(device(5)), PeerRecord(device(5)).to_json())
    await write_quotas(bucket, Quotas({"folder": 10}))
    await write_rules(bucket, None, KeepRules(daily=1))
    await write_rules(bucket, keys, KeepRules(daily=2))
    await write_history(bucket, None, 60)
    await write_history(bucket, keys, 7)
    others = {
        identity_key("cloud"): Kept.ADDED,
        keys.damaged(2, "0" * 32): Kept.ADDED,
        keys.loss(2, "0" * 32): Kept.MIRRORED,
        node_key(device(1)): Kept.LEFT_OUT,
        layout.usage_key(device(1)): Kept.LEFT_OUT,
        layout.PROBE_OF_RIGHTS: Kept.LEFT_OUT,
        keys.garbage_record("0" * 32): Kept.LEFT_OUT,
        keys.scrub: Kept.LEFT_OUT,
    }
    for key in others:
        await bucket.put(key, [b"{}"])
    return {
        **others,
        layout.STORE: Kept.ADDED,
        keys.record: Kept.ADDED,
        source_of(folder).keys(keys.objects)[0]: Kept.NAMED,
        keys.segment(3): Kept.TRIMMED,
        keys.checkpoint(3): Kept.TRIMMED,
        keys.kept_checkpoint(3, 1_700_000_000): Kept.TRIMMED,
        keys.present_objects: Kept.MIRRORED,
        keys.retention: Kept.MIRRORED,
        layout.RETENTION: Kept.MIRRORED,
        keys.history: Kept.MIRRORED,
        layout.HISTORY: Kept.MIRRORED,
        layout.QUOTAS: Kept.MIRRORED,
        peer_key(device(5)): Kept.MIRRORED,
    }


async def test_each_kind_is_copied_as_it_is_told(folder: StoredFolder) -> None:
    kinds = await with_all_kinds(folder)
    told = {**OF_STORE, **of_folder(folder.keys)}
    for key, kept in kinds.items():
        (place,) = [one for one in told if key == one or (one.endswith("/") and one != layout.FOLDERS and one in key)]
        assert told[place] is kept, key
    assert len(kinds) == len(told) - 1, "folders/ has no key of its own"
    target = SimulatedStore()
    report = await copy(folder, target)
    assert (report.failed, report.states) == ([], 1)
    copied = {key: body for key, body in contents(source_of(folder)).items() if kinds.get(key) is not Kept.LEFT_OUT}
    assert contents(target) == copied
    for key, kept in kinds.items():
        if kept is Kept.MIRRORED and key != folder.keys.present_objects:
            await folder.bucket.delete(key)
            del copied[key]
    await copy(folder, target)
    assert contents(target) == copied


async def test_states_that_are_kept(folder: StoredFolder, tmp_path: Path) -> None:
    """A state that is kept has all of its objects in the copy, also those that only it names, and goes when it goes."""
    keys = folder.keys
    await folder.log.checkpoint()
    kept = keys.kept_checkpoint(3, 1_700_000_000)
    await keep_checkpoint(folder.bucket, keys, 3, kept)
    large = next(key for key in contents(source_of(folder)) if len(source_of(folder).body(key)) > 16 * MIB)
    await folder.append(folder.deleted("large"), time=START + 40)
    await folder.log.checkpoint()
    for key in (keys.checkpoint(3), *map(keys.segment, (1, 2, 3, 4))):
        await folder.bucket.delete(key)
    target = SimulatedStore()
    whole = source_of(folder).body(large)
    await folder.bucket.delete(large)
    report = await copy(folder, target)
    assert [problem.path for problem in report.failed] == [large]
    assert kept not in contents(target), "it would lack an object"
    source_of(folder).put(large, whole)
    report = await copy(folder, target)
    assert (report.failed, report.states, report.objects) == ([], 1, 1)
    state = FolderState(tmp_path / "kept.sqlite")
    try:
        await read_checkpoint(SimulatedBucket(target), keys, 3, state, kept_as=kept)
        entries = [state.entry_at(sequence) for sequence in state.sequences_after(0, 1000)]
        assert all(one.stored is None or folder.object_key(one) in contents(target) for one in entries)
        assert large in map(folder.object_key, (one for one in entries if one.stored is not None))
    finally:
        state.close()
    await folder.bucket.delete(kept)
    report = await copy(folder, target)
    assert (report.deleted, kept in contents(target), large in contents(target)) == (1, False, True)


async def test_credentials_that_may_not_delete(folder: StoredFolder) -> None:
    """The copy does not accept a device that was removed; what was trimmed stays, and is counted."""
    kinds = await with_all_kinds(folder)
    target = SimulatedStore()
    await copy(folder, target)
    gone = [key for key, kept in kinds.items() if kept is Kept.MIRRORED and key != folder.keys.present_objects]
    await folder.append(folder.directory("four"), time=START + 40)
    await folder.log.checkpoint()
    trimmed = [folder.keys.checkpoint(3), *map(folder.keys.segment, (1, 2, 3, 4))]
    for key in (*gone, *trimmed, folder.keys.kept_checkpoint(3, 1_700_000_000)):
        await folder.bucket.delete(key)
    for _ in range(2):
        report = await copy(folder, target, fault=deny_deletions)
        assert (report.failed, report.deleted, report.left) == ([], 0, 5)
        assert [len(target.body(key)) for key in gone] == [0] * len(gone)
        peers = await read_peers(SimulatedBucket(target))
        assert (list(peers), peers.unreadable) == ([], [])
    assert (await read_rules(SimulatedBucket(target), folder.keys)).rules == KeepRules()
    report = await copy(folder, target)
    assert (report.deleted, report.left) == (5, 0)
    await write_record(folder.bucket, peer_key(device(5)), PeerRecord(device(5)).to_json())
    await copy(folder, target)
    assert len(await read_peers(SimulatedBucket(target))) == 1


async def test_a_damaged_part_of_an_upload_where_nothing_may_be_deleted(folder: StoredFolder) -> None:
    target = SimulatedStore()
    bucket = SimulatedBucket(target)
    large = next(key for key in contents(source_of(folder)) if len(source_of(folder).body(key)) > 16 * MIB)
    (stored,) = [
        one for _, key, _ in folder.state.sources() for one in folder.state.stored_objects(key) if one.part_size
    ]
    upload_id = await bucket.create_multipart_upload(large)
    await bucket.upload_part(large, upload_id, 1, [bytes(stored.part_size)])
    report = await copy(folder, target, fault=deny_deletions)
    assert ["was damaged" in one.reason for one in report.failed] == [True]
    assert target.body(large) == b"", "the next run copies it"
