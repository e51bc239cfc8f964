"""`repair` shows what it would do, does it with --yes, and copies from another store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.cli.conftest import RunCLI
from tests.peers.s3_server import S3Server, on_each_s3_server
from tests.vault.stored_folder import PASSWORD, StoredFolder, random_bytes
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import KIB, MIB

Result = TypeVar("Result")
# In parts, and the last one with the trailer.
LARGE = random_bytes(17 * MIB)


class Stores:
    """Two stores of the same content, and the key of a file in parts in both."""

    def __init__(self, server: S3Server, prefix: str, directory: Path) -> None:
        self.server = server
        self.prefixes = prefix, f"{prefix}-second"
        self.key = asyncio.run(self.on(0, self._fill(directory / "filling")))
        asyncio.run(self.on(0, self._copy))
        self.second = f"s3://{server.bucket}/{self.prefixes[1]}"

    async def on(self, number: int, work: Callable[[S3Bucket], Awaitable[Result]]) -> Result:
        credentials = S3Credentials(self.server.access_key, self.server.secret_key)
        location = StoreLocation(self.server.bucket, self.prefixes[number] + "/")
        bucket = await S3Bucket.open(location, self.server.endpoint_url, credentials)
        try:
            return await work(bucket)
        finally:
            await bucket.close()

    async def _copy(self, bucket: S3Bucket) -> None:
        objects = {item.key: await bucket.get(item.key) async for item in bucket.list("")}

        async def put(second: S3Bucket) -> None:
            for key, body in objects.items():
                await second.put(key, [body])

        await self.on(1, put)

    @staticmethod
    def _fill(directory: Path) -> Callable[[S3Bucket], Awaitable[str]]:
        async def fill(bucket: S3Bucket) -> str:
            directory.mkdir()
            folder = await StoredFolder(bucket, directory).create()
            large = await folder.file("large", LARGE, block_size=1024 * KIB)
            await folder.append(large, await folder.file("small", b"small"))
            await folder.log.checkpoint()
            await folder.append(folder.directory("directory"))
            return folder.object_key(large)

        return fill

    def damage(self) -> None:
        """Change a bit of the object, and break the checkpoint."""

        async def damage(bucket: S3Bucket) -> None:
            body = bytearray(await bucket.get(self.key))
            body[10 * MIB] ^= 1
            await bucket.put(self.key, [bytes(body)])
            async for item in bucket.list("folders/folder/checkpoints/"):
                await bucket.put(item.key, [b"broken"])

        asyncio.run(self.on(0, damage))


@pytest.fixture
def stores(s3_server: S3Server, bucket_prefix: str, tmp_path: Path) -> Stores:
    return Stores(s3_server, bucket_prefix, tmp_path)


@on_each_s3_server
def test_repair(run_cli: RunCLI, store_arguments: list[str], stores: Stores) -> None:
    outcome = run_cli("repair", *store_arguments, "--read", "all")
    assert (outcome.exit_code, outcome.stdout) == (0, "nothing to repair\n")
    stores.damage()
    wanted = [*store_arguments, "--read", "all", "--from", stores.second]
    outcome = run_cli("repair", *wanted)
    assert outcome.exit_code == 0
    assert "to be copied from the other store:" in outcome.stdout
    assert "--yes does it" in outcome.stderr
    assert run_cli("check", *store_arguments, "--read", "all").exit_code == 1
    outcome = run_cli("repair", *wanted, "--yes", "--json")
    found = json.loads(outcome.stdout)
    assert (outcome.exit_code, found["ok"], found["applied"]) == (0, True, True)
    assert {one["remedy"] for one in found["actions"]} == {"copied from the other store", "written again"}
    assert run_cli("check", *store_arguments, "--read", "all").exit_code == 0


def test_usage(run_cli: RunCLI) -> None:
    assert run_cli("repair", "--from-endpoint-url", "http://localhost").exit_code == 2
    outcome = run_cli("repair", "--from", "elsewhere")
    assert outcome.exit_code == 2
    assert "--from: " in outcome.stderr


@on_each_s3_server
def test_a_lost_folder_record(run_cli: RunCLI, store_arguments: list[str], stores: Stores, tmp_path: Path) -> None:
    asyncio.run(stores.on(0, lambda bucket: bucket.delete("folders/folder/folder.json")))
    password = tmp_path / "password"
    password.write_text("another\n", encoding="utf-8")
    made = "repair", *store_arguments, "folder", "--password-file", str(password), "--yes"
    assert run_cli("repair", *store_arguments, "--password-file", str(password)).exit_code == 2
    outcome = run_cli(*made)
    assert (outcome.exit_code, "wrong password" in outcome.stdout) == (1, True)
    password.write_text(f"{PASSWORD}\n", encoding="utf-8")
    outcome = run_cli(*made)
    assert (outcome.exit_code, "1 thing repaired" in outcome.stdout) == (0, True)
    assert run_cli("check", *store_arguments).stdout.splitlines()[-1] == "checked 1 folder: no damage"
