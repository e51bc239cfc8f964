"""Every kind of damage is found and named, and nothing else is."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.simulated import Call, Fault, Phase, SimulatedBucket
from tests.vault.conflicting import TIME, A, B, disputed, fill, made_by
from tests.vault.stored_folder import FOLDER_ID, PASSWORD, StoredFolder, flip, random_bytes, stored_folder
from tests.virtual_time import virtual_time
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.errors import DataError, RequestRefused, StoreUnreachable
from untrusted_s3.index.entry import Entry
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.progress import Progress
from untrusted_s3.settings import ReadSettings
from untrusted_s3.units import KIB, MIB
from untrusted_s3.vault.folder import open_folder
from untrusted_s3.verify.report import VerifyReport
from untrusted_s3.verify.sampling import sample
from untrusted_s3.verify.verification import Verification

BLOCK = 128 * KIB
SMALL, LARGE = random_bytes(2 * BLOCK + 50, "small"), random_bytes(20 * MIB + 5, "large")
SETTINGS = ReadSettings(memory=32 * MIB)


@pytest.fixture
def bucket() -> SimulatedBucket:
    return SimulatedBucket()


@pytest.fixture
async def folder(bucket: SimulatedBucket, tmp_path: Path) -> StoredFolder:
    return await stored_folder(bucket, tmp_path)


async def verify(
    bucket: SimulatedBucket, progress: Progress | None = None, settings: ReadSettings = SETTINGS
) -> VerifyReport:
    """Verify with sizes from a listing and from requests, and check that the reports are equal."""
    reports = [await _verify(bucket, progress or Progress(), settings, listed) for listed in (True, False)]
    assert reports[0] == reports[1]
    return reports[0]


async def _verify(
    bucket: SimulatedBucket, progress: Progress, settings: ReadSettings, list_objects: bool
) -> VerifyReport:
    reader = SimulatedBucket(bucket.store, gate=bucket.gate, fault=bucket.fault)
    async with open_folder(reader, FOLDER_ID, PASSWORD) as opened:
        with Verification(opened, progress, settings, list_objects=list_objects) as verification:
            report = await verification.run(opened.entries(versions=True))
    assert {call.operation for call in reader.calls} <= {"get", "list", "size", "download_file"}
    assert reader.count("size") == (0 if list_objects else report.files + len(report.unreadable))
    return report


def damaged(report: VerifyReport) -> dict[str, str]:
    return {problem.path: problem.reason for problem in report.damaged}


async def test_a_sound_folder_has_no_damage(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    await folder.append(
        await folder.file("empty"),
        await folder.file("one", b"1"),
        await folder.file("small", SMALL),
        await folder.file("large", LARGE),
        folder.directory("directory"),
        folder.symlink("link", "nowhere"),
        folder.deleted("gone"),
    )
    progress = Progress()
    report = await verify(bucket, progress)
    assert damaged(report) == {}
    assert (report.files, report.others) == (4, 2)
    objects = [key for key in bucket.store.keys("folders/") if "/objects/" in key]
    assert report.bytes == sum(len(bucket.store.body(key)) for key in objects)
    assert progress.files == 2 * 4


async def test_a_small_file_is_one_request(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    await folder.append(await folder.file("small", SMALL))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as opened:
        bucket.calls.clear()
        with Verification(opened, Progress(), SETTINGS, list_objects=True) as verification:
            report = await verification.run(opened.entries())
    assert (report.files, report.damaged) == (1, [])
    assert [(call.operation, call.start, call.size) for call in bucket.calls if call.operation == "get"] == [
        ("get", 0, report.bytes)
    ]


async def test_a_newer_file_info_of_the_same_content_is_not_damage(
    folder: StoredFolder, bucket: SimulatedBucket
) -> None:
    first = await folder.file("file", SMALL)
    body = bucket.store.body(folder.object_key(first))
    again = await folder.file("file", SMALL, mode=0o600)
    bucket.store.put(folder.object_key(first), body)
    await folder.append(Entry(again.file_info, first.stored))
    assert damaged(await verify(bucket)) == {}


Offset = Callable[[int, int], int]  # of the bytes of data and of the whole object


@pytest.mark.parametrize("content", [b"1", SMALL, LARGE], ids=["one block", "small", "large"])
@pytest.mark.parametrize(
    ("offset", "reason"),
    [
        (lambda data, size: 0, "its block at 0 is damaged"),
        (lambda data, size: 500, "its block at 0 is damaged"),
        (lambda data, size: data - 1, "its block at "),
        (lambda data, size: data, "the trailer of its object is damaged"),
        (lambda data, size: size - 50, "the trailer of its object is damaged"),
        (lambda data, size: size - 1, "the trailer of its object states another length"),
    ],
    ids=["nonce", "ciphertext", "last tag", "trailer", "inside the trailer", "length"],
)
async def test_one_bit_of_an_object_is_found(
    folder: StoredFolder, bucket: SimulatedBucket, content: bytes, offset: Offset, reason: str
) -> None:
    entry = await folder.file("file", content)
    await folder.append(entry, await folder.file("other", b"sound"))
    assert entry.stored is not None
    flip(bucket, folder.object_key(entry), offset(entry.file_info.message.size, entry.stored.size))
    ((path, found),) = damaged(await verify(bucket)).items()
    assert path == "file"
    assert found.startswith(reason)


async def test_a_change_that_only_a_checksum_sees_is_found(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    """The permissions in a trailer are not encrypted."""
    for content in (b"1", LARGE):
        entry = await folder.file(f"file of {len(content)}", content)
        await folder.append(entry)
        body = bucket.store.body(folder.object_key(entry))
        message = entry.file_info.message.__class__.FromString(entry.file_info.raw)
        message.permissions ^= 1
        trailer = encode_trailer(parse_file_info(message.SerializeToString()))
        assert len(trailer) == len(encode_trailer(entry.file_info))
        bucket.store.put(folder.object_key(entry), body[: -len(trailer)] + trailer)
    assert damaged(await verify(bucket)) == {
        "file of 1": "part 1 of its object differs from the checksum in the log",
        f"file of {len(LARGE)}": "part 3 of its object differs from the checksum in the log",
    }


async def test_missing_cut_long_and_exchanged_objects_are_found(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    names = ("missing", "cut", "long", "exchanged", "another time's")
    entries = {name: await folder.file(name, SMALL) for name in names}
    other = await folder.file("other", SMALL)
    await folder.append(*entries.values(), other)
    key = {name: folder.object_key(entry) for name, entry in entries.items()}
    store = bucket.store
    del store.objects[key["missing"]]
    store.put(key["cut"], store.body(key["cut"])[:-1])
    store.put(key["long"], store.body(key["long"]) + b"x")
    store.put(key["exchanged"], store.body(folder.object_key(other))[: len(store.body(key["exchanged"]))])
    found = damaged(await verify(bucket))
    assert found.pop("missing") == "the object with its data is missing"
    assert "bytes instead of" in found.pop("cut")
    assert "bytes instead of" in found.pop("long")
    assert found.keys() == {"exchanged"}


async def test_a_trailer_of_another_file_is_found(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    mine, other = await folder.file("file a", SMALL), await folder.file("file b", SMALL)
    await folder.append(mine, other)
    body, trailer = bucket.store.body(folder.object_key(mine)), encode_trailer(other.file_info)
    assert len(trailer) == len(encode_trailer(mine.file_info))
    bucket.store.put(folder.object_key(mine), body[: -len(trailer)] + trailer)
    assert damaged(await verify(bucket)) == {"file a": "the trailer of its object speaks of another content"}


async def test_what_cannot_be_decrypted_is_named(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    entry = await folder.file("file", b"1", change_fake=lambda fake: setattr(fake, "encrypted", b"x" * 60))
    await folder.append(entry, await folder.file("../out", b"1"), folder.directory("directory"))
    found = damaged(await verify(bucket))
    assert "cannot be decrypted" in found["file"]
    assert found["../out"] == "its name is not a harmless path"
    assert len(found) == 2


@pytest.mark.parametrize("change", [{"part_size": 1}, {"part_crc32c": ()}, {"part_size": 8 * MIB}])
async def test_an_impossible_log_entry_is_found(
    folder: StoredFolder, bucket: SimulatedBucket, change: dict[str, object]
) -> None:
    entry = await folder.file("file", LARGE if change == {"part_crc32c": ()} else SMALL)
    assert entry.stored is not None
    await folder.append(Entry(entry.file_info, dataclasses.replace(entry.stored, **change)))  # type: ignore[arg-type]
    if change == {"part_size": 8 * MIB}:
        assert damaged(await verify(bucket)) == {}  # one part all the same
    else:
        with pytest.raises(DataError, match="parts of"):
            await verify(bucket)


async def test_a_huge_trailer_is_not_read(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    entry = await folder.file("file", b"1")
    assert entry.stored is not None
    size = entry.file_info.message.size + len(entry.file_info.raw) + SETTINGS.read_size + 1
    bucket.store.put(folder.object_key(entry), bytes(size))
    await folder.append(Entry(entry.file_info, dataclasses.replace(entry.stored, size=size)))
    assert damaged(await verify(bucket)) == {"file": "the trailer of its object is too long"}


@virtual_time
async def test_memory_stays_bounded(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    await folder.append(*[await folder.file(f"file {number}", LARGE) for number in range(3)])
    out, most = 0, 0

    async def gate(call: Call, phase: Phase) -> None:
        nonlocal out, most
        if call.operation == "get" and "/objects/" in call.key:
            out += (call.size or 0) * (1 if phase is Phase.REQUEST else -1)
            most = max(most, out)
            await asyncio.sleep(1)

    bucket.gate = gate
    assert damaged(await verify(bucket, settings=ReadSettings(memory=32 * MIB, read_size=MIB))) == {}
    assert MIB <= most <= 16 * MIB


async def test_a_failing_store_is_not_damage(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    await folder.append(await folder.file("file", SMALL))
    away: list[str] = []

    def fault(call: Call) -> Fault | None:
        if call.operation == "get" and ("/objects/" in call.key or away):
            away.append(call.key)
            return Fault.UNREACHABLE
        return None

    bucket.fault = fault
    with pytest.raises(StoreUnreachable):
        await verify(bucket)


async def test_one_object_that_the_store_never_gives_does_not_stop_the_rest(
    folder: StoredFolder, bucket: SimulatedBucket
) -> None:
    bad = await folder.file("bad", SMALL)
    await folder.append(bad, *[await folder.file(f"file {number}", b"1") for number in range(30)])
    key = folder.object_key(bad)
    bucket.fault = lambda call: Fault.UNREACHABLE if (call.operation, call.key) == ("get", key) else None
    report = await verify(bucket)
    assert [problem.path for problem in report.unreadable] == ["bad"]
    assert (report.files, report.damaged) == (30, [])


async def test_a_sample_is_a_share_of_the_files_and_repeatable(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    files = [await folder.file(f"file {number}", b"1") for number in range(100)]
    await folder.append(*files, folder.directory("directory"), folder.symlink("link", "x"))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as opened:
        taken = [[entry.path for entry in sample(opened.entries(), 0.05, 100, seed)] for seed in (1, 1, 2)]
    assert [len(paths) for paths in taken] == [7, 7, 7]
    assert taken[0] == taken[1] != taken[2]
    assert all({"directory", "link"} <= set(paths) for paths in taken)
    assert list(sample([], 0.5, 0, 1)) == []


async def test_an_object_that_the_store_refuses_does_not_stop_the_rest(
    folder: StoredFolder, bucket: SimulatedBucket
) -> None:
    entries = [await folder.file(f"file {number}", b"1") for number in range(30)]
    await folder.append(*entries)
    cold = folder.object_key(entries[3])
    bucket.fault = lambda call: Fault.REFUSED if call.operation == "get" and call.key == cold else None
    report = await _verify(bucket, Progress(), SETTINGS, True)
    assert [problem.path for problem in report.unreadable] == ["file 3"]
    assert (report.files, report.damaged) == (29, [])


async def test_a_store_that_refuses_everything_ends_the_run(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    await folder.append(*[await folder.file(f"file {number}", b"1") for number in range(30)])
    bucket.fault = lambda call: Fault.REFUSED if "/objects/" in call.key else None
    with pytest.raises(RequestRefused):
        await _verify(bucket, Progress(), SETTINGS, False)


async def test_all_versions_of_a_name_are_verified(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    await fill(folder)
    report = await verify(bucket)
    assert damaged(report) == {}
    assert (report.files, report.others, report.other_versions) == (7, 1, 3)


async def test_damage_of_another_version_is_named(folder: StoredFolder, bucket: SimulatedBucket) -> None:
    current = await folder.file("f", b"of B", change_real=made_by(B, TIME, a=5, b=9))
    winner = await folder.file("f", b"of A, newer", change_real=made_by(A, TIME + 9, a=7))
    await folder.append(disputed(current, winner))
    for entry, begin in ((current, "another version of it: its block at 0"), (winner, "its block at 0")):
        flip(bucket, folder.object_key(entry), 3)
        ((path, reason),) = damaged(await verify(bucket)).items()
        assert path == "f" and reason.startswith(begin)
        flip(bucket, folder.object_key(entry), 3)
