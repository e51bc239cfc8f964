"""Restoring a folder from a simulated bucket to a disk."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loops import RunAsync
from tests.simulated import Call, Fault, Phase, SimulatedBucket, fast_directory
from tests.vault.conflicting import GONE_COPY, REPORT_COPY, fill
from tests.vault.stored_folder import (
    FOLDER_ID,
    MODIFIED_NS,
    PASSWORD,
    StoredFolder,
    flip,
    random_bytes,
    stored_folder,
)
from tests.virtual_time import virtual_time
from tests.waiting import PATIENCE, give_a_chance, until
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.errors import NotRestored, RequestRefused, StoreUnreachable
from untrusted_s3.index.entry import Entry as LogEntry
from untrusted_s3.progress import Progress
from untrusted_s3.restore.report import Outcome, RestoreOptions, RestoreReport
from untrusted_s3.restore.restoration import Restoration, is_same_time
from untrusted_s3.restore.target import Target
from untrusted_s3.settings import ReadSettings
from untrusted_s3.units import KIB, MIB
from untrusted_s3.vault.entry import Entry
from untrusted_s3.vault.folder import open_folder
from untrusted_s3.vault.reading import BlockReader
from untrusted_s3.vault.selection import Selection

PLAIN = RestoreOptions()
READS = {"get", "list", "size", "download_file"}


@pytest.fixture
def bucket() -> SimulatedBucket:
    return SimulatedBucket()


@pytest.fixture
async def folder(bucket: SimulatedBucket, tmp_path: Path) -> StoredFolder:
    return await stored_folder(bucket, tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "target"


async def restore(
    bucket: SimulatedBucket,
    root: Path,
    options: RestoreOptions = PLAIN,
    *,
    globs: Sequence[str] = (),
    progress: Progress | None = None,
    outcomes: dict[str, Outcome] | None = None,
    conflicts: bool = False,
) -> RestoreReport:
    """Restore as a program of its own does, and check that it only reads."""
    seen = outcomes if outcomes is not None else {}
    try:
        async with open_folder(bucket, FOLDER_ID, PASSWORD) as opened, BlockReader(opened) as reader:
            with Target(root) as target:

                def note(entry: Entry, outcome: Outcome) -> None:
                    seen[entry.path] = outcome

                run = Restoration(reader, target, options, progress or Progress(), note)
                return await run.run(Selection(globs).of(opened, conflicts=conflicts))
    finally:
        assert {call.operation for call in bucket.calls} <= READS


def reader_of(folder: StoredFolder, **options: Any) -> SimulatedBucket:
    assert isinstance(folder.bucket, SimulatedBucket)
    return SimulatedBucket(folder.bucket.store, **options)


def failures(report: RestoreReport) -> dict[str, str]:
    return {problem.path: problem.reason for problem in report.failed}


def tree(root: Path) -> dict[str, object]:
    """Return contents of files, targets of symlinks, and None for directories, by path."""
    found: dict[str, object] = {}
    for path in root.rglob("*"):
        content = path.readlink() if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = content
    return found


async def test_everything_comes_back(folder: StoredFolder, root: Path) -> None:
    contents = {
        "empty": b"",
        "one": b"1",
        "deep/er/file": random_bytes(1000),
        "block": random_bytes(128 * KIB, 1),
        "blocks": random_bytes(300 * KIB + 7, 2),
        "large": random_bytes(9 * MIB + 5, 3),
        "Grüße/漢字": random_bytes(50, 4),
    }
    await folder.append(
        folder.directory("deep", mode=0o555, modified_ns=10**18 + 1),
        folder.directory("deep/er", mode=0o700, modified_ns=10**18 + 2),
        folder.directory("Grüße"),
        folder.directory("empty directory", modified_ns=10**18 + 3),
        folder.symlink("link", "deep/er/file"),
        folder.symlink("deep/out", "../../../etc"),
        folder.symlink("bytes", b"\xff\xfe"),
        *[await folder.file(path, data, mode=0o640) for path, data in contents.items()],
        folder.deleted("was here"),
    )
    progress = Progress()
    outcomes: dict[str, Outcome] = {}
    report = await restore(reader_of(folder), root, progress=progress, outcomes=outcomes)
    assert (report.failed, report.incomplete) == ([], [])
    assert (report.files, report.directories, report.symlinks, report.there) == (7, 4, 3, 0)
    assert report.bytes == sum(map(len, contents.values()))
    links = {"link": Path("deep/er/file"), "deep/out": Path("../../../etc"), "bytes": Path(os.fsdecode(b"\xff\xfe"))}
    directories = dict.fromkeys(("deep", "deep/er", "Grüße", "empty directory"))
    assert tree(root) == contents | links | directories
    assert outcomes == dict.fromkeys([*contents, *links], Outcome.RESTORED)
    for path in contents:
        status = (root / path).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o640, MODIFIED_NS)
    for number, (path, mode) in enumerate([("deep", 0o555), ("deep/er", 0o700)], 1):
        status = (root / path).stat()
        assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (mode, 10**18 + number)
    assert (root / "empty directory").stat().st_mtime_ns == 10**18 + 3
    assert progress.files == 7
    assert progress.bytes >= report.bytes


async def test_zeros_come_back_as_holes(folder: StoredFolder, root: Path) -> None:
    data = bytes(3 * MIB) + b"middle" + bytes(3 * MIB)
    await folder.append(await folder.file("sparse", data), await folder.file("zeros", bytes(MIB)))
    await restore(reader_of(folder), root)
    assert tree(root) == {"sparse": data, "zeros": bytes(MIB)}
    assert (root / "sparse").stat().st_blocks * 512 <= 16 * KIB
    assert (root / "zeros").stat().st_blocks * 512 <= 4 * KIB


# A second run


async def test_a_second_run_fetches_nothing(folder: StoredFolder, root: Path) -> None:
    await folder.append(
        await folder.file("file", b"1"),
        await folder.file("large", random_bytes(MIB)),
        folder.directory("d", mode=0o500),
        await folder.file("d/inside", b"2"),
        folder.symlink("link", "file"),
    )
    await restore(reader_of(folder), root)
    before = tree(root)
    (root / "d").chmod(0o500)
    again = reader_of(folder)
    outcomes: dict[str, Outcome] = {}
    report = await restore(again, root, outcomes=outcomes)
    assert (report.files, report.symlinks, report.there, report.failed) == (0, 0, 4, [])
    assert set(outcomes.values()) == {Outcome.THERE}
    assert tree(root) == before
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o500
    assert not [call for call in again.calls if "/objects/" in call.key]


@pytest.mark.parametrize("change", ["content", "time", "symlink"])
async def test_what_differs_is_replaced_only_when_overwriting(folder: StoredFolder, root: Path, change: str) -> None:
    await folder.append(await folder.file("file", b"theirs"), await folder.file("other", b"1"))
    await restore(reader_of(folder), root)
    file = root / "file"
    match change:
        case "content":
            file.write_bytes(b"mine, and longer")
        case "time":
            os.utime(file, ns=(1, 1))
        case "symlink":
            file.unlink()
            file.symlink_to("other")
    mine = tree(root)["file"]
    again = reader_of(folder)
    report = await restore(again, root)
    assert failures(report) == {"file": "something else is there"}
    assert report.taken == ["file"]
    assert tree(root)["file"] == mine
    assert not [call for call in again.calls if "/objects/" in call.key]
    report = await restore(reader_of(folder), root, RestoreOptions(overwrite=True))
    assert (report.files, report.there, report.failed) == (1, 1, [])
    assert tree(root) == {"file": b"theirs", "other": b"1"}
    assert file.stat().st_mtime_ns == MODIFIED_NS


async def test_overwriting_brings_back_permissions_too(folder: StoredFolder, root: Path) -> None:
    await folder.append(await folder.file("file", b"1", mode=0o640))
    await restore(reader_of(folder), root)
    (root / "file").chmod(0o666)
    await restore(reader_of(folder), root)
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o666
    await restore(reader_of(folder), root, RestoreOptions(overwrite=True))
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o640


async def test_a_file_that_may_not_be_opened_counts_as_there(
    folder: StoredFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await folder.append(await folder.file("file", b"1", mode=0o000))
    await restore(reader_of(folder), root)

    def refuse(*arguments: object) -> list[str]:
        raise NotRestored("Permission denied")

    monkeypatch.setattr(Target, "set_metadata", refuse)
    report = await restore(reader_of(folder), root, RestoreOptions(overwrite=True))
    assert (report.there, report.failed) == (1, [])
    assert [problem.reason for problem in report.incomplete] == ["metadata: Permission denied"]


async def test_a_dry_run_reports_and_writes_nothing(folder: StoredFolder, root: Path) -> None:
    await folder.append(
        await folder.file("there", b"1"),
        await folder.file("differs", b"2"),
        await folder.file("new", b"333"),
        folder.directory("directory"),
        folder.symlink("link", "new"),
    )
    await restore(reader_of(folder), root, globs=["there", "differs"])
    (root / "differs").write_bytes(b"mine")
    before, reader = tree(root), reader_of(folder)
    outcomes: dict[str, Outcome] = {}
    report = await restore(reader, root, RestoreOptions(dry_run=True), outcomes=outcomes)
    assert outcomes == {"there": Outcome.THERE, "new": Outcome.RESTORED, "link": Outcome.RESTORED}
    assert (report.files, report.bytes, report.directories, report.symlinks) == (1, 3, 1, 1)
    assert failures(report).keys() == {"differs"}
    assert tree(root) == before
    assert not [call for call in reader.calls if "/objects/" in call.key]


# An interrupt


async def test_an_interrupt_leaves_no_temporary_file_and_finished_ones_stay(folder: StoredFolder, root: Path) -> None:
    finished, small, large = (
        await folder.file("finished", b"1"),
        await folder.file("small", b"2"),
        random_bytes(17 * MIB),
    )
    entry = await folder.file("large", large)
    await folder.append(finished, small, entry)
    going = {folder.object_key(finished), folder.object_key(entry)}

    async def gate(call: Call, phase: Phase) -> None:
        """Neither the small file nor the last range of the large one ever arrives."""
        if "/objects/" in call.key and (call.key not in going or call.start > 9 * MIB):
            await asyncio.Event().wait()

    running = asyncio.create_task(restore(reader_of(folder, gate=gate), root))
    await until(lambda: (root / "finished").exists() and max(path.stat().st_size for path in root.iterdir()) > 4 * MIB)
    assert len(list(root.iterdir())) == 2
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert tree(root) == {"finished": b"1"}
    again = reader_of(folder)
    report = await restore(again, root)
    assert (report.files, report.there, report.failed) == (2, 1, [])
    assert tree(root) == {"finished": b"1", "small": b"2", "large": large}
    assert folder.object_key(finished) not in {call.key for call in again.calls}


@pytest.mark.parametrize("size", [1, MIB])
async def test_an_interrupt_waits_for_a_write_that_runs(
    folder: StoredFolder, root: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """The write uses descriptors: closed meanwhile, their numbers could belong to another file."""
    await folder.append(await folder.file("file", random_bytes(size)))
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    pwrite = os.pwrite

    def slow(descriptor: int, data: bytes, offset: int) -> int:
        begun.set()
        assert go_on.wait(PATIENCE)
        written = pwrite(descriptor, data, offset)
        ended.set()
        return written

    monkeypatch.setattr(os, "pwrite", slow)
    running = asyncio.create_task(restore(reader_of(folder), root))
    assert await asyncio.to_thread(begun.wait, PATIENCE)
    running.cancel()
    await give_a_chance()
    assert not running.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()
    assert not [path for path in tree(root) if path.endswith(".tmp")]


async def test_a_store_that_goes_away_ends_the_run(folder: StoredFolder, root: Path) -> None:
    entries = [await folder.file(f"file {number}", b"1") for number in range(50)]
    await folder.append(*entries)
    lost = folder.object_key(entries[40])
    away: list[str] = []

    def fault(call: Call) -> Fault | None:
        if call.key == lost or away:
            away.append(call.key)
            return Fault.UNREACHABLE
        return None

    reader = reader_of(folder, fault=fault)
    with pytest.raises(StoreUnreachable):
        await restore(reader, root)
    assert not [path for path in tree(root) if path.endswith(".tmp")]


@settings(max_examples=10, deadline=None)
@given(st.sets(st.integers(0, 29), min_size=1, max_size=19))
def test_objects_that_the_store_refuses_are_listed_and_the_rest_goes_on(run_async: RunAsync, numbers: set[int]) -> None:
    async def play() -> None:
        with fast_directory() as directory:
            folder = await stored_folder(SimulatedBucket(), directory)
            entries = [await folder.file(f"file {number:02}", b"%d" % number) for number in range(30)]
            await folder.append(*entries)
            refused = {folder.object_key(entries[number]) for number in numbers}
            reader = reader_of(folder, fault=lambda call: Fault.REFUSED if call.key in refused else None)
            report = await restore(reader, directory / "target")
            assert sorted(failures(report)) == [f"file {number:02}" for number in sorted(numbers)]
            assert all("denies" in problem.reason for problem in report.failed)
            assert len(tree(directory / "target")) == report.files == 30 - len(numbers)

    run_async(play())


async def test_a_store_that_refuses_everything_ends_the_run(folder: StoredFolder, root: Path) -> None:
    await folder.append(*[await folder.file(f"file {number}", b"1") for number in range(50)])
    reader = reader_of(folder, fault=lambda call: Fault.REFUSED if "/objects/" in call.key else None)
    with pytest.raises(RequestRefused):
        await restore(reader, root)


# Damage, and what the system refuses


async def test_damage_is_named_and_the_rest_goes_on(folder: StoredFolder, root: Path) -> None:
    assert isinstance(folder.bucket, SimulatedBucket)
    data = random_bytes(3 * 128 * KIB)
    names = ("sound", "first block", "last block", "cut short", "missing", "exchanged")
    entries: dict[str, LogEntry] = {name: await folder.file(name, data) for name in names}
    damaged = await folder.file("file info", change_fake=lambda fake: setattr(fake, "encrypted", b"x" * 60))
    await folder.append(*entries.values(), damaged)
    keys = {name: folder.object_key(entry) for name, entry in entries.items()}
    store = folder.bucket.store
    flip(folder.bucket, keys["first block"], 100)
    flip(folder.bucket, keys["last block"], 3 * (128 * KIB + 40) - 1)
    store.put(keys["cut short"], store.body(keys["cut short"])[: 200 * KIB])
    del store.objects[keys["missing"]]
    store.put(keys["exchanged"], store.body(keys["sound"]))
    report = await restore(reader_of(folder), root)
    assert failures(report).keys() == {*names, "file info"} - {"sound"}
    assert tree(root) == {"sound": data}
    assert report.files == 1


async def test_a_name_that_leads_out_is_never_written(folder: StoredFolder, root: Path, tmp_path: Path) -> None:
    names = ["../x", "..", "a/../../x", "/etc/x", "a//b", "nul\0", "./x"]
    await folder.append(*[await folder.file(name, b"1") for name in names], await folder.file("good", b"2"))
    before = set(tmp_path.iterdir())
    report = await restore(reader_of(folder), root, RestoreOptions(overwrite=True))
    assert failures(report).keys() == set(names)
    assert tree(root) == {"good": b"2"}
    assert set(tmp_path.iterdir()) == before | {root}


async def test_a_path_cannot_be_both_a_file_and_a_directory(folder: StoredFolder, root: Path) -> None:
    await folder.append(
        await folder.file("both", b"1"),
        await folder.file("both/below", b"2"),
        folder.symlink("way", "/etc"),
        await folder.file("way/out", b"3"),
        await folder.file("good", b"4"),
    )
    for _ in range(2):
        report = await restore(reader_of(folder), root, RestoreOptions(overwrite=True))
        assert failures(report).keys() <= {"both", "both/below", "way", "way/out"}
        assert len(report.failed) == 2
        assert (root / "good").read_bytes() == b"4"
        assert not (root / "way").is_symlink()
        assert (root / "way/out").read_bytes() == b"3"


async def test_a_symlink_in_the_target_is_not_followed(folder: StoredFolder, root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    root.mkdir()
    (root / "way").symlink_to(outside)
    await folder.append(folder.directory("way"), await folder.file("way/file", b"1"), await folder.file("good", b"2"))
    report = await restore(reader_of(folder), root, RestoreOptions(overwrite=True))
    assert failures(report).keys() == {"way", "way/file"}
    assert list(outside.iterdir()) == []
    assert (root / "good").read_bytes() == b"2"


async def test_a_full_disk_fails_the_file_and_no_other_that_was_begun(
    folder: StoredFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await folder.append(await folder.file("small", b"1"), await folder.file("large", random_bytes(MIB)))
    pwrite = os.pwrite

    def little_space(descriptor: int, data: bytes, offset: int) -> int:
        if offset + len(data) > 512 * KIB:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return pwrite(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", little_space)
    report = await restore(reader_of(folder), root)
    assert failures(report) == {"large": "No space left on device"}
    assert tree(root) == {"small": b"1"}


async def test_metadata_that_the_system_refuses_is_reported(
    folder: StoredFolder, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def owned(real: pb.FileInfo) -> None:
        real.platform = pb.PlatformData(unix=pb.UnixData(uid=1, gid=2)).SerializeToString()

    def refuse(*arguments: Any, **options: Any) -> None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    await folder.append(await folder.file("file", b"1", change_real=owned), folder.directory("d", change_real=owned))
    monkeypatch.setattr(os, "fchown", refuse)
    report = await restore(reader_of(folder), root, RestoreOptions(owner=True))
    assert [(problem.path, problem.reason) for problem in report.incomplete] == [
        ("file", "ownership: Operation not permitted"),
        ("d", "ownership: Operation not permitted"),
    ]
    assert report.failed == []
    assert tree(root) == {"file": b"1", "d": None}


@virtual_time
async def test_memory_stays_bounded(folder: StoredFolder, root: Path) -> None:
    """Many large files at once: the bytes that are requested and not yet written stay within the memory setting."""
    entries = [await folder.file(f"file {number}", random_bytes(4 * MIB, number)) for number in range(8)]
    await folder.append(*entries)
    out, most = 0, 0

    async def gate(call: Call, phase: Phase) -> None:
        nonlocal out, most
        if "/objects/" in call.key:
            out += (call.size or 0) * (1 if phase is Phase.REQUEST else -1)
            most = max(most, out)
            await asyncio.sleep(1)

    client = reader_of(folder, gate=gate)
    settings = ReadSettings(memory=8 * MIB, read_size=MIB)
    async with open_folder(client, FOLDER_ID, PASSWORD) as opened, BlockReader(opened, settings) as reader:
        with Target(root) as target:
            report = await Restoration(reader, target, PLAIN, Progress()).run(opened.entries())
    assert report.files == 8
    assert MIB <= most <= 8 * MIB


# Coarse times and full disks


@pytest.mark.parametrize("rounding", ["down", "nearest", "up"])
@pytest.mark.parametrize("resolution", [100, 10**3, 10**6, 10**7, 10**9, 2 * 10**9])
async def test_a_target_with_coarse_times_needs_nothing_a_second_time(
    folder: StoredFolder, root: Path, monkeypatch: pytest.MonkeyPatch, resolution: int, rounding: str
) -> None:
    times = [MODIFIED_NS, -1, 1, 10**18 + 10**9 - 1, 10**18 + 10**9 + 1, 10**18, 3 * 10**9 + 5]
    await folder.append(
        *[await folder.file(f"file {number}", b"1", modified_ns=time) for number, time in enumerate(times)]
    )
    utime = os.utime
    add = {"down": 0, "nearest": resolution // 2, "up": resolution - 1}[rounding]

    def coarse(*arguments: Any, ns: tuple[int, int], **options: Any) -> None:
        utime(*arguments, ns=(ns[0], (ns[1] + add) // resolution * resolution), **options)

    monkeypatch.setattr("os.utime", coarse)
    assert (await restore(reader_of(folder), root)).files == len(times)
    report = await restore(reader_of(folder), root)
    assert (report.failed, report.files, report.there) == ([], 0, len(times))


@given(st.integers(-(10**18), 10**19), st.integers(-(10**10), 10**10))
def test_times_that_no_file_system_makes_of_each_other_differ(on_disk: int, difference: int) -> None:
    same = is_same_time(on_disk, on_disk + difference)
    if abs(difference) >= 2 * 10**9 or (on_disk % 100 and difference):
        assert not same
    if on_disk % 10**9 and abs(difference) >= 10**9:
        assert not same


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
async def test_a_full_disk_ends_the_run_with_one_line(
    folder: StoredFolder, root: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    files = [await folder.file(f"file {index:03}", random_bytes(100)) for index in range(145)]
    await folder.append(*files, folder.symlink("link", "x"))
    pwrite, written = os.pwrite, 0

    def full(*arguments: Any) -> int:
        nonlocal written
        written += 1
        if written > 40:
            raise OSError(number, os.strerror(number))
        return pwrite(*arguments)

    monkeypatch.setattr("os.pwrite", full)
    report = await restore(reader_of(folder), root)
    assert len(report.failed) == 1 and os.strerror(number) in report.failed[0].reason
    assert report.files == 40 and report.files + report.not_tried + 1 == 146
    assert not [path for path in tree(root) if path.endswith(".tmp")]
    monkeypatch.undo()
    again = await restore(reader_of(folder), root)
    assert (again.failed, again.there, again.not_tried) == ([], 40, 0)


async def test_one_object_that_the_store_never_gives_is_listed_and_the_rest_comes_back(
    folder: StoredFolder, root: Path
) -> None:
    bad = await folder.file("bad", random_bytes(1000))
    await folder.append(bad, *[await folder.file(f"file {number}", b"1") for number in range(50)])
    key = folder.object_key(bad)
    bucket = reader_of(folder, fault=lambda call: Fault.UNREACHABLE if call.key == key else None)
    report = await restore(bucket, root)
    assert failures(report).keys() == {"bad"}
    assert report.files == 50
    assert sum(call.key == key for call in bucket.calls) <= 2
    assert (await restore(reader_of(folder), root)).files == 1


WINNERS: dict[str, object] = {
    "back.txt": b"is back",
    "docs": None,
    "docs/report.txt": b"of A, newer",
    "old.txt": b"new",
    "plain.txt": b"plain",
}


async def test_the_winning_versions_come_back_and_the_others_if_asked_for(folder: StoredFolder, root: Path) -> None:
    await fill(folder)
    report = await restore(reader_of(folder), root)
    assert not report.failed and tree(root) == WINNERS
    report = await restore(reader_of(folder), root, conflicts=True)
    assert not report.failed and (report.files, report.there) == (2, 4)
    assert tree(root) == {**WINNERS, REPORT_COPY: b"of B", GONE_COPY: b"edit of A"}
    report = await restore(reader_of(folder), root, conflicts=True)
    assert (report.files, report.there) == (0, 6)


async def test_a_conflict_copy_replaces_nothing(folder: StoredFolder, root: Path) -> None:
    await fill(folder)
    (root / "docs").mkdir(parents=True)
    (root / REPORT_COPY).write_bytes(b"mine")
    for overwrite in (False, True):
        report = await restore(reader_of(folder), root, RestoreOptions(overwrite=overwrite), conflicts=True)
        assert failures(report) == {REPORT_COPY: "something else is there, and a conflict copy replaces nothing"}
        assert report.taken == [] and (root / REPORT_COPY).read_bytes() == b"mine"
