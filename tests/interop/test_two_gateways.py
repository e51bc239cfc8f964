"""Two gateways with different identities on one store have the same data."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.interop.sharing import PASSWORD, fetched_folder, share_folder, stored_objects
from tests.peers.gateway import Gateway
from tests.peers.s3_server import S3Server, on_each_peer
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, random_file
from untrusted_s3.settings import LogSettings, Settings

pytestmark = pytest.mark.interop

FOLDER = "shared twice"


@on_each_peer
def test_two_gateways_on_one_store(
    s3_server: S3Server, bucket_prefix: str, syncthing_binary: Path, tmp_path: Path
) -> None:
    original = tmp_path / "original"
    build_awkward_tree(original)
    for number in range(120):
        random_file(original / "many" / f"{number}", 4096, seed=number)
    random_file(original / "large", 20 << 20, seed=20)
    often = Settings(log=LogSettings(poll_interval=1.0, idle_poll_interval=1.0))
    with (
        Gateway(tmp_path / "one", s3_server, bucket_prefix, settings=often) as one,
        Gateway(tmp_path / "other", s3_server, bucket_prefix, settings=often) as other,
        Syncthing(syncthing_binary, tmp_path / "first", "first") as first,
    ):
        assert one.device_id != other.device_id
        share_folder(first, one, FOLDER, original)
        files = count_files(original)
        first.add_device(other.device_id, "other gateway", [other.listen_address], untrusted=True)
        passwords = {one.device_id: PASSWORD, other.device_id: PASSWORD}
        devices = [{"deviceID": name, "encryptionPassword": password} for name, password in passwords.items()]
        first.set_folder(FOLDER, devices=devices)
        for gateway in (one, other):
            first.wait_connected(gateway.device_id)
            first.wait_completion(gateway.device_id, FOLDER)
            gateway.wait_folder(FOLDER, files=files)

        # Each file is stored once. Not every store refuses the second of two multipart uploads.
        assert len(stored_objects(one, FOLDER)) == files
        assert files <= one.counter("objects_written") + other.counter("objects_written") <= files + 1
        same = ("files", "directories", "bytes", "sequence", "deleted")

        def are_equal() -> bool:
            return [one.folder(FOLDER)[field] for field in same] == [other.folder(FOLDER)[field] for field in same]

        one.wait_for("the other to have the same", are_equal)

        # A change that reaches one of them reaches the other by the log alone.
        first.pause_device(one.device_id)
        first.wait_connected(one.device_id, connected=False)
        random_file(original / "late", 10_000, seed=10)
        first.scan(FOLDER)
        first.wait_completion(other.device_id, FOLDER)
        one.wait_folder(FOLDER, files=files + 1)
        first.stop()

        for gateway in (one, other):
            copy = tmp_path / f"copy from {gateway.home.name}"
            home = tmp_path / f"second at {gateway.home.name}"
            with fetched_folder(syncthing_binary, home, gateway, FOLDER, copy, files + 1):
                assert_same_tree(original, copy)
            assert gateway.counter("blocks_sent") > files / 2
