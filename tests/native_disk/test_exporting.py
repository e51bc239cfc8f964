"""A folder's present state as a native untrusted device has it, from a simulated bucket."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.simulated import Call, Fault, SimulatedBucket
from tests.vault.stored_folder import StoredFolder, flip, random_bytes, stored_folder
from untrusted_s3.errors import RequestRefused, StoreUnreachable, UsageError
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.history import load_newest
from untrusted_s3.index.state import FolderState
from untrusted_s3.native_disk.exporting import EncryptedCopy, ExportReport
from untrusted_s3.native_disk.trailer import native_trailer
from untrusted_s3.progress import Progress
from untrusted_s3.restore.target import Target
from untrusted_s3.settings import ReadSettings
from untrusted_s3.units import KIB, MIB

SETTINGS = ReadSettings(read_size=300 * KIB)


@pytest.fixture
def bucket() -> SimulatedBucket:
    return SimulatedBucket()


@pytest.fixture
async def folder(bucket: SimulatedBucket, tmp_path: Path) -> StoredFolder:
    return await stored_folder(bucket, tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "copy"


async def export(folder: StoredFolder, root: Path, **options: Any) -> ExportReport:
    """Export as a program of its own does."""
    assert isinstance(folder.bucket, SimulatedBucket)
    bucket = SimulatedBucket(folder.bucket.store, **options)
    state = FolderState(root.with_suffix(".sqlite"))
    try:
        await load_newest(bucket, folder.keys, state)
        progress = Progress(total_files=state.totals.files, total_bytes=state.totals.bytes)
        with Target(root) as target:
            report = await EncryptedCopy(bucket, folder.record, state, target, progress, SETTINGS).run()
        assert (progress.files, progress.bytes) == (progress.total_files, progress.total_bytes)
        return report
    finally:
        state.close()
        root.with_suffix(".sqlite").unlink()


def files(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".stfolder" not in path.parts
    }


async def wanted(folder: StoredFolder, *entries: Entry) -> dict[str, bytes]:
    """What files with these entries hold: the blocks of their objects, and their own file info."""
    found = {}
    for entry in entries:
        body = await folder.bucket.get(folder.object_key(entry))
        found[entry.file_info.name] = body[: entry.file_info.message.size] + native_trailer(entry.file_info)
    return found


async def test_the_present_state_as_a_native_device_has_it(folder: StoredFolder, root: Path) -> None:
    first = await folder.file("edited", b"first")
    await folder.append(first, await folder.file("deleted", b"gone"), folder.directory("old directory"))
    edited = await folder.file("edited", b"second")
    same = await folder.file("same", random_bytes(200), mode=0o644)
    large = await folder.file("large/file", random_bytes(9 * MIB + 5))
    empty, directory, link = await folder.file("empty", b""), folder.directory("directory"), folder.symlink("link", "a")
    await folder.append(edited, same, large, empty, directory, link)
    # The same content with other permissions: the object has the trailer of before.
    body = await folder.bucket.get(folder.object_key(same))
    touched = Entry((await folder.file("same", random_bytes(200), mode=0o600)).file_info, same.stored)
    await folder.bucket.put(folder.object_key(same), [body])
    await folder.append(folder.deleted("deleted"), folder.deleted("old directory"), touched)
    report = await export(folder, root)
    assert report == ExportReport(files=4, bytes=report.bytes, directories=2)
    assert files(root) == await wanted(folder, edited, touched, large, empty)
    for entry in (directory, link):
        assert list((root / entry.file_info.name).iterdir()) == []
    path = root / edited.file_info.name
    assert path.stat().st_mtime_ns == edited.file_info.message.modified_s * 10**9
    token = json.loads((root / ".stfolder/syncthing-encryption_password_token").read_text())
    assert token == {"FolderID": "folder", "Token": base64.b64encode(folder.record.token).decode()}


async def test_another_run_fetches_changes_alone_and_removes_what_is_gone(folder: StoredFolder, root: Path) -> None:
    stays, goes = await folder.file("stays", b"1" * 500), await folder.file("goes", b"2" * 500)
    await folder.append(stays, goes, await folder.file("changes", b"3" * 500), folder.directory("directory"))
    await export(folder, root)
    before = (root / stays.file_info.name).stat()
    left = root / goes.file_info.name
    (left.parent / ".untrusted-s3-0123456789abcdef.tmp").write_bytes(b"of a killed run")
    changed = await folder.file("changes", b"4" * 500)
    await folder.append(folder.deleted("goes"), changed, folder.deleted("directory"))
    report = await export(folder, root)
    assert (report.files, report.there, report.removed, report.failed) == (1, 1, 1, [])
    assert files(root) == await wanted(folder, stays, changed)
    after = (root / stays.file_info.name).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert not left.exists() and {path.name for path in root.iterdir()} == {".stfolder"} | {
        name.split("/")[0] for name in (stays.file_info.name, changed.file_info.name)
    }


async def test_a_file_that_is_not_whole_is_written_again(folder: StoredFolder, root: Path) -> None:
    entry = await folder.file("file", b"1" * 5000)
    await folder.append(entry)
    await export(folder, root)
    path = root / entry.file_info.name
    os.truncate(path, 3000)
    assert (await export(folder, root)).files == 1
    assert files(root) == await wanted(folder, entry)


async def test_what_cannot_be_read_is_listed_and_stops_nothing(folder: StoredFolder, root: Path) -> None:
    whole, missing = await folder.file("whole", b"1"), await folder.file("missing", b"2")
    small, large = await folder.file("small", b"3"), await folder.file("large", random_bytes(MIB))
    failing, refused = await folder.file("failing", b"4"), await folder.file("refused", b"5")
    await folder.append(whole, missing, small, large, failing, refused)
    await folder.bucket.delete(folder.object_key(missing))
    assert isinstance(folder.bucket, SimulatedBucket)
    flip(folder.bucket, folder.object_key(small), 0)
    flip(folder.bucket, folder.object_key(large), MIB // 2)
    faults = {folder.object_key(failing): Fault.UNREACHABLE, folder.object_key(refused): Fault.REFUSED}

    def script(call: Call) -> Fault | None:
        return faults.get(call.key)

    report = await export(folder, root, fault=script)
    reasons = {problem.path: problem.reason for problem in report.failed}
    assert reasons.keys() == {entry.file_info.name for entry in (missing, small, large, failing, refused)}
    assert "missing" in reasons[missing.file_info.name]
    assert all("differs from the checksum" in reasons[entry.file_info.name] for entry in (small, large))
    assert files(root) == await wanted(folder, whole)
    assert (await export(folder, root)).files == 2  # those that the store has


@pytest.mark.parametrize(("fault", "error"), [(Fault.UNREACHABLE, StoreUnreachable), (Fault.REFUSED, RequestRefused)])
async def test_a_store_that_gives_nothing_ends_the_run(
    folder: StoredFolder, root: Path, fault: Fault, error: type[Exception]
) -> None:
    await folder.append(*[await folder.file(f"file {number}", b"1") for number in range(50)])
    read: list[str] = []

    def script(call: Call) -> Fault | None:
        if call.operation != "get" or (not read and "objects" not in call.key):
            return None
        read.append(call.key)
        return fault

    with pytest.raises(error):
        await export(folder, root, fault=script)


async def test_a_directory_with_something_else_is_refused(folder: StoredFolder, root: Path) -> None:
    await folder.append(await folder.file("file", b"1"))
    root.mkdir()
    (root / "mine").write_bytes(b"mine")
    with pytest.raises(UsageError, match="not empty"):
        await export(folder, root)
    assert [path.name for path in root.iterdir()] == ["mine"]


async def test_an_export_of_another_folder_is_refused(bucket: SimulatedBucket, tmp_path: Path, root: Path) -> None:
    first = await stored_folder(bucket, tmp_path)
    await export(first, root)
    second = await StoredFolder(bucket, tmp_path, "another folder").create()
    with pytest.raises(UsageError, match="another folder"):
        await export(second, root)
