"""`ls` and `cat`, and the options that they share: against a real store that our own encryption has filled."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.conftest import RunCLI
from tests.peers.s3_server import S3Server
from tests.vault.stored_folder import FOLDER_ID, PASSWORD, START, StoredFolder, derive, random_bytes
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.cli.commands.cat import find_range
from untrusted_s3.cli.commands.ls import human_size, iso_text, time_text
from untrusted_s3.cli.key_holder import parse_time
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import UsageError
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import KIB

pytestmark = pytest.mark.store

LARGE = random_bytes(700 * KIB)
MODIFIED = datetime(2026, 11, 1, 12, 34, 56, tzinfo=UTC)
MODIFIED_NS = int(MODIFIED.timestamp()) * 10**9 + 7
NEVER_NS = 2**62 * 10**9


@pytest.fixture(autouse=True)
def _secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FolderKey, "derive", derive)
    monkeypatch.setenv("UNTRUSTED_S3_PASSWORD", PASSWORD)
    monkeypatch.setenv("TZ", "UTC")


async def _fill(bucket: S3Bucket, directory: Path) -> None:
    stored = await StoredFolder(bucket, directory).create()
    await stored.append(await stored.file("changed", b"before"), await stored.file("old", b"lived"), time=START)
    await stored.append(
        stored.directory("sub", mode=0o750, modified_ns=MODIFIED_NS),
        stored.directory("sub/empty"),
        await stored.file("sub/large", LARGE, mode=0o600, modified_ns=MODIFIED_NS),
        await stored.file("sub/x[1]", b"", modified_ns=NEVER_NS),
        stored.symlink("sub/link", "../changed", modified_ns=MODIFIED_NS),
        await stored.file("changed", b"after!", modified_ns=MODIFIED_NS),
        stored.deleted("old"),
        await stored.file("evil\x1b[2Jname", b"x", modified_ns=MODIFIED_NS),
        time=START + 3600,
    )
    other = await StoredFolder(bucket, directory, "another folder").create()
    await other.append(await other.file("sound", b"sound"), await other.file("../escape", b"x"))
    bad = await other.file("bad", random_bytes(300 * KIB))
    await other.append(bad)
    body = bytearray(await bucket.get(other.object_key(bad)))
    body[200 * KIB] ^= 1
    await bucket.put(other.object_key(bad), [bytes(body)])

    def lie(fake: pb.FileInfo) -> None:
        fake.version.counters[0].value += 1

    await other.append(await other.file("liar", b"x", change_fake=lie))


@pytest.fixture(scope="module")
def filled(seaweedfs: S3Server, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The prefix of a store with two folders."""
    prefix = "test-key-holder"

    async def fill() -> None:
        credentials = S3Credentials(seaweedfs.access_key, seaweedfs.secret_key)
        location = StoreLocation(seaweedfs.bucket, prefix + "/")
        bucket = await S3Bucket.open(location, seaweedfs.endpoint_url, credentials)
        try:
            await _fill(bucket, tmp_path_factory.mktemp("filling"))
        finally:
            await bucket.close()

    asyncio.run(fill())
    return prefix


