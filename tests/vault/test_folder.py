"""Opening a folder: passwords, what it holds, what is damaged or hostile."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from unittest import mock

import crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import device
from tests.loops import RunAsync
from tests.simulated import SimulatedBucket, fast_directory
from tests.vault.stored_folder import (
    FOLDER_ID,
    MODIFIED_NS,
    PASSWORD,
    StoredFolder,
    stored_folder,
)
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import DataError, FolderRemovalUnfinished, NoSuchFolder, WrongPassword
from untrusted_s3.index.entry import Entry as LogEntry
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import write_record
from untrusted_s3.vault.entry import DamagedEntry, Entry, Kind, open_entry
from untrusted_s3.vault.folder import Folder, open_folder
from untrusted_s3.vault.selection import Selection

WRITES = {"put", "delete", "upload_file", "create_multipart_upload", "upload_part", "abort_multipart_upload"}


def paths(folder: Folder, directory: str = "", *, deleted: bool = False) -> list[str | None]:
    return [entry.path for entry in folder.entries(directory, deleted=deleted)]


def only_damaged(folder: Folder) -> DamagedEntry:
    (entry,) = folder.entries()
    assert isinstance(entry, DamagedEntry)
    return entry


async def test_what_was_stored_is_there_with_all_its_metadata(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    await stored.append(
        stored.directory("sub", mode=0o700),
        await stored.file("sub/file", b"content", mode=0o4751, modified_ns=-1),
        stored.symlink("link", b"to/\xff"),
        stored.deleted("gone"),
    )
    bucket.calls.clear()
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert folder.folder_id == FOLDER_ID and folder.totals.files == 1
        assert paths(folder) == ["link", "sub", "sub/file"]
        assert paths(folder, deleted=True) == ["gone", "link", "sub", "sub/file"]
        link, sub, file = folder.entries()
        assert isinstance(link, Entry) and isinstance(sub, Entry) and isinstance(file, Entry)
        assert (link.kind, link.size, link.mode, link.target) == (Kind.SYMLINK, 4, None, "to/\udcff")
        assert (sub.kind, sub.size, sub.mode, sub.modified_ns, sub.key) == (
            Kind.DIRECTORY,
            0,
            0o700,
            MODIFIED_NS,
            "",
        )
        assert (file.kind, file.size, file.mode, file.modified_ns) == (Kind.FILE, 7, 0o751, -1)
        assert file.key in bucket.store.objects
        gone = folder.entry("gone")
        assert isinstance(gone, Entry) and gone.deleted and gone.size == 0
        assert folder.entry("never") is None and folder.entry("") is None
        assert [entry.path for entry in folder.children("sub")] == ["sub/file"]
    assert not WRITES & {call.operation for call in bucket.calls}


async def test_a_wrong_password_is_reported_before_anything_is_read(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    await stored_folder(bucket, tmp_path)
    bucket.calls.clear()
    with (
        mock.patch.object(FolderKey, "derive", side_effect=FolderKey.derive) as derive,
        pytest.raises(WrongPassword, match="folder"),
    ):
        async with open_folder(bucket, FOLDER_ID, PASSWORD + " "):
            pass
    assert derive.call_count == 1
    assert [call.key for call in bucket.calls] == [FolderKeys.of(FOLDER_ID).record]


async def test_the_error_for_a_missing_folder_names_the_folders(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    with pytest.raises(NoSuchFolder, match="has none"):
        async with open_folder(bucket, "other", PASSWORD):
            pass
    await stored_folder(bucket, tmp_path)
    with pytest.raises(NoSuchFolder, match=f"has '{FOLDER_ID}'"):
        async with open_folder(bucket, "other", PASSWORD):
            pass


async def test_a_folder_that_is_being_removed(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    await write_record(bucket, stored.keys.record, {**stored.record.to_json(), "removed": True})
    with pytest.raises(FolderRemovalUnfinished, match="not finished") as error:
        async with open_folder(bucket, FOLDER_ID, PASSWORD):
            pass
    assert error.value.folder_id == FOLDER_ID


async def test_the_record_of_another_folder(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    await write_record(bucket, FolderKeys.of("other").record, stored.record.to_json())
    with pytest.raises(DataError, match="names another"):
        async with open_folder(bucket, "other", PASSWORD):
            pass


async def test_an_empty_folder(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    await stored_folder(bucket, tmp_path)
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert paths(folder) == [] and folder.time is None


async def test_directories_come_before_what_is_in_them(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    # In ASCII, the slash is between the space and the digits.
    names = ["a", "a/b", "a/b/c", "a b", "a b/c", "a0", "a0/c", "ä/ö", "ä", "🦄", "\ufffd", "\U0010ffff" * 9 + "/x"]
    await stored.append(*(stored.directory(name) for name in reversed(names)))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        found = paths(folder)
        assert found == sorted(names, key=lambda name: tuple(map(str.encode, (name.rpartition("/")[::2]))))
        assert paths(folder, "a") == ["a/b", "a/b/c"]
        assert paths(folder, "a/b") == ["a/b/c"]
        assert paths(folder, "nothing") == []
        assert list(folder.directories()) == ["a", "a b", "a/b", "a0", "ä", "\U0010ffff" * 9]
        assert list(folder.directories("a")) == ["a/b"]
        assert [entry.path for entry in folder.entries(matching="a0/c".__eq__)] == ["a0/c"]


@settings(max_examples=40, deadline=None)
@given(
    st.sets(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=8).filter(
                lambda name: name not in (".", "..")
            ),
            min_size=1,
            max_size=4,
        ).map("/".join),
        max_size=12,
    )
)
def test_every_path_is_listed_once_and_found_in_its_directory(run_async: RunAsync, names: set[str]) -> None:
    async def play() -> None:
        bucket = SimulatedBucket()
        with fast_directory() as directory:
            stored = await stored_folder(bucket, directory)
            await stored.append(*(stored.directory(name) for name in names))
            folder = Folder(bucket, stored.record, stored.key, stored.state)
            found = [str(entry.path) for entry in folder.entries()]
            assert sorted(found) == sorted(names) and len(set(found)) == len(found)
            for number, name in enumerate(found):
                parent = name.rpartition("/")[0]
                assert name in {entry.path for entry in folder.children(parent)}
                if parent:
                    assert name in {entry.path for entry in folder.entries(parent)}
                if parent in names:
                    assert found.index(parent) < number
            folder.close()

    run_async(play())


@pytest.mark.parametrize(
    "name", ["../x", "/etc/passwd", "a/../../b", "a//b", "a/", ".", "..", "", "nul\0byte", "x" * 70_000]
)
async def test_names_that_lead_elsewhere_are_listed_and_never_a_path(tmp_path: Path, name: str) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    if len(name) <= 1000 and name:
        await stored.append(await stored.file("fine", b"1"), await stored.file(name, b"2"))
    else:
        # No gateway accepts such a name, so the state gets it directly.
        message = pb.FileInfo(name=stored.key.encrypt_name(name), type=pb.DIRECTORY, encrypted=b"x")
        entry = LogEntry(FileInfo(message.SerializeToString(), message), None)
        stored.state.apply(1, Segment(device(1), b"", 1, 1, (entry,), ()))
        folder = Folder(bucket, stored.record, stored.key, stored.state)
        assert isinstance(only_damaged(folder), DamagedEntry)
        return
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        fine, damaged = folder.entries()
        assert isinstance(fine, Entry) and fine.path == "fine"
        assert isinstance(damaged, DamagedEntry)
        assert damaged.path == name and "harmless" in damaged.reason
        assert list(folder.unnamed()) == [damaged]
        assert list(folder.children()) == [fine]
        assert isinstance(folder.entry(name), DamagedEntry | None)


async def test_a_name_of_another_key_does_not_stop_the_rest(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    ours, stored.key = stored.key, FolderKey(bytes(32), FOLDER_ID)
    strange = stored.directory("strange")
    stored.key = ours
    await stored.append(strange, stored.directory("fine"))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        fine, damaged = folder.entries()
        assert fine.path == "fine"
        assert isinstance(damaged, DamagedEntry)
        assert damaged.path is None and damaged.encrypted_name == strange.file_info.name
        assert "cannot be decrypted" in damaged.reason


async def test_a_file_info_whose_outside_does_not_fit_is_damage_with_a_path(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)

    def swap(fake: pb.FileInfo) -> None:
        first, second = fake.blocks[0].hash, fake.blocks[1].hash
        fake.blocks[0].hash, fake.blocks[1].hash = second, first

    await stored.append(await stored.file("swapped", bytes(3000), block_size=2000, change_fake=swap))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        damaged = only_damaged(folder)
        assert damaged.path == "swapped" and "another block's" in damaged.reason


@pytest.mark.parametrize(
    ("content_hash", "size"),
    [("../../../../other", 10**6), ("0" * 31, 10**6), ("0" * 32 + "-X", 10**6), ("0" * 32, 1064), ("?" * 32, 10**6)],
)
async def test_a_log_that_names_an_object_elsewhere(tmp_path: Path, content_hash: str, size: int) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    entry = await stored.file("file", b"x")
    await stored.append(stored.directory("directory"))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        elsewhere = LogEntry(entry.file_info, StoredObject(content_hash, size, 0, (0,)))
        opened = open_entry(elsewhere, folder.key, folder.keys)
        assert isinstance(opened, DamagedEntry) and "cannot be its data" in opened.reason
    await stored.append(elsewhere)
    with pytest.raises(DataError, match=f"{stored.keys.segment(2)} cannot be read: .* object"):
        async with open_folder(bucket, FOLDER_ID, PASSWORD):
            pass


async def test_a_log_that_names_no_object(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    await stored.append(LogEntry((await stored.file("file", b"x")).file_info, None))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert "no object" in only_damaged(folder).reason


async def test_a_repaired_object_has_a_longer_key(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    entry = await stored.file("file", b"x")
    assert entry.stored is not None
    longer = StoredObject(entry.stored.object_name + "-1a", entry.stored.size, 0, (0,))
    await stored.append(LogEntry(entry.file_info, longer))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        found = folder.entry("file")
        assert isinstance(found, Entry) and found.key == stored.object_key(entry) + "-1a"


async def test_a_folder_from_checkpoint_and_log(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    await stored.append(stored.directory("before"))
    await stored.log.checkpoint()
    await stored.append(stored.directory("after"))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert paths(folder) == ["after", "before"]
        assert folder.time is not None and folder.time.timestamp() == stored.now


async def test_a_damaged_log_is_reported(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    await stored.append(stored.directory("a"))
    key = stored.keys.segment(1)
    body = bytearray(bucket.store.body(key))
    body[20] ^= 1
    bucket.store.put(key, bytes(body))
    with pytest.raises(DataError, match=key):
        async with open_folder(bucket, FOLDER_ID, PASSWORD):
            pass


async def test_ignored_files_are_not_listed(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)

    def ignore(message: pb.FileInfo) -> None:
        message.invalid = True

    entry = await stored.file("ignored", b"x", change_real=ignore)
    await stored.append(LogEntry(entry.file_info, None))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert paths(folder) == []
        found = folder.entry("ignored")
        assert isinstance(found, Entry) and found.deleted and found.size == 0


async def test_nothing_stays_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = SimulatedBucket()
    await stored_folder(bucket, tmp_path)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    with pytest.raises(KeyError):
        async with open_folder(bucket, FOLDER_ID, PASSWORD):
            assert list(temporary.iterdir())
            raise KeyError
    assert not list(temporary.iterdir())


def forged(entry: LogEntry, **fields: object) -> LogEntry:
    """Return an entry with the same name whose outside has other fields, as anybody without the password can make."""
    message = pb.FileInfo.FromString(entry.file_info.raw)
    del message.blocks[:]
    message.size = 0
    message.version.counters[0].value += 1
    for name, value in fields.items():
        setattr(message, name, value)
    return LogEntry(FileInfo(message.SerializeToString(), message), None)


@pytest.mark.parametrize(
    "fields",
    [
        {"deleted": True, "encrypted": bytes(200)},
        {"deleted": True},
        {"invalid": True, "encrypted": bytes(200)},
        {"invalid": True},
        {"deleted": True, "type": pb.DIRECTORY},
    ],
)
async def test_a_deletion_that_the_inside_does_not_confirm_is_damage(tmp_path: Path, fields: dict[str, object]) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    kept, lost = await stored.file("sub/kept", b"1"), await stored.file("sub/lost", b"2")
    await stored.append(kept, lost, stored.deleted("gone"))
    await stored.append(forged(lost, **fields))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert paths(folder) == paths(folder, "sub") == ["sub/kept", "sub/lost"]
        assert paths(folder, deleted=True) == ["gone", "sub/kept", "sub/lost"]
        found = [
            folder.entry("sub/lost"),
            list(folder.entries())[1],
            list(folder.children("sub"))[1],
            list(Selection(["sub/l*"]).of(folder))[-1],
        ]
        for entry in found:
            assert isinstance(entry, DamagedEntry)
            assert (entry.path, entry.encrypted_name, entry.deleted) == ("sub/lost", lost.file_info.name, True)
            assert "not authentic" in entry.reason
        assert await folder.has_data(lost.file_info.name)
        assert not await folder.has_data(stored.directory("never").file_info.name)


async def test_a_deletion_of_a_name_that_does_not_decrypt_is_damage(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    ours, stored.key = stored.key, FolderKey(bytes(32), FOLDER_ID)
    strange = stored.deleted("strange")
    stored.key = ours
    await stored.append(strange)
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        damaged = only_damaged(folder)
        assert (damaged.path, damaged.encrypted_name) == (None, strange.file_info.name)


async def test_a_valid_outside_around_an_ignored_file_is_damage(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)

    await stored.append(
        await stored.file(
            "file",
            b"x",
            change_real=lambda real: setattr(real, "invalid", True),
            change_fake=lambda fake: setattr(fake, "invalid", False),
        )
    )
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert "ignored" in only_damaged(folder).reason


@pytest.mark.parametrize("kind", [pb.FILE, pb.DIRECTORY, pb.SYMLINK, pb.SYMLINK_FILE, pb.SYMLINK_DIRECTORY])
async def test_a_real_deletion_is_no_damage(tmp_path: Path, kind: pb.FileInfoType) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    await stored.append(stored.deleted("gone", kind))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert paths(folder) == []
        (gone,) = folder.entries(deleted=True)
        assert isinstance(gone, Entry) and gone.deleted


@asynccontextmanager
async def checkpoint_with(
    bucket: SimulatedBucket, stored: StoredFolder, change: Callable[[sqlite3.Connection], object]
) -> AsyncIterator[Folder]:
    """Check that a checkpoint that `change` has changed is refused, and open the folder from it nevertheless."""
    copy = stored.state.path.parent / "copy.sqlite"
    position = stored.state.write_copy(copy)
    connection = sqlite3.connect(copy, isolation_level=None)
    change(connection)
    connection.close()
    body = copy.read_bytes()
    bucket.store.put(stored.keys.checkpoint(position), body + crc32c.crc32c(body).to_bytes(4, "big"))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert all(isinstance(entry, Entry) for entry in folder.entries()), "the log is read instead"
        key, record = folder.key, folder.record
    for number in range(1, position + 1):
        bucket.store.objects.pop(stored.keys.segment(number), None)
    with pytest.raises(DataError, match=f"{stored.keys.checkpoint(position)} has .* under the hash of another name"):
        async with open_folder(bucket, FOLDER_ID, PASSWORD):
            pass
    unchecked = Folder(bucket, record, key, FolderState(copy))
    yield unchecked
    unchecked.close()


def exchange_file_infos(database: sqlite3.Connection) -> None:
    (one, first), (two, second), *_ = database.execute("SELECT sequence, file_info FROM files").fetchall()
    update = "UPDATE files SET file_info = ? WHERE sequence = ?"
    database.executemany(update, [(second, one), (first, two)])


async def test_names_that_a_checkpoint_has_exchanged_are_damage(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    await stored.append(await stored.file("a", b"1"), await stored.file("b", b"2"), await stored.file("c", b"3"))
    async with checkpoint_with(bucket, stored, exchange_file_infos) as folder:
        for path in "ab":
            entry = folder.entry(path)
            assert isinstance(entry, DamagedEntry) and entry.path == path and "place" in entry.reason
        assert isinstance(folder.entry("c"), Entry)
        assert [entry.path for entry in folder.entries() if isinstance(entry, DamagedEntry)] == ["b", "a"]


async def test_a_name_that_a_checkpoint_hides_is_listed_as_damage(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    await stored.append(await stored.file("a", b"1"))
    async with checkpoint_with(
        bucket, stored, lambda database: database.execute("UPDATE files SET name_hash = zeroblob(16)")
    ) as folder:
        assert only_damaged(folder).path == "a"


async def test_paths_that_are_not_utf8_do_not_exist(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    stored = await stored_folder(bucket, tmp_path)
    await stored.append(await stored.file("file"))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        for path in ("\udcff", "file/\udcff"):
            assert folder.entry(path) is None
            assert not list(folder.entries(path)) and not list(folder.children(path))
            assert not list(folder.directories(path))
