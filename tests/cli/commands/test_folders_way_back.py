"""`folders retract` and `folders rewind`: dry runs, their summaries, and what --yes does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands.conftest import in_store
from tests.cli.conftest import RunCLI
from tests.file_infos import encrypted_name
from tests.vault.stored_folder import FOLDER_ID, PASSWORD, StoredFolder, derive, stored_folder
from tests.way_back.attacked import ATTACKER, HONEST, by, forged
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.store import layout, records
from untrusted_s3.store.records import PeerRecord
from untrusted_s3.store.s3 import S3Bucket

pytestmark = pytest.mark.store

KEY = derive(PASSWORD, FOLDER_ID)
MADE_UP = encrypted_name("made up")


@pytest.fixture
def folder(store: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a store with an attacked folder; no password is in the environment."""
    monkeypatch.setattr(FolderKey, "derive", derive)
    monkeypatch.delenv("UNTRUSTED_S3_PASSWORD")
    (tmp_path / "password").write_text(PASSWORD)

    async def fill(bucket: S3Bucket) -> None:
        stored: StoredFolder = await stored_folder(bucket, tmp_path)
        await stored.append(*by(HONEST, *[await stored.file(path, path.encode()) for path in ("docs/a", "b")]))
        await stored.append(forged(KEY.encrypt_name("docs/a"), 1000, deleted=True), forged(MADE_UP, 1))
        for device in (HONEST, ATTACKER):
            await records.write_record(bucket, layout.peer_key(device), PeerRecord(device).to_json())

    in_store(store, fill)
    return store


def accept(store: list[str], record: PeerRecord) -> None:
    """Change what a device may do."""

    async def act(bucket: S3Bucket) -> None:
        await records.write_record(bucket, layout.peer_key(record.device_id), record.to_json())

    in_store(store, act)


def test_retract_by_device(folder: list[str], run_cli: RunCLI) -> None:
    arguments = ["folders", "retract", FOLDER_ID, "--device", ATTACKER, *folder]
    dry = run_cli(*arguments)
    assert (dry.exit_code, dry.stdout.splitlines()[:2]) == (
        0,
        [
            "folder 'folder': 2 names would be taken back",
            "with an earlier version instead: 1; removed: 1",
        ],
    )
    assert f"{ATTACKER} is still accepted" in dry.stderr and "dry run" in dry.stderr
    refused = run_cli(*arguments, "--yes")
    assert refused.exit_code == 2 and f"untrusted-s3 peers remove {ATTACKER}" in refused.stderr
    accept(folder, PeerRecord(ATTACKER, read_only=True))
    done = run_cli(*arguments, "--yes", "--json")
    report = json.loads(done.stdout)
    assert done.exit_code == 0 and report["applied"] and report["changes"] == 2
    assert (report["earlier_versions"], report["removed"], report["devices"]) == (1, 1, {str(ATTACKER): 2})
    names = {one["encrypted_name"]: (one["now"]["kind"], one["instead"]) for one in report["names"]}
    assert names == {
        KEY.encrypt_name("docs/a"): ("deletion", {"kind": "file", "size": 1024 + 40, "device": str(HONEST)}),
        MADE_UP: ("directory or symlink", None),
    }
    again = run_cli(*arguments, "--yes")
    assert (again.exit_code, again.stdout) == (0, "folder 'folder': 0 names taken back\n")


def test_retract_what_does_not_decrypt(folder: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
    arguments = ["folders", "retract", FOLDER_ID, "--undecryptable", *folder]
    no_password = run_cli(*arguments)
    assert no_password.exit_code == 2 and "no password" in no_password.stderr
    password = ["--password-file", tmp_path / "password"]
    dry = run_cli(*arguments, *password, "--limit", "1")
    assert dry.exit_code == 0 and "… and 1 more" in dry.stdout
    assert f"2 of them came from {ATTACKER}, which is still accepted" in dry.stderr
    assert run_cli("verify", "--folder", FOLDER_ID, *folder, *password).exit_code == 1
    done = run_cli(*arguments, *password, "--yes")
    assert done.exit_code == 0 and "docs/a" in done.stdout and MADE_UP in done.stdout
    verified = run_cli("verify", "--folder", FOLDER_ID, *folder, *password)
    assert (verified.exit_code, verified.stderr) == (0, "")
    assert run_cli(*arguments, *password, "--yes").stdout.startswith("folder 'folder': 0 names")


def test_retract_names(folder: list[str], run_cli: RunCLI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["folders", "retract", FOLDER_ID, *folder]
    unclear = run_cli(*arguments, "--name", MADE_UP, "--device", ATTACKER)
    assert unclear.exit_code == run_cli(*arguments).exit_code == 2 and "say what to take back" in unclear.stderr
    plain = run_cli(*arguments, "--name", "docs/a")
    assert plain.exit_code == 2 and "'docs/a' is not an encrypted name" in plain.stderr
    unreadable = run_cli(*arguments, "--names-from", tmp_path / "names")
    assert unreadable.exit_code == 2 and "cannot read names" in unreadable.stderr
    (tmp_path / "names").write_text(f"{MADE_UP}\n\nnot there\n")
    monkeypatch.setenv("UNTRUSTED_S3_PASSWORD", PASSWORD)
    done = run_cli(*arguments, "--name", "docs/a", "--names-from", tmp_path / "names", "--yes")
    assert done.exit_code == 0 and done.stdout.startswith("folder 'folder': 2 names taken back\n")
    assert "not in the folder:\n  not there: " in done.stderr
    again = run_cli(*arguments, "--name", "docs/a", "--yes", "--json")
    report = json.loads(again.stdout)
    assert (report["changes"], report["already_taken_back"]) == (0, 1)


def test_rewind(folder: list[str], run_cli: RunCLI, tmp_path: Path) -> None:
    # The clock of the stored folder begins at 1,700,000,000 and goes on by a second with each segment.
    arguments = ["folders", "rewind", FOLDER_ID, "--to", "2023-11-14T22:13:21Z", *folder]
    dry = run_cli(*arguments)
    assert (dry.exit_code, dry.stdout.splitlines()[0]) == (
        0,
        "folder 'folder': 2 names would be taken back to 2023-11-14 22:13:21+00:00",
    )
    assert "2 devices may connect" in dry.stderr
    done = run_cli(*arguments, "--yes", "--password-file", tmp_path / "password")
    assert done.exit_code == 0 and "docs/a" in done.stdout
    again = run_cli(*arguments, "--yes", "--json")
    assert (json.loads(again.stdout)["changes"], json.loads(again.stdout)["applied"]) == (0, True)
    listed = run_cli("ls", "-R", "--folder", FOLDER_ID, "--password-file", tmp_path / "password", *folder)
    assert (listed.exit_code, listed.stdout.split()) == (0, [".:", "b", "docs:", "a"])
    early = run_cli("folders", "rewind", FOLDER_ID, "--to", "2020-01-01", *folder)
    assert early.exit_code == 2 and "before the stored history" in early.stderr
    wrong = run_cli("folders", "rewind", FOLDER_ID, "--to", "the other day", *folder)
    assert wrong.exit_code == 2 and "--to must look like" in wrong.stderr


def test_a_folder_that_is_not_there(folder: list[str], run_cli: RunCLI) -> None:
    for command in (["retract", "other", "--device", ATTACKER], ["rewind", "other", "--to", "2026-11-01"]):
        outcome = run_cli("folders", *command, *folder)
        assert outcome.exit_code == 2 and "no folder 'other'" in outcome.stderr
