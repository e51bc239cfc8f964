"""What the tests of the gateway do again and again: share a folder with it, fetch one back, look into the bucket."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tests.peers.gateway import Gateway, GatewayFailed
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, manifest
from untrusted_s3.index.segment import decode_segment
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.s3 import S3Credentials, connect

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PASSWORD = "correct horse battery staple"


def share_folder(
    device: Syncthing, gateway: Gateway, folder: str, path: Path, password: str = PASSWORD, **settings: object
) -> None:
    """Let a trusted device dial the gateway and share a folder with it, all of which is scanned on return.

    `settings` are those of the gateway in Syncthing's configuration.
    """
    gateway.add_peer(device.device_id)
    device.add_device(gateway.device_id, "gateway", [gateway.listen_address], untrusted=True)
    if settings:
        device.set_device(gateway.device_id, **settings)
    device.add_folder(folder, path, {gateway.device_id: password})
    device.scan(folder)


@contextlib.contextmanager
def fetched_folder(
    binary: Path, home: Path, gateway: Gateway, folder: str, path: Path, files: int, timeout: float = 120
) -> Iterator[Syncthing]:
    """A fresh trusted device that has got all `files` regular files of a folder from the gateway alone."""
    with Syncthing(binary, home, home.name) as device:
        share_folder(device, gateway, folder, path)
        device.wait_connected(gateway.device_id)
        device.wait_in_sync(folder, files, timeout)
        yield device


def rescan(device: Syncthing, gateway: Gateway, folder: str, timeout: float = 120) -> None:
    """Scan what was changed, and wait until the gateway has it."""
    device.scan(folder)
    device.wait_completion(gateway.device_id, folder, timeout)


def s3_client(gateway: Gateway) -> S3Client:
    """A plain S3 client for the gateway's store."""
    store = gateway.store
    assert store is not None
    return connect(store.endpoint_url, S3Credentials(store.access_key, store.secret_key)).client


def stored_keys(gateway: Gateway, below: str = "") -> dict[str, int]:
    """All keys of the gateway's store, relative to its prefix and `below`, and their sizes."""
    assert gateway.store is not None
    prefix = gateway.prefix + below
    pages = s3_client(gateway).get_paginator("list_objects_v2").paginate(Bucket=gateway.store.bucket, Prefix=prefix)
    return {item["Key"].removeprefix(prefix): item["Size"] for page in pages for item in page.get("Contents", [])}


def object_prefix(folder: str) -> str:
    """Below which the objects of a folder lie."""
    return FolderKeys.of(folder).base + "objects/"


def stored_objects(gateway: Gateway, folder: str) -> dict[str, int]:
    """The keys of a folder's objects below `objects/`, and their sizes."""
    return stored_keys(gateway, object_prefix(folder))


def download_objects(gateway: Gateway, folder: str, to: Path) -> None:
    """Copy `objects/` to a disk."""
    store, client, prefix = gateway.store, s3_client(gateway), object_prefix(folder)
    assert store is not None
    bucket = store.bucket

    def download(key: str) -> None:
        (to / key).parent.mkdir(parents=True, exist_ok=True)
        body = client.get_object(Bucket=bucket, Key=f"{gateway.prefix}{prefix}{key}")["Body"]
        (to / key).write_bytes(body.read())

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(download, stored_objects(gateway, folder)))


def decrypt(binary: Path, folder: str, encrypted: Path, to: Path, password: str = PASSWORD) -> None:
    """Run `syncthing decrypt`."""
    to.mkdir()
    done = subprocess.run(
        [binary, "decrypt", f"--folder-id={folder}", f"--password={password}", f"--to={to}", encrypted],
        env={**os.environ, "HOME": str(to.parent)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def regular_files(tree: Path, mtimes: bool = True) -> dict[str, tuple[object, ...]]:
    """Size, contents and perhaps modification time of every regular file, by its path."""
    return {
        name: (entry.size, entry.sha256, entry.mtime_ns if mtimes else None)
        for name, entry in manifest(tree).items()
        if entry.kind == "file"
    }


def assert_history_is_whole(gateway: Gateway, folder: str) -> None:
    """Fail if an entry that the log ever had lacks its object, or that is not as the entry says.

    So no entry was written before its object was complete, and what was replaced is still there.
    """
    store, client, keys = gateway.store, s3_client(gateway), FolderKeys.of(folder)
    assert store is not None
    stored = stored_keys(gateway)
    segments = sorted(key for key in stored if key.startswith(f"{keys.base}log/"))
    assert segments == [keys.segment(position) for position in range(1, len(segments) + 1)]
    sequence = 0
    for key in segments:
        segment = decode_segment(client.get_object(Bucket=store.bucket, Key=gateway.prefix + key)["Body"].read(), key)
        assert segment.first_sequence == sequence + 1, key
        sequence += len(segment.entries)
        for entry in segment.entries:
            assert (entry.stored is not None) is entry.file_info.has_data, (key, entry)
            if entry.stored is not None:
                name = keys.object(entry.file_info.name, entry.stored.content_hash)
                assert stored.get(name) == entry.stored.size, (key, name)
    assert sequence == gateway.folder(folder)["sequence"]


def wait_same_tree(gateway: Gateway, original: Path, copy: Path) -> None:
    """Wait until two devices hold the same, one of which learns from the gateway what has changed at the other."""

    def equal() -> bool:
        try:
            return manifest(original) == manifest(copy)
        except FileNotFoundError:  # changed while we looked
            return False

    try:
        gateway.wait_for("both devices to hold the same", equal)
    except GatewayFailed:
        assert_same_tree(original, copy)
        raise
