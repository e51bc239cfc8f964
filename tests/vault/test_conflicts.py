"""What the key holder sees of names with several versions: the winner, conflict copies, and damaged versions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.simulated import SimulatedBucket
from tests.vault.conflicting import GONE_COPY, REPORT_COPY, TIME, A, B, C, disputed, fill, made_by
from tests.vault.stored_folder import FOLDER_ID, PASSWORD, StoredFolder, stored_folder
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.entry import Entry as LogEntry
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key
from untrusted_s3.vault.entry import DamagedEntry, Entry
from untrusted_s3.vault.folder import Folder, open_folder
from untrusted_s3.vault.reading import BlockReader
from untrusted_s3.vault.selection import Selection


@pytest.fixture
def bucket() -> SimulatedBucket:
    return SimulatedBucket()


@pytest.fixture
async def stored(bucket: SimulatedBucket, tmp_path: Path) -> StoredFolder:
    return await stored_folder(bucket, tmp_path)


def paths(folder: Folder, *, deleted: bool = False, conflicts: bool = False, versions: bool = False) -> list[str]:
    found = folder.entries(deleted=deleted, conflicts=conflicts, versions=versions)
    return [str(entry.path) for entry in found]


async def read(folder: Folder, path: str) -> bytes:
    entry = folder.entry(path)
    assert isinstance(entry, Entry)
    async with BlockReader(folder) as reader:
        return await reader.read(entry)


@dataclass(frozen=True)
class Rewrite:
    """A change that writes an entry whatever the log has."""

    entry: LogEntry

    @property
    def key(self) -> bytes:
        return name_key(self.entry.file_info.name)

    def __call__(self, state: FolderState) -> LogEntry:
        return self.entry


def damaged(entry: LogEntry) -> LogEntry:
    """Return an entry that does not decrypt."""
    message = pb.FileInfo.FromString(entry.file_info.raw)
    message.encrypted = b"x" * 100
    return replace(entry, file_info=FileInfo(message.SerializeToString(), message))


async def test_the_winner_is_what_the_folder_holds(bucket: SimulatedBucket, stored: StoredFolder) -> None:
    await fill(stored)
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert paths(folder) == ["back.txt", "docs", "old.txt", "plain.txt", "docs/report.txt"]
        with_deleted = ["back.txt", "docs", "gone.txt", "old.txt", "plain.txt", "docs/report.txt"]
        assert paths(folder, deleted=True) == with_deleted
        assert await read(folder, "docs/report.txt") == b"of A, newer"
        assert await read(folder, "back.txt") == b"is back"
        assert await read(folder, "old.txt") == b"new"
        gone = folder.entry("gone.txt")
        assert isinstance(gone, Entry) and gone.deleted and gone.conflicts == 1
        assert [entry.path for entry in folder.children("docs")] == ["docs/report.txt"]
        assert list(folder.directories()) == ["docs"]
        counts = {str(entry.path): entry.conflicts for entry in folder.entries() if isinstance(entry, Entry)}
        assert {path: count for path, count in counts.items() if count} == {"docs/report.txt": 1}


async def test_conflict_copies(bucket: SimulatedBucket, stored: StoredFolder) -> None:
    await fill(stored)
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert folder.conflict_count == 2
        listed = ["back.txt", "docs", GONE_COPY, "old.txt", "plain.txt", REPORT_COPY, "docs/report.txt"]
        assert paths(folder, conflicts=True) == listed
        assert [entry.path for entry in folder.children("docs", conflicts=True)] == [REPORT_COPY, "docs/report.txt"]
        assert [entry.path for entry in folder.conflicts()] == [GONE_COPY, REPORT_COPY]
        assert [entry.path for entry in folder.conflicts("gone.txt".__eq__)] == [GONE_COPY]
        assert await read(folder, REPORT_COPY) == b"of B"
        assert await read(folder, GONE_COPY) == b"edit of A"
        copy = folder.entry(REPORT_COPY)
        assert isinstance(copy, Entry) and copy.conflict_of == "docs/report.txt" and copy.is_other
        assert folder.entry(REPORT_COPY + "x") is None
        selected = [entry.path for entry in Selection(["docs/report.txt"]).of(folder, conflicts=True)]
        assert selected == ["docs", REPORT_COPY, "docs/report.txt"]


async def test_all_versions_for_those_who_verify(bucket: SimulatedBucket, stored: StoredFolder) -> None:
    await fill(stored)
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        top = ["back.txt", "docs", "gone.txt", "old.txt", "old.txt", "plain.txt"]
        assert paths(folder, versions=True) == [*top, *2 * ["docs/report.txt"]]
        others = sorted(entry.path for entry in folder.other_versions())
        assert others == ["docs/report.txt", "gone.txt", "old.txt"]
        assert Selection().progress(folder, versions=True).total_files == folder.totals.files + len(others)
        assert Selection(["docs"]).progress(folder, versions=True).total_files == 2


async def test_a_conflict_copy_never_has_the_name_of_something_else(
    bucket: SimulatedBucket, stored: StoredFolder
) -> None:
    await fill(stored)
    await stored.append(
        await stored.file(REPORT_COPY, b"made by a device"),
        stored.deleted(GONE_COPY),
        disputed(
            await stored.file("docs/many.txt", b"1", change_real=made_by(A, TIME, a=6)),
            await stored.file("docs/many.txt", b"22", change_real=made_by(C, TIME - 5, b=3)),
            await stored.file("docs/many.txt", b"333", change_real=made_by(C, TIME - 5, c=4)),
        ),
    )
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert await read(folder, REPORT_COPY) == b"made by a device"
        assert await read(folder, REPORT_COPY.replace("221321", "221322")) == b"of B"
        assert await read(folder, GONE_COPY.replace("221320", "221321")) == b"edit of A"
        copies = {f"docs/many.sync-conflict-20231114-22131{second}-{C.short}.txt" for second in "56"}
        assert copies < {entry.path for entry in folder.conflicts()}
        assert {await read(folder, path) for path in copies} == {b"22", b"333"}


async def test_a_damaged_version_never_wins_and_is_not_hidden(bucket: SimulatedBucket, stored: StoredFolder) -> None:
    good = await stored.file("f", b"good", change_real=made_by(A, TIME, a=5))
    bad = damaged(await stored.file("f", b"bad", change_real=made_by(B, TIME + 9, a=5, b=9)))
    deletion = damaged(stored.deleted("g", change_real=made_by(B, TIME + 9, a=5, b=9)))
    lost = await stored.file("g", b"lost", change_real=made_by(A, TIME, a=5))
    both = [damaged(await stored.file("h", text, change_real=made_by(B, TIME, a=5))) for text in (b"1", b"22")]
    removed = stored.deleted("i", change_real=made_by(A, TIME, a=5))
    forged = damaged(await stored.file("i", b"bad", change_real=made_by(B, TIME + 9, b=9)))
    await stored.append(disputed(bad, good), disputed(deletion, lost), disputed(*both), disputed(removed, forged))
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        assert await read(folder, "f") == b"good" and await read(folder, "g") == b"lost"
        found = [(entry.path, isinstance(entry, DamagedEntry)) for entry in folder.entries()]
        assert found == [
            ("f", False),
            ("f", True),
            ("g", False),
            ("g", True),
            ("h", True),
            ("h", True),
            ("i", True),
        ]
        assert isinstance(folder.entry("h"), DamagedEntry)
        assert folder.conflict_count == 0


async def test_as_of_the_time_before_and_after_a_conflict(bucket: SimulatedBucket, stored: StoredFolder) -> None:
    first = await stored.file("f", b"of A, newer", change_real=made_by(A, TIME + 5, a=7))
    second = await stored.file("f", b"of B", change_real=made_by(B, TIME, a=5, b=9))
    third = await stored.file("f", b"of B, edited", change_real=made_by(B, TIME + 9, a=7, b=10))
    await stored.append(first, time=TIME + 10)
    await stored.append(disputed(second, first), time=TIME + 20)
    await stored.append(disputed(third), time=TIME + 30)
    expected = {TIME + 15: (b"of A, newer", 0), TIME + 25: (b"of A, newer", 1), TIME + 35: (b"of B, edited", 0)}
    for time, (content, conflicts) in expected.items():
        moment = datetime.fromtimestamp(time, UTC)
        async with open_folder(bucket, FOLDER_ID, PASSWORD, as_of=moment) as folder:
            assert await read(folder, "f") == content
            assert folder.conflict_count == conflicts
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
        versions = await folder.versions("f")
        assert [(version.since, version.is_dissent) for version in versions] == [
            (datetime.fromtimestamp(time, UTC), False) for time in (TIME + 10, TIME + 20, TIME + 30)
        ]


async def test_versions_have_dissents_once(bucket: SimulatedBucket, stored: StoredFolder) -> None:
    current = await stored.file("f", b"of B", change_real=made_by(B, TIME, a=5, b=9))
    dissent = await stored.file("f", b"of A", change_real=made_by(A, TIME + 1, a=7))
    other = await stored.file("f", b"of C", change_real=made_by(C, TIME + 2, c=8))
    await stored.append(disputed(current, dissent))
    await stored.log.checkpoint()
    await stored.log.append([Rewrite(disputed(current, dissent, other))])
    for number in (1, 2):
        async with open_folder(bucket, FOLDER_ID, PASSWORD) as folder:
            versions = await folder.versions("f")
        found = [(version.is_dissent, getattr(version.entry, "size", None)) for version in versions]
        assert found == [(False, 4), (True, 4), (True, 4)]
        assert (versions[0].since is None) == (number == 2), "before the history"
        bucket.store.objects.pop(stored.keys.segment(1), None)
