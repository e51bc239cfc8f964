"""Whatever somebody without the password writes into log and checkpoints, wrong content never passes for right."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import crc32c
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loops import RunAsync
from tests.simulated import SimulatedBucket, SimulatedStore, fast_directory
from tests.vault.stored_folder import FOLDER_ID, PASSWORD, StoredFolder, random_bytes, stored_folder
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.errors import UntrustedS3Error
from untrusted_s3.index import segment_pb2
from untrusted_s3.index.segment import MAGIC
from untrusted_s3.progress import Progress
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.vault.entry import Entry, Kind
from untrusted_s3.vault.folder import Folder, open_folder
from untrusted_s3.vault.reading import BlockReader
from untrusted_s3.verify.verification import Verification

KEYS = FolderKeys.of(FOLDER_ID)
CHECKPOINT = 2

Content = bytes | str | None  # of a file, where a symlink points, None for a directory

# All that a path has ever been; "" where it was deleted
HISTORY: dict[str, list[Content]] = {
    "a": [b"first", b"second!"],
    "b": [random_bytes(300_000, 1)],
    "sub": [None],
    "sub/c": [b"third"],
    "sub/link": ["b"],
    "gone": [b"gone", ""],
    "d": [random_bytes(300_000, 2)],
}


async def fill(directory: Path) -> SimulatedStore:
    """Return a store with a folder: a checkpoint, and one segment after it."""
    bucket = SimulatedBucket()
    folder: StoredFolder = await stored_folder(bucket, directory)
    versions = [
        [(path, contents[number]) for path, contents in HISTORY.items() if number < len(contents)] for number in (0, 1)
    ]
    for version in versions:
        await folder.append(*[await entry_of(folder, path, content) for path, content in version])
    await folder.log.checkpoint()
    await folder.append(await entry_of(folder, "a", b"second!"), await entry_of(folder, "d", HISTORY["d"][0]))
    for number in range(1, CHECKPOINT + 1):
        bucket.store.objects.pop(KEYS.segment(number))
    return bucket.store


async def entry_of(folder: StoredFolder, path: str, content: Content) -> Any:
    if content == "":
        return folder.deleted(path)
    if content is None:
        return folder.directory(path)
    return folder.symlink(path, content) if isinstance(content, str) else await folder.file(path, content)


# Tampering: each strategy gives a function that changes something

values = st.one_of(st.integers(-(2**63), 2**63 - 1), st.binary(max_size=60), st.text(max_size=40))


def change_message(message: pb.FileInfo, other: pb.FileInfo, data: st.DataObject) -> None:
    """Change one field of a file info, or take it from another one."""
    field = data.draw(st.sampled_from(list(pb.FileInfo.DESCRIPTOR.fields_by_name)))
    if data.draw(st.booleans()):
        taken = pb.FileInfo.FromString(other.SerializeToString())
        for name in pb.FileInfo.DESCRIPTOR.fields_by_name:
            if name != field:
                taken.ClearField(name)
        message.ClearField(field)
        message.MergeFrom(taken)
        return
    match getattr(message, field):
        case bool() as value:
            setattr(message, field, not value)
        case int():
            setattr(message, field, data.draw(st.integers(0, 4)))
        case bytes():
            setattr(message, field, data.draw(st.binary(min_size=1, max_size=200)))
        case str():
            setattr(message, field, data.draw(st.text(max_size=20)))
        case pb.Vector():
            message.version.counters.add(id=1, value=data.draw(st.integers(0, 9)))
        case _:
            blocks = list(message.blocks)
            message.ClearField("blocks")
            message.blocks.extend(data.draw(st.permutations(blocks)) if blocks else [])


def tamper_with_row(database: sqlite3.Connection, data: st.DataObject) -> None:
    """Change a field of a row of a checkpoint, or exchange it with that of another."""
    rows = [row[0] for row in database.execute("SELECT sequence FROM files ORDER BY sequence")]
    one, two = data.draw(st.sampled_from(rows)), data.draw(st.sampled_from(rows))
    columns = [row[1] for row in database.execute("PRAGMA table_info(files)")]
    column = data.draw(st.sampled_from(columns))

    def read(sequence: int) -> Any:
        query = f"SELECT {column} FROM files WHERE sequence = ?"
        found = database.execute(query, (sequence,)).fetchone()
        return found[0] if found is not None else b""

    def write(sequence: int, value: Any) -> None:
        statement = f"UPDATE OR IGNORE files SET {column} = ? WHERE sequence = ?"
        with contextlib.suppress(sqlite3.IntegrityError):
            database.execute(statement, (value, sequence))

    match data.draw(st.sampled_from(["exchange", "copy", "value", "message"])):
        case "exchange":
            first, second = read(one), read(two)
            write(one, b"" if column != "sequence" else 99)
            write(two, first)
            write(one if column != "sequence" else 99, second)
        case "copy":
            write(two, read(one))
        case "value":
            write(one, data.draw(values))
        case _:
            column = "file_info"
            with contextlib.suppress(DecodeError, TypeError):  # changed before
                message, other = pb.FileInfo.FromString(read(one)), pb.FileInfo.FromString(read(two))
                change_message(message, other, data)
                write(one, message.SerializeToString())


def tamper_with_checkpoint(store: SimulatedStore, path: Path, data: st.DataObject) -> None:
    path.write_bytes(store.body(KEYS.checkpoint(CHECKPOINT))[:-4])
    database = sqlite3.connect(path, isolation_level=None)
    for _ in range(data.draw(st.integers(1, 3))):
        tamper_with_row(database, data)
    database.close()
    body = path.read_bytes()
    store.put(KEYS.checkpoint(CHECKPOINT), body + crc32c.crc32c(body).to_bytes(4, "big"))


def tamper_with_claims(entry: segment_pb2.Entry, other: segment_pb2.Entry, data: st.DataObject) -> None:
    """Give an entry a dissent that somebody has changed, and perhaps exchange both."""
    version = segment_pb2.Entry.FromString(entry.SerializeToString())
    message, taken = pb.FileInfo.FromString(version.file_info), pb.FileInfo.FromString(other.file_info)
    change_message(message, taken, data)
    version.file_info = message.SerializeToString()
    if data.draw(st.booleans()):
        version.file_info, entry.file_info = entry.file_info, version.file_info
    entry.claims.dissents.add(version=version, claimed_by=[bytes(32)])


def tamper_with_segment(store: SimulatedStore, data: st.DataObject) -> None:
    key = KEYS.segment(CHECKPOINT + 1)
    segment = segment_pb2.Segment.FromString(store.body(key)[len(MAGIC) : -4])
    one, two = data.draw(st.permutations(segment.entries))
    field = data.draw(st.sampled_from(list(segment_pb2.Entry.DESCRIPTOR.fields_by_name)))
    if field == "file_info":
        message, other = pb.FileInfo.FromString(one.file_info), pb.FileInfo.FromString(two.file_info)
        change_message(message, other, data)
        one.file_info = message.SerializeToString()
    elif field == "claims":
        tamper_with_claims(one, two, data)
    elif field == "part_crc32c":
        one.part_crc32c.append(data.draw(st.integers(0, 2**32 - 1)))
    elif data.draw(st.booleans()):
        setattr(one, field, getattr(two, field))
    else:
        values = {"content_hash": st.text(max_size=40), "source": st.binary(max_size=33)}
        setattr(one, field, data.draw(values.get(field, st.integers(0, 2**40))))
    body = MAGIC + segment.SerializeToString()
    store.put(key, body + crc32c.crc32c(body).to_bytes(4, "big"))


# What the key holder sees


async def read(folder: Folder, reader: BlockReader, entry: Entry) -> Content:
    match entry.kind:
        case Kind.FILE:
            return await reader.read(entry)
        case Kind.SYMLINK:
            return entry.target
    return None


async def check(bucket: SimulatedBucket) -> None:
    """Check that everything is what it was at some time, or is named as damage."""
    damage = False
    seen: dict[str, Content] = {}
    try:
        async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder, BlockReader(folder) as reader:
            for entry in folder.entries():
                if not isinstance(entry, Entry):
                    damage = True
                    continue
                try:
                    content = await read(folder, reader, entry)
                except UntrustedS3Error:
                    damage = True
                    continue
                assert content in HISTORY[entry.path]
                seen[entry.path] = content
            for path in HISTORY:
                found = folder.entry(path)
                assert found is None or found.path == path
                if isinstance(found, Entry) and not found.deleted and not damage:
                    assert seen[path] == await read(folder, reader, found)
            with Verification(folder, Progress()) as verification:
                report = await verification.run(folder.entries())
            assert not damage or report.damaged
    except AssertionError:
        raise
    except Exception:
        return  # a command ends with exit code 1
    if not damage:
        missing = HISTORY.keys() - seen.keys()
        assert all("" in HISTORY[path] for path in missing)


@pytest.mark.parametrize("where", ["checkpoint", "segment"])
def test_tampering(run_async: RunAsync, where: str) -> None:
    with fast_directory() as directory:
        store = asyncio.run(fill(directory))
        run_async(check(SimulatedBucket(store)))

        @settings(max_examples=40, deadline=None)
        @given(st.data())
        def tamper(data: st.DataObject) -> None:
            objects = dict(store.objects)
            try:
                if where == "checkpoint":
                    tamper_with_checkpoint(store, directory / "tampered.sqlite", data)
                else:
                    tamper_with_segment(store, data)
                run_async(check(SimulatedBucket(store)))
            finally:
                store.objects.clear()
                store.objects.update(objects)

        tamper()
