"""`check` prints what is damaged, as text and as JSON, and ends with 1 if anything is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.cli.conftest import RunCLI
from tests.peers.s3_server import S3Server, on_each_s3_server
from tests.vault.stored_folder import StoredFolder, random_bytes
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket


@pytest.fixture
def damaged_key(s3_server: S3Server, bucket_prefix: str, tmp_path: Path) -> str:
    """The key of a damaged object. There is another file."""

    async def fill() -> str:
        credentials = S3Credentials(s3_server.access_key, s3_server.secret_key)
        location = StoreLocation(s3_server.bucket, bucket_prefix + "/")
        bucket = await S3Bucket.open(location, s3_server.endpoint_url, credentials)
        try:
            folder = await StoredFolder(bucket, tmp_path).create()
            bad = await folder.file("bad", random_bytes(5000))
            await folder.append(await folder.file("sound", b"sound"), bad)
            await folder.log.checkpoint()
            body = bytearray(await bucket.get(folder.object_key(bad)))
            body[77] ^= 1
            await bucket.put(folder.object_key(bad), [bytes(body)])
            return folder.object_key(bad)
        finally:
            await bucket.close()

    return asyncio.run(fill())


@on_each_s3_server
def test_check(run_cli: RunCLI, store_arguments: list[str], damaged_key: str) -> None:
    outcome = run_cli("check", *store_arguments)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    assert outcome.stdout.splitlines()[-1] == "checked 1 folder: no damage"
    outcome = run_cli("check", *store_arguments, "--read", "all", "folder")
    assert outcome.exit_code == 1
    assert damaged_key in outcome.stderr
    assert outcome.stdout.splitlines()[-1] == "checked 1 folder: 1 problem"
    outcome = run_cli("check", *store_arguments, "--read", "100%", "--json")
    found = json.loads(outcome.stdout)
    assert (outcome.exit_code, found["ok"], found["damage"], found["notes"]) == (1, False, 1, 0)
    assert [(one["path"], one["kind"], one["damage"]) for one in found["findings"]] == [
        (damaged_key, "object damaged", True)
    ]
    assert found["folders"][0]["read_objects"] == 1
    assert run_cli("check", *store_arguments, "other").exit_code == 2


def test_an_empty_bucket(run_cli: RunCLI, store_arguments: list[str]) -> None:
    outcome = run_cli("check", *store_arguments, "--json")
    assert outcome.exit_code == 1
    assert "no store" in outcome.stderr


@pytest.mark.parametrize("share", ["none", "0/7", "8/7", "1/0", "0%", "101%", "", "5"])
def test_a_share_that_is_none(run_cli: RunCLI, share: str) -> None:
    outcome = run_cli("check", "--read", share)
    assert outcome.exit_code == 2
    assert "a percentage such as 5%, or a part such as 1/7" in outcome.stderr
