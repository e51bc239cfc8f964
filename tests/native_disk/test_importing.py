"""An import into a simulated store: whole, again, interrupted, and into a folder that is there."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.native_disk.disk import Disk
from tests.simulated import Call, Fault, SimulatedBucket, SimulatedStore
from tests.vault.stored_folder import random_bytes
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import FolderRemovalUnfinished, StoreError, UsageError
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.native_disk.importing import Import, ImportReport, measured, open_folder
from untrusted_s3.native_disk.token_file import find_token
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.settings import LogSettings, Settings
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord, write_record
from untrusted_s3.units import MIB

KEYS = FolderKeys.of("folder")
SETTINGS = Settings(log=LogSettings(segment_entries=3))


@pytest.fixture
async def disk(tmp_path: Path) -> Disk:
    return await Disk.create(tmp_path)


@pytest.fixture
def store() -> SimulatedStore:
    return SimulatedStore()


async def run_import(disk: Disk, store: SimulatedStore, settings: Settings = SETTINGS, **options: Any) -> ImportReport:
    """Import as a program of its own does."""
    bucket = SimulatedBucket(store, **options)
    marker, token = find_token(disk.root)
    await open_folder(bucket, token)
    state = FolderState(disk.root.with_suffix(".sqlite"))
    try:
        log = FolderLog(bucket, KEYS, state, DeviceID(bytes(32)), clock=store.clock)
        await log.load()
        progress = measured(disk.root, marker)
        work = Import(bucket, KEYS, log, disk.root, marker, progress, settings, 64 * MIB, clock=lambda: 0.0)
        report = await work.run()
        assert (progress.files, progress.bytes) == (progress.total_files, progress.total_bytes)
        return report
    finally:
        state.close()
        disk.root.with_suffix(".sqlite").unlink()


async def stored(store: SimulatedStore, directory: Path) -> dict[str, Entry]:
    """Return what the log says, by name. Each object must be what its entry says."""
    state = FolderState(directory / "reader.sqlite")
    try:
        await FolderLog(SimulatedBucket(store), KEYS, state, DeviceID(bytes(32)), clock=store.clock).load()
        entries = [state.entry_at(sequence) for sequence in state.sequences_after(0, 1000)]
    finally:
        state.close()
        (directory / "reader.sqlite").unlink()
    for entry in entries:
        if entry.stored is not None:
            key = KEYS.object(entry.file_info.name, entry.stored.object_name)
            assert len(store.body(key)) == entry.stored.size
    return {entry.file_info.name: entry for entry in entries}


async def some_files(disk: Disk, count: int) -> list[Entry]:
    entries = [await disk.folder.file(f"file {number}", random_bytes(3000 + number, number)) for number in range(count)]
    for entry in entries:
        await disk.write(entry)
    return entries


async def test_files_are_stored_as_they_are(disk: Disk, store: SimulatedStore, tmp_path: Path) -> None:
    entries = await some_files(disk, 7)
    entries.append(await disk.folder.file("large", random_bytes(9 * MIB + 5)))
    entries.append(await disk.folder.file("directory/several blocks", random_bytes(MIB // 2)))
    entries.append(await disk.folder.file("long " * 60, b""))
    for entry in entries[7:]:
        await disk.write(entry)
    await disk.write(disk.folder.directory("empty"))
    await disk.write(disk.folder.symlink("link", "target"))
    report = await run_import(disk, store)
    assert report == ImportReport(files=10, bytes=sum(one.file_info.message.size for one in entries), directories=2)
    found = await stored(store, tmp_path)
    assert found == {entry.file_info.name: entry for entry in entries}
    for entry in entries:
        assert store.body(disk.folder.object_key(entry)) == await disk.content(entry)
    record = FolderRecord.from_json(json.loads(store.body(KEYS.record)))
    assert (record.token, record.removed) == (disk.folder.record.token, False)
    assert len(store.keys(KEYS.segments)) == 4  # three entries each
    before = {key: store.body(key) for key in store.keys("")}
    assert await run_import(disk, store) == ImportReport(there=10, directories=2)
    assert {key: store.body(key) for key in store.keys("")} == before


async def test_an_import_that_ends_anywhere_goes_on(disk: Disk, tmp_path: Path) -> None:
    entries = await some_files(disk, 3)
    settings = Settings(log=LogSettings(segment_entries=2))
    for number in itertools.count():
        store, ended, calls = SimulatedStore(), False, itertools.count()

        def crash(call: Call, number: int = number, calls: Any = calls) -> Fault | None:
            if next(calls) < number:
                return None
            return Fault.UNREACHABLE if number % 2 else Fault.ANSWER_LOST

        with contextlib.suppress(StoreError):
            await run_import(disk, store, settings, fault=crash)
            ended = True
        report = await run_import(disk, store)
        assert (report.files + report.there, report.refused) == (3, [])
        assert await stored(store, tmp_path) == {entry.file_info.name: entry for entry in entries}
        assert len(store.keys(KEYS.objects)) == 3
        if ended:
            break
    assert number > 15


async def test_what_the_folder_has_already(disk: Disk, store: SimulatedStore, tmp_path: Path) -> None:
    old = await disk.folder.file("changed", b"old")
    older = await disk.folder.file("edited since", b"older")
    gone = await disk.folder.file("deleted since", b"gone")
    for entry in (old, older, gone):
        await disk.write(entry)
    await run_import(disk, store)
    # Devices go on with the gateway, and one also with the native device.
    edited, deleted = await disk.folder.file("edited since", b"edited"), disk.folder.deleted("deleted since")
    new = await disk.folder.file("changed", b"new")
    await disk.write(new)
    state = FolderState(tmp_path / "gateway.sqlite")
    try:
        bucket = SimulatedBucket(store)
        await bucket.put(disk.folder.object_key(edited), [await disk.content(edited)])
        log = FolderLog(bucket, KEYS, state, DeviceID(bytes(32)), clock=store.clock)
        await log.append([edited, deleted])
    finally:
        state.close()
    report = await run_import(disk, store)
    assert (report.files, report.there, report.older) == (1, 0, 2)
    found = await stored(store, tmp_path)
    assert [found[entry.file_info.name] for entry in (new, edited, deleted)] == [new, edited, deleted]


async def test_strange_things_are_refused_and_stop_nothing(disk: Disk, store: SimulatedStore, tmp_path: Path) -> None:
    good, *bad = await some_files(disk, 7)
    paths = [disk.root / entry.file_info.name for entry in bad]
    no_info, short, other, cut, plain, unreadable = paths
    no_info.write_bytes(random_bytes(5000))
    short.write_bytes(b"ab")
    other.write_bytes(await disk.content(good))
    cut.write_bytes((await disk.content(bad[3]))[100:])
    message = pb.FileInfo.FromString(bad[4].file_info.raw)
    message.encrypted = b""
    raw = message.SerializeToString()
    plain.write_bytes(bytes(message.size) + raw + len(raw).to_bytes(4, "big"))
    unreadable.unlink()
    unreadable.symlink_to(disk.root / good.file_info.name)
    (disk.root / "letter.txt").write_text("of a user")
    (disk.root / "photos" / "2026").mkdir(parents=True)
    (disk.root / "photos" / "2026" / "one.jpg").touch()
    (paths[0].parent / "~syncthing~abc.tmp").touch()
    (paths[0].parent / ".syncthing.abc.tmp").touch()
    (disk.root / ".stignore").touch()
    (disk.root / ".stversions" / "old").mkdir(parents=True)
    report = await run_import(disk, store)
    assert (report.files, report.unfinished) == (1, 2)
    reasons = {problem.path: problem.reason for problem in report.refused}
    no_trailer = "does not end with the file info of an encrypted file"
    names = [entry.file_info.name for entry in bad]
    assert reasons == {
        names[0]: no_trailer,
        names[1]: no_trailer,
        names[2]: f"its file info is that of another file, {good.file_info.name!r}",
        names[3]: f"it has {bad[3].file_info.message.size - 100} bytes of blocks, and its file info says"
        f" {bad[3].file_info.message.size}",
        names[4]: no_trailer,
        names[5]: "a symlink whose name is not encrypted",
        "letter.txt": "a file whose name is not encrypted",
        "photos": "a directory whose name is not encrypted",
    }
    assert await stored(store, tmp_path) == {good.file_info.name: good}


async def test_sizes_that_count_the_trailer(disk: Disk, store: SimulatedStore, tmp_path: Path) -> None:
    """A device that had the file from another untrusted one before 1.23.5 leaves the place of that one's trailer."""
    entry = await disk.folder.file("file", b"1" * 500)
    size = entry.file_info.message.size
    counted = pb.FileInfo.FromString(entry.file_info.raw)
    counted.size += len(encode_trailer(entry.file_info))
    raw = counted.SerializeToString()
    path = await disk.write(entry)
    gap = bytes(counted.size - size)
    path.write_bytes(path.read_bytes()[:size] + gap + raw + len(raw).to_bytes(4, "big"))
    assert (await run_import(disk, store)).refused == []
    (found,) = (await stored(store, tmp_path)).values()
    assert found.file_info.message.size == size
    assert store.body(disk.folder.object_key(entry)) == path.read_bytes()[:size] + encode_trailer(found.file_info)


async def test_another_password_and_a_folder_that_is_being_removed(disk: Disk, store: SimulatedStore) -> None:
    bucket, (_, token) = SimulatedBucket(store), find_token(disk.root)
    record = await open_folder(bucket, token)
    with pytest.raises(UsageError, match="another encryption password"):
        await open_folder(bucket, dataclasses.replace(token, token=b"x" * 16))
    await write_record(bucket, KEYS.record, dataclasses.replace(record, removed=True).to_json())
    with pytest.raises(FolderRemovalUnfinished):
        await open_folder(bucket, token)


async def test_a_damaged_object_in_the_place_gets_another_name(
    disk: Disk, store: SimulatedStore, tmp_path: Path
) -> None:
    (entry,) = await some_files(disk, 1)
    assert entry.stored is not None
    await SimulatedBucket(store).put(disk.folder.object_key(entry), [b"damaged"])
    assert (await run_import(disk, store)).files == 1
    (found,) = (await stored(store, tmp_path)).values()
    assert found.stored == dataclasses.replace(entry.stored, object_name=f"{entry.stored.object_name}-1")
