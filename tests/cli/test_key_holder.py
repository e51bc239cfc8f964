"""Options of commands that read a folder: which folder, its password, and at which time."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.conftest import RunCLI, lines
from tests.peers.s3_server import S3Server
from tests.vault.stored_folder import PASSWORD, START, StoredFolder
from untrusted_s3.cli.key_holder import moment_ago, parse_time
from untrusted_s3.errors import UsageError
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket

pytestmark = pytest.mark.store


def test_as_of_a_time(run_cli: RunCLI, arguments: list[str]) -> None:
    then = datetime.fromtimestamp(START + 60, UTC)
    assert lines(run_cli, arguments, "--as-of", f"{then:%Y-%m-%dT%H:%M:%SZ}") == ["changed", "old"]
    assert run_cli("cat", *arguments, "changed", "--as-of", f"{then:%Y-%m-%dT%H:%MZ}").stdout == "before"
    assert run_cli("cat", *arguments, "changed").stdout == "after!"
    early = run_cli("ls", *arguments, "--as-of", "2000-01-01")
    assert early.exit_code == 2 and "history" in early.stderr and "2023-11-14T22:13:20" in early.stderr


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-01", "2026-11-01T00:00:00+01:00"),
        ("2026-07-01", "2026-07-01T00:00:00+02:00"),
        ("2026-11-01T12:00", "2026-11-01T12:00:00+01:00"),
        ("2026-11-01 12:00:05.25", "2026-11-01T12:00:05.250000+01:00"),
        ("2026-11-01T12:00Z", "2026-11-01T12:00:00+00:00"),
        ("2026-11-01T12:00-07:00", "2026-11-01T12:00:00-07:00"),
    ],
)
def test_times_are_local_unless_they_say_otherwise(monkeypatch: pytest.MonkeyPatch, text: str, expected: str) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        assert parse_time(text).isoformat() == expected
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2026-13-01",
        "12:00",
        "20261101",
        "2026-11-01T25:00",
        "2026-W01-1",
        "x days ago",
        "9999999 years ago",
    ],
)
def test_invalid_times(text: str) -> None:
    with pytest.raises(UsageError, match="--as-of"):
        parse_time(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2 days ago", "2026-03-29T10:30:00+02:00"),
        ("1 day ago", "2026-03-30T10:30:00+02:00"),
        ("90 minutes ago", "2026-03-31T09:00:00+02:00"),
        ("3 Weeks ago", "2026-03-10T10:30:00+02:00"),
        ("1 month ago", "2026-02-28T10:30:00+02:00"),
        ("2 years ago", "2024-03-31T10:30:00+02:00"),
        ("today", "2026-03-31T00:00:00+02:00"),
        ("yesterday", "2026-03-30T00:00:00+02:00"),
        ("2026-11-01", None),
        ("2 days", None),
        ("two days ago", None),
        ("2 ages ago", None),
    ],
)
def test_times_before_now(monkeypatch: pytest.MonkeyPatch, text: str, expected: str | None) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        found = moment_ago(text, datetime(2026, 3, 31, 10, 30).astimezone())
        assert (found.isoformat() if found is not None else None) == expected
        assert parse_time("1 hour ago") <= datetime.now(UTC)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_wrong_password(run_cli: RunCLI, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNTRUSTED_S3_PASSWORD", "wrong secret")
    for command in (["ls"], ["cat", "changed"]):
        outcome = run_cli(*command, *arguments)
        assert (outcome.exit_code, outcome.stdout) == (4, "")
        assert "wrong password" in outcome.stderr and "secret" not in outcome.stderr


def test_the_password_from_a_file(
    run_cli: RunCLI, arguments: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n", encoding="utf-8")
    both = run_cli("ls", *arguments, "--password-file", file)
    assert both.exit_code == 2 and "choose one" in both.stderr
    monkeypatch.delenv("UNTRUSTED_S3_PASSWORD")
    assert run_cli("ls", *arguments, "--password-file", file).exit_code == 0
    none = run_cli("ls", *arguments, "--password-file", tmp_path / "none")
    assert none.exit_code == 2 and "No such file" in none.stderr
    file.write_bytes(b"\xff")
    assert run_cli("ls", *arguments, "--password-file", file).exit_code == 2
    nothing = run_cli("ls", *arguments)
    assert nothing.exit_code == 2 and "no password" in nothing.stderr


def test_which_folder(run_cli: RunCLI, arguments: list[str]) -> None:
    outcome = run_cli("ls", *arguments[:-2])
    assert outcome.exit_code == 2 and "'another folder', 'folder': name it with --folder" in outcome.stderr
    outcome = run_cli("ls", *arguments[:-1], "nothing")
    assert outcome.exit_code == 2 and "'another folder', 'folder'" in outcome.stderr


@pytest.mark.usefixtures("_password")
def test_the_only_folder_need_not_be_named(
    run_cli: RunCLI, store_arguments: list[str], s3_server: S3Server, bucket_prefix: str, tmp_path: Path
) -> None:
    empty = run_cli("ls", *store_arguments)
    assert empty.exit_code == 2 and "has none" in empty.stderr

    async def fill() -> None:
        credentials = S3Credentials(s3_server.access_key, s3_server.secret_key)
        location = StoreLocation(s3_server.bucket, bucket_prefix + "/")
        bucket = await S3Bucket.open(location, s3_server.endpoint_url, credentials)
        stored = await StoredFolder(bucket, tmp_path).create()
        await stored.append(stored.directory("only"))
        await bucket.close()

    asyncio.run(fill())
    assert lines(run_cli, store_arguments) == ["only"]


def test_nothing_is_written_to_the_store(
    run_cli: RunCLI, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[dict[str, int]] = []
    close = S3Bucket.close

    async def note(bucket: S3Bucket) -> None:
        sent.append(bucket.requests)
        await close(bucket)

    monkeypatch.setattr(S3Bucket, "close", note)
    assert run_cli("ls", *arguments, "-lR").exit_code == 0
    assert run_cli("cat", *arguments, "changed").exit_code == 0
    assert {name for requests in sent for name in requests} <= {"head_bucket", "list_objects_v2", "GET"}
    assert len(sent) == 2


def test_arguments_that_are_not_utf8(run_cli: RunCLI, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for command in (["cat", "\udcff"], ["ls", "\udcff"], ["ls", "*/\udcff"], ["verify", "--path", "\udcff"]):
        outcome = run_cli(*command, *arguments)
        assert outcome.exit_code == 2 and "folder" in outcome.stderr
    assert run_cli("ls", *arguments, "--folder", "\udcff").stderr == "error: the folder ID is not UTF-8\n"
    monkeypatch.setenv("UNTRUSTED_S3_PASSWORD", "\udcff")
    outcome = run_cli("ls", *arguments)
    assert (outcome.exit_code, outcome.stderr) == (2, "error: the password is not UTF-8\n")