@pytest.fixture
def arguments(filled: str, seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """--store, --endpoint-url and --folder; credentials are in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", seaweedfs.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", seaweedfs.secret_key)
    store = ["--store", f"s3://{seaweedfs.bucket}/{filled}", "--endpoint-url", seaweedfs.endpoint_url]
    return [*store, "--folder", FOLDER_ID]


def lines(run_cli: RunCLI, arguments: list[str], *more: str) -> list[str]:
    outcome = run_cli("ls", *arguments, *more)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    return outcome.stdout.splitlines()


# ls


def test_ls_of_the_folder_a_directory_and_a_file(run_cli: RunCLI, arguments: list[str]) -> None:
    assert lines(run_cli, arguments) == ["changed", "evil\x1b[2Jname", "sub"]
    assert lines(run_cli, arguments, "sub/") == ["empty", "large", "link", "x[1]"]
    assert lines(run_cli, arguments, "./sub/large") == ["sub/large"]
    assert lines(run_cli, arguments, "sub/link") == ["sub/link"]
    assert lines(run_cli, arguments, "/") == lines(run_cli, arguments)


def test_ls_recursive_and_with_what_was_deleted(run_cli: RunCLI, arguments: list[str]) -> None:
    top = ["changed", "evil\x1b[2Jname"]
    below = ["", "sub:", "empty", "large", "link", "x[1]"]
    assert lines(run_cli, arguments, "-R") == [".:", *top, "sub", *below]
    assert lines(run_cli, arguments, "-R", "--deleted") == [".:", *top, "old", "sub", *below]
    assert lines(run_cli, arguments, "changed", "sub") == ["changed", *below]


def test_ls_long(run_cli: RunCLI, arguments: list[str]) -> None:
    when = "2026-11-01 12:34"
    assert lines(run_cli, arguments, "-l", "sub") == [
        "drwxr-xr-x            0 2023-11-14 22:13 empty",
        f"-rw-------       716800 {when} large",
        f"lrwxrwxrwx           10 {when} link -> ../changed",
        "-rw-r--r--            0 ????-??-?? ??:?? x[1]",
    ]
    assert lines(run_cli, arguments, "-lh", "sub/large") == [f"-rw-------  700K {when} sub/large"]
    assert lines(run_cli, arguments, "-l", "--deleted", "old")[0].endswith(" old (deleted)")


@pytest.mark.parametrize(
    ("glob", "expected"),
    [
        ("sub/l*", ["sub/large", "sub/link"]),
        ("sub/l?nk", ["sub/link"]),
        ("**/l[!i]*", ["sub/large"]),
        ("c*", ["changed"]),
        ("s*", ["empty", "large", "link", "x[1]"]),
        ("sub/x[1]", ["sub/x[1]"]),
    ],
)
def test_ls_of_globs(run_cli: RunCLI, arguments: list[str], glob: str, expected: list[str]) -> None:
    assert lines(run_cli, arguments, glob) == expected


@pytest.mark.parametrize("path", ["never", "sub/never", "n*", "old"])
def test_ls_of_what_is_not_there(run_cli: RunCLI, arguments: list[str], path: str) -> None:
    outcome = run_cli("ls", *arguments, path, "sub/large")
    assert (outcome.exit_code, outcome.stdout) == (2, "sub/large\n")
    assert f"there is no '{path}'" in outcome.stderr


def test_ls_json(run_cli: RunCLI, arguments: list[str]) -> None:
    found = {entry["path"]: entry for entry in map(json.loads, lines(run_cli, arguments, "-R", "--json", "--deleted"))}
    assert list(found) == ["changed", "evil\x1b[2Jname", "old", "sub", "sub/empty", "sub/large", "sub/link", "sub/x[1]"]
    modified = "2026-11-01T12:34:56.000000007Z"
    assert found["sub/large"] == {
        "path": "sub/large",
        "kind": "file",
        "size": len(LARGE),
        "mode": "0600",
        "modified": modified,
    }
    assert found["sub/link"] == {
        "path": "sub/link",
        "kind": "symlink",
        "size": 10,
        "mode": None,
        "modified": modified,
        "target": "../changed",
    }
    assert found["old"]["deleted"] is True
    assert found["sub/x[1]"]["modified"] is None


def test_damage_is_listed_and_does_not_stop_the_rest(run_cli: RunCLI, arguments: list[str]) -> None:
    arguments[-1] = "another folder"
    outcome = run_cli("ls", *arguments)
    assert (outcome.exit_code, outcome.stdout) == (1, "bad\nsound\n")
    liar, escape = outcome.stderr.splitlines()
    assert liar.startswith("damaged: 'liar' (") and ".syncthing-enc/" in liar and "another version" in liar
    assert escape.startswith("damaged: '../escape' (") and "harmless" in escape
    outcome = run_cli("ls", *arguments, "--json")
    assert outcome.exit_code == 1 and outcome.stderr == ""
    damaged = [entry for entry in map(json.loads, outcome.stdout.splitlines()) if "damaged" in entry]
    assert [entry["path"] for entry in damaged] == ["liar", "../escape"]
    assert all(entry["encrypted_name"] for entry in damaged)


def on_a_terminal(*arguments: str, typed: bytes = b"") -> tuple[int, bytes]:
    """Runs a command on a terminal of its own: its exit code and all that it shows."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-m", "untrusted_s3", *arguments])
    shown = b""
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            break
        if not piece:
            break
        shown += piece
        if typed and b": " in shown:
            os.write(terminal, typed)
            typed = b""
    os.close(terminal)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown


