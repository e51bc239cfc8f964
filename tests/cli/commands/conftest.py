"""A store with a folder for `restore` and `verify`."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.peers.s3_server import S3Server
from tests.vault import conflicting
from tests.vault.stored_folder import FOLDER_ID, PASSWORD, StoredFolder, derive, random_bytes, stored_folder
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import KIB

DATA = random_bytes(300 * KIB)
KEYS = FolderKeys.of(FOLDER_ID)


@pytest.fixture
def store(store_arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options of a store; the password is in the environment."""
    monkeypatch.setenv("UNTRUSTED_S3_PASSWORD", PASSWORD)
    return store_arguments


def in_store(store: list[str], act: Callable[[S3Bucket], Awaitable[None]]) -> None:
    """Run `act` with the bucket."""

    async def run() -> None:
        bucket = await S3Bucket.open(StoreLocation.parse(store[1]), store[3])
        try:
            await act(bucket)
        finally:
            await bucket.close()

    asyncio.run(run())


@pytest.fixture
def undeletable(store_arguments: list[str], s3_server: S3Server) -> list[str]:
    """The options of a bucket that keeps versions and whose policy lets nobody delete."""
    store = ["--store", f"s3://test-{uuid.uuid4().hex}", *store_arguments[2:]]
    bucket = store[1].removeprefix("s3://")
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion", "s3:AbortMultipartUpload"],
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }

    async def deny() -> None:
        opened = await S3Bucket.open(StoreLocation.parse(store[1]), s3_server.endpoint_url, create_bucket=True)
        await opened.call("put_bucket_versioning", VersioningConfiguration={"Status": "Enabled"})
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        await opened.call("put_bucket_policy", Policy=policy)
        await opened.close()

    asyncio.run(deny())
    return store


@pytest.fixture
def filled(store: list[str], tmp_path: Path) -> list[str]:
    """The options of a store with a folder in it."""

    async def fill(bucket: S3Bucket) -> None:
        folder: StoredFolder = await stored_folder(bucket, tmp_path)
        await folder.append(
            folder.directory("docs"),
            await folder.file("docs/letter.txt", b"Dear reader"),
            await folder.file("docs/\x1b[2J", DATA),
            await folder.file("top", b"1"),
            folder.symlink("link", "docs"),
        )

    in_store(store, fill)
    return store


@pytest.fixture
def disputed(store: list[str], tmp_path: Path) -> list[str]:
    """The options of a store with a folder with conflicts in it."""

    async def fill(bucket: S3Bucket) -> None:
        await conflicting.fill(await stored_folder(bucket, tmp_path))

    in_store(store, fill)
    return store


def flip(store: list[str], path: str, offset: int) -> None:
    """Change one bit of the object of a file."""

    async def act(bucket: S3Bucket) -> None:
        async for item in bucket.list(KEYS.objects_of(derive(PASSWORD, FOLDER_ID).encrypt_name(path))):
            body = bytearray(await bucket.get(item.key))
            body[offset] ^= 1
            await bucket.put(item.key, [bytes(body)])
            return
        raise AssertionError(f"no object of {path}")

    in_store(store, act)
