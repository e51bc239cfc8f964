"""What many tests of the gateway do: share a folder with it, fetch one back, look into the bucket."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from bench.sharing import (
    PASSWORD,
    decrypt,
    download_objects,
    object_prefix,
    regular_files,
    rescan,
    s3_client,
    share_folder,
    stored_keys,
    stored_objects,
)
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, manifest
from untrusted_s3.errors import GatewayUnreachable
from untrusted_s3.index.segment import decode_segment
from untrusted_s3.store.layout import FolderKeys

if TYPE_CHECKING:
    pass

__all__ = [
    "PASSWORD",
    "assert_history_is_whole",
    "decrypt",
    "download_objects",
    "fetched_folder",
    "object_prefix",
    "regular_files",
    "rescan",
    "s3_client",
    "share_folder",
    "stored_keys",
    "stored_objects",
    "wait_same_tree",
]


@contextlib.contextmanager
def fetched_folder(
    binary: Path,
    home: Path,
    gateway: Gateway,
    folder: str,
    path: Path,
    files: int,
    *,
    dialed: bool = False,
) -> Iterator[Syncthing]:
    """Provide a fresh trusted device that has all `files` regular files of a folder from the gateway alone.

    With `dialed`, the gateway dials it.
    """
    with Syncthing(binary, home, home.name) as device:
        share_folder(device, gateway, folder, path, dialed=dialed)
        device.wait_connected(gateway.device_id)
        device.wait_in_sync(folder, files)
        yield device


def assert_history_is_whole(gateway: Gateway, folder: str) -> None:
    """Fail if any entry of the log lacks its object, or has one of another size.

    Then no entry was written before its object was complete, and replaced objects still exist.
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
                name = keys.object(entry.file_info.name, entry.stored.object_name)
                assert stored.get(name) == entry.stored.size, (key, name)
    assert sequence == gateway.folder(folder)["sequence"]


def wait_same_tree(gateway: Gateway, original: Path, copy: Path) -> None:
    """Wait until two devices hold the same, while one learns from the gateway what has changed at the other."""

    def equal() -> bool:
        try:
            return manifest(original) == manifest(copy)
        except OSError:  # a name went away meanwhile, or became that of something else
            return False

    try:
        gateway.wait_for("both devices to hold the same", equal)
    except GatewayUnreachable:
        assert_same_tree(original, copy)
        raise