def test_names_cannot_control_the_terminal_and_the_password_is_not_shown(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UNTRUSTED_S3_PASSWORD")
    exit_code, shown = on_a_terminal("ls", *arguments, "-l", typed=PASSWORD.encode() + b"\n")
    assert exit_code == 0, shown
    assert b"evil\\x1b[2Jname" in shown and b"\x1b[2J" not in shown
    assert b"Password of the folder 'folder': " in shown and PASSWORD.encode() not in shown


# Time and password


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


@pytest.mark.parametrize("text", ["", "yesterday", "2026-13-01", "12:00", "20261101", "2026-11-01T25:00", "2026-W01-1"])
def test_no_times(text: str) -> None:
    with pytest.raises(UsageError, match="--as-of"):
        parse_time(text)


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


# cat


def test_cat_writes_the_bytes(arguments: list[str]) -> None:
    for path, expected in (("sub/large", LARGE), ("/sub/x[1]", b"")):
        assert run_cli_bytes(arguments, path) == (0, expected)


def run_cli_bytes(arguments: list[str], *more: str) -> tuple[int, bytes]:
    command = [sys.executable, "-m", "untrusted_s3", "cat", *arguments, *more]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False)
    assert done.stderr == b""
    return done.returncode, done.stdout


@pytest.mark.parametrize(
    ("byte_range", "expected"),
    [
        ("0-0", (0, 1)),
        ("5-9", (5, 10)),
        ("5-", (5, 100)),
        ("-5", (95, 100)),
        ("-500", (0, 100)),
        ("90-500", (90, 100)),
        ("200-300", (200, 100)),
        (None, (0, 100)),
    ],
)
def test_ranges(byte_range: str | None, expected: tuple[int, int]) -> None:
    assert find_range(byte_range, 100) == expected


def test_cat_of_a_range(run_cli: RunCLI, arguments: list[str]) -> None:
    assert run_cli("cat", *arguments, "changed", "--range", "1-3").stdout == "fte"
    assert run_cli("cat", *arguments, "changed", "--range", "-1").stdout == "!"
    assert run_cli("cat", *arguments, "changed", "--range", "9-20").stdout == ""
    for wrong in ("-", "1", "a-b", "1-2-3"):
        outcome = run_cli("cat", *arguments, "changed", "--range", wrong)
        assert outcome.exit_code == 2 and "--range" in outcome.stderr


@pytest.mark.parametrize(
    ("path", "reason"),
    [("never", "there is no"), ("sub", "a directory"), ("sub/link", "a symlink"), ("old", "deleted"), ("", "no ''")],
)
def test_cat_of_what_has_no_bytes(run_cli: RunCLI, arguments: list[str], path: str, reason: str) -> None:
    outcome = run_cli("cat", *arguments, path)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert reason in outcome.stderr


def test_cat_of_damage_ends_before_it(arguments: list[str]) -> None:
    arguments[-1] = "another folder"
    command = [sys.executable, "-m", "untrusted_s3", "cat", *arguments]
    done = subprocess.run([*command, "bad"], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1 and b"'bad' is damaged at byte 131072" in done.stderr
    assert done.stdout == random_bytes(300 * KIB)[: 128 * KIB]
    done = subprocess.run([*command, "liar"], capture_output=True, timeout=60, check=False)
    assert done.returncode == 1 and b"'liar' is damaged" in done.stderr and done.stdout == b""


def test_cat_into_a_closed_pipe_ends_quietly(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "untrusted_s3", "cat", *arguments, "sub/large"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.read(10) == LARGE[:10]
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 141


# Texts


def test_sizes_for_humans() -> None:
    sizes = [0, 1023, 1024, 1025, 10 * KIB - 1, 10 * KIB, 1023 * KIB, 1023 * KIB + 1, 5 << 40]
    assert [human_size(size) for size in sizes] == ["0", "1023", "1.0K", "1.1K", "10K", "10K", "1023K", "1.0M", "5.0T"]
    assert human_size(2**200) == str(2**200)


def test_times() -> None:
    assert iso_text(-1) == "1969-12-31T23:59:59.999999999Z"
    assert iso_text(NEVER_NS) is None
    assert time_text(-1, UTC) == "1969-12-31 23:59"
    for never in (NEVER_NS, -NEVER_NS, -(10**9) * 62135596800):
        assert len(time_text(never)) == len("1969-12-31 23:59")
