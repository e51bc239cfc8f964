"""A folder that a Syncthing shares with a gateway, and its objects in the gateway's bucket."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from bench.patience import PATIENCE
from untrusted_s3.compat.gateway_process import GatewayProcess
from untrusted_s3.compat.syncthing import Syncthing
from untrusted_s3.compat.trees import differences, manifest
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.layout import FolderKeys

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PASSWORD = "correct horse battery staple"


def share_folder(
    device: Syncthing,
    gateway: GatewayProcess,
    folder: str,
    path: Path,
    password: str = PASSWORD,
    *,
    dialed: bool = False,
    **settings: object,
) -> None:
    """Make a trusted device dial the gateway and share a folder with it. The folder is scanned on return.

    With `dialed`, the gateway dials instead, by its settings; Syncthing dials once a minute at most. `settings` are
    those of the gateway's device in Syncthing's configuration.
    """
    gateway.add_peer(device.device_id, [device.listen_address] if dialed else [])
    device.add_device(gateway.device_id, "gateway", [] if dialed else [gateway.listen_address], untrusted=True)
    if settings:
        device.set_device(gateway.device_id, **settings)
    device.add_folder(folder, path, {gateway.device_id: password})
    device.scan(folder)


def rescan(device: Syncthing, gateway: GatewayProcess, folder: str, timeout: float | None = None) -> None:
    """Scan changes, and wait until the gateway has them."""
    device.scan(folder)
    device.wait_completion(gateway.device_id, folder, timeout)


def s3_client(gateway: GatewayProcess) -> S3Client:
    """Return a plain S3 client for the gateway's store."""
    store = gateway.store
    assert store is not None
    return connect(store.endpoint_url, S3Credentials(store.access_key, store.secret_key)).client


def stored_keys(gateway: GatewayProcess, below: str = "") -> dict[str, int]:
    """Return all keys of the gateway's store, relative to its prefix and `below`, and their sizes."""
    assert gateway.store is not None
    prefix = gateway.prefix + below
    pages = s3_client(gateway).get_paginator("list_objects_v2").paginate(Bucket=gateway.store.bucket, Prefix=prefix)
    return {item["Key"].removeprefix(prefix): item["Size"] for page in pages for item in page.get("Contents", [])}


def object_prefix(folder: str) -> str:
    """Return the prefix of the objects of a folder."""
    return FolderKeys.of(folder).base + "objects/"


def stored_objects(gateway: GatewayProcess, folder: str) -> dict[str, int]:
    """Return the keys of a folder's objects below `objects/`, and their sizes."""
    return stored_keys(gateway, object_prefix(folder))


def download_objects(gateway: GatewayProcess, folder: str, to: Path) -> None:
    """Copy a folder's objects to a local folder."""
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
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def regular_files(tree: Path, mtimes: bool = True) -> dict[str, tuple[object, ...]]:
    """Return size, hash and, with `mtimes`, modification time of every regular file by its path."""
    return {
        name: (entry.size, entry.sha256, entry.mtime_ns if mtimes else None)
        for name, entry in manifest(tree).items()
        if entry.kind == "file"
    }


def assert_same_tree(expected: Path, actual: Path) -> None:
    """Fail with the first differences if two folders do not hold the same."""
    found = differences(manifest(expected), manifest(actual))
    if found:
        more = f"\n… and {len(found) - 10} more" if len(found) > 10 else ""
        raise AssertionError(f"{expected} and {actual} differ:\n" + "\n".join(found[:10]) + more)
