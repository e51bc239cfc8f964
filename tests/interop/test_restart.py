"""The gateway ends, in order or not, with its state or without. The bucket is enough, and no data moves again."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.interop.sharing import fetched_folder, rescan, share_folder, stored_keys, stored_objects
from tests.peers.debian import SYNCTHING_VERSIONS, SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.s3_server import S3Server, on_each_peer
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, random_file
from untrusted_s3.settings import LogSettings, Settings
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import FolderKeys

pytestmark = pytest.mark.interop

# A checkpoint after every third segment.
SETTINGS = Settings(log=LogSettings(checkpoint_cost=3 * LogSettings().segment_cost))

FOLDER = "kept"


def _stop(gateway: Gateway) -> None:
    assert gateway.stop() == 0


def _stop_and_delete_state(gateway: Gateway) -> None:
    _stop(gateway)
    shutil.rmtree(gateway.state)


def _kill_and_delete_state(gateway: Gateway) -> None:
    gateway.kill()
    shutil.rmtree(gateway.state)


@contextlib.contextmanager
def _away(device: Syncthing, gateway: Gateway) -> Iterator[None]:
    """Have a device dial only at the end, and then at once: by itself it does so once a minute."""
    device.pause_device(gateway.device_id)
    yield
    device.resume_device(gateway.device_id)
    device.wait_connected(gateway.device_id)


@on_each_peer
def test_nothing_moves_again_after_a_restart(
    s3_server: S3Server,
    bucket_prefix: str,
    syncthing_version: SyncthingVersion,
    syncthing_binary: Path,
    tmp_path: Path,
) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    build_awkward_tree(original)
    random_file(original / "large", 9 << 20, seed=9)
    gateway = Gateway(tmp_path / "gateway", s3_server, bucket_prefix, settings=SETTINGS)
    with gateway:
        with Syncthing(syncthing_binary, tmp_path / "first", "first") as first:
            share_folder(first, gateway, FOLDER, original)
            for round_number in range(5):
                random_file(original / "changing", 2000, seed=round_number)
                rescan(first, gateway, FOLDER)
            gateway.wait_folder(FOLDER, files=count_files(original))
            gateway.wait_for("a checkpoint", lambda: gateway.logged("checkpoint written"))
            checkpoints = stored_keys(gateway, FolderKeys.of(FOLDER).checkpoints)
            assert checkpoints

            ends: list[Callable[[Gateway], None]] = [
                _stop_and_delete_state,
                _stop,
                Gateway.kill,
                _kill_and_delete_state,
            ]
            for number, end in enumerate(ends):
                before = gateway.wait_folder(FOLDER)
                objects = stored_objects(gateway, FOLDER)
                loaded = len(gateway.logged("checkpoint loaded"))
                end(gateway)
                state_is_gone = not gateway.state.exists()
                dials = (
                    number == 0 and syncthing_version == SYNCTHING_VERSIONS[-1] and isinstance(s3_server, EmbeddedStore)
                )
                with contextlib.nullcontext() if dials else _away(first, gateway):
                    gateway.start()
                    # It is ready from the bucket, before any peer connects.
                    assert gateway.folder(FOLDER) == before
                    assert len(gateway.logged("checkpoint loaded")) == loaded + state_is_gone
                gateway.wait_connected(first.device_id)
                # This change arrives after anything that would be sent again.
                random_file(original / "new", 5000, seed=100 + number)
                first.scan(FOLDER)
                gateway.wait_folder(FOLDER, sequence=before["sequence"] + 1)
                first.wait_completion(gateway.device_id, FOLDER)
                assert gateway.counter("blocks_received") == 1, end
                assert gateway.counter("index_entries_received") == 1, end
                assert len(stored_objects(gateway, FOLDER)) == len(objects) + 1
        files = count_files(original)
        with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, files):
            assert_same_tree(original, copy)


def test_sigterm_during_a_transfer(syncthing_binary: Path, tmp_path: Path) -> None:
    """Use the embedded store, so two processes have to end."""
    original, copy = tmp_path / "original", tmp_path / "copy"
    random_file(original / "large", 60 << 20, seed=60)
    random_file(original / "small", 5000, seed=5)
    with (
        Syncthing(syncthing_binary, tmp_path / "first", "first") as first,
        Gateway(tmp_path / "gateway", None) as gateway,
    ):
        first.rest("PATCH", "config/options", {"limitBandwidthInLan": True})
        share_folder(first, gateway, FOLDER, original)
        first.set_device(gateway.device_id, maxSendKbps=3000)
        gateway.wait_for("some of the large file", lambda: gateway.counter("block_bytes_received") > 10 << 20)
        processes = [gateway.pid, *_children(gateway.pid)]
        assert len(processes) == 2
        assert gateway.folder(FOLDER)["state"] == "syncing"
        assert gateway.stop() == 0
        assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []

        with _away(first, gateway):
            gateway.start()
            first.set_device(gateway.device_id, maxSendKbps=0)
        first.wait_completion(gateway.device_id, FOLDER)
        gateway.wait_folder(FOLDER, files=2)
        first.stop()
        with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, 2):
            assert_same_tree(original, copy)
        os.kill(gateway.pid, signal.SIGINT)  # as Ctrl-C does
        processes = [gateway.pid, *_children(gateway.pid)]
        assert gateway.wait_ended() == 0
        assert [pid for pid in processes if Path(f"/proc/{pid}").exists()] == []


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
