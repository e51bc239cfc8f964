"""`ls`, `restore` and `verify` of a folder in which a device without the password has announced deletions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands.conftest import in_store
from tests.cli.conftest import RunCLI
from tests.vault.stored_folder import StoredFolder, stored_folder
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.entry import Entry
from untrusted_s3.store.s3 import S3Bucket

pytestmark = pytest.mark.store


@pytest.fixture
def folder(store: list[str], tmp_path: Path) -> list[str]:
    """The options of a store with a folder in which two of four files are falsely announced as deleted."""

    def falsely_deleted(entry: Entry) -> Entry:
        version = entry.file_info.message.version
        version.counters[0].value += 1
        fake = pb.FileInfo(name=entry.file_info.name, deleted=True, version=version, encrypted=bytes(200))
        return Entry(FileInfo(fake.SerializeToString(), fake), None)

    async def fill(bucket: S3Bucket) -> None:
        folder: StoredFolder = await stored_folder(bucket, tmp_path)
        files = [await folder.file(path, path.encode()) for path in ("kept", "one", "sub/two", "gone")]
        await folder.append(*files)
        await folder.append(folder.deleted("gone"), *map(falsely_deleted, [*files[1:3], folder.directory("never")]))

    in_store(store, fill)
    return store


EARLIER = "2 of 3 names that are falsely announced as deleted still have data in the store: --as-of with an earlier"


def test_ls(folder: list[str], run_cli: RunCLI) -> None:
    listed = run_cli("ls", "-R", *folder)
    assert (listed.exit_code, listed.stdout.splitlines()) == (1, [".:", "kept", "", "sub:"])
    assert [line.split(" (")[0] for line in listed.stderr.splitlines()[:-1]] == [
        "damaged: 'never'",
        "damaged: 'one'",
        "damaged: 'sub/two'",
    ]
    assert listed.stderr.splitlines()[-1].startswith(EARLIER)
    found = run_cli("ls", "-R", "--json", *folder)
    damaged = [entry for entry in map(json.loads, found.stdout.splitlines()) if "damaged" in entry]
    assert found.exit_code == 1 and [entry["path"] for entry in damaged] == ["never", "one", "sub/two"]
    assert run_cli("ls", "one", *folder).exit_code == run_cli("cat", "one", *folder).exit_code == 1
    assert run_cli("ls", "kept", *folder).exit_code == 0


def test_restore(folder: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
    done = run_cli("restore", tmp_path / "target", *folder)
    assert done.exit_code == 1
    assert "  sub/two: it is announced as deleted, and that is not authentic: " in done.stderr
    assert EARLIER in done.stderr
    assert done.stderr.splitlines()[-1] == "restored 1 file (4 B), 0 symlinks, 3 not restored"
    report = json.loads(run_cli("restore", tmp_path / "target", "--json", *folder).stdout)
    assert [problem["path"] for problem in report["failed"]] == ["never", "one", "sub/two"]


def test_verify(folder: list[str], run_cli: RunCLI) -> None:
    done = run_cli("verify", *folder)
    assert done.exit_code == 1
    assert "  one: it is announced as deleted, and that is not authentic: " in done.stderr
    assert EARLIER in done.stderr and done.stdout.endswith("3 problems\n")
    report = json.loads(run_cli("verify", "--json", *folder).stdout)
    assert [problem["path"] for problem in report["damaged"]] == ["never", "one", "sub/two"]


def test_the_earlier_versions_are_there(folder: list[str], run_cli: RunCLI) -> None:
    # The clock of the stored folder begins at 1,700,000,000 and goes on by a second with each segment.
    arguments = [*folder, "--as-of", "2023-11-14T22:13:21Z"]
    assert run_cli("cat", "sub/two", *arguments).stdout == "sub/two"
    assert run_cli("ls", *arguments).stdout.splitlines() == ["gone", "kept", "one"]
