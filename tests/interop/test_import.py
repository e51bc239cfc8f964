"""A folder moves from the disk of a native untrusted device to the gateway, and nothing is sent again."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from tests.interop.key_holder import key_holder
from tests.interop.sharing import PASSWORD, share_folder
from tests.peers.debian import SYNCTHING_VERSIONS, SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, build_awkward_tree, count_files, random_file
from untrusted_s3.errors import GatewayUnreachable

pytestmark = pytest.mark.interop

FOLDER = "from disk"


def test_only_what_has_changed_is_sent(
    syncthing_binaries: dict[SyncthingVersion, Path], gateway: Gateway, tmp_path: Path
) -> None:
    original = tmp_path / "original"
    build_awkward_tree(original)
    random_file(original / "large", 9 << 20, seed=9)
    random_file(original / "goes", 5000, seed=1)
    random_file(original / "touched", 5000, seed=2)
    with Syncthing(syncthing_binaries["1.29.5"], tmp_path / "home", "trusted") as trusted:
        native_ids: list[str] = []
        with contextlib.ExitStack() as natives:
            for version in SYNCTHING_VERSIONS:
                home = tmp_path / f"native {version}"
                native = natives.enter_context(Syncthing(syncthing_binaries[version], home, version))
                native.add_device(trusted.device_id, "trusted")
                native.add_folder(FOLDER, tmp_path / version, {trusted.device_id: ""}, type="receiveencrypted")
                native_ids.append(native.device_id)
                trusted.add_device(native.device_id, "native", [native.listen_address], untrusted=True)
            trusted.add_folder(FOLDER, original, dict.fromkeys(native_ids, PASSWORD))
            for chmod in (False, True):
                if chmod:
                    (original / "touched").chmod(0o600)  # the native ones write the file info on the disk again
                trusted.scan(FOLDER)
                for native_id in native_ids:
                    trusted.wait_connected(native_id)
                    trusted.wait_completion(native_id, FOLDER)
        files = count_files(original)
        # What happens while the trusted device has no untrusted one
        (original / "goes").unlink()
        random_file(original / "new", 3000, seed=3)
        trusted.scan(FOLDER)

        first, second = (tmp_path / version for version in SYNCTHING_VERSIONS)
        (first / "plain.txt").write_text("of nobody")
        with pytest.raises(GatewayUnreachable, match=r"\n  plain.txt: a file whose name is not encrypted") as ended:
            gateway.command("folders", "import", str(first))
        assert "ended with 1" in str(ended.value) and f"imported {files} files (" in str(ended.value)
        done = gateway.command("folders", "import", str(second))
        assert f"imported 0 files (0 B), {files} there already into" in done.stderr

        written, received = gateway.counter("objects_written"), gateway.counter("blocks_received")
        share_folder(trusted, gateway, FOLDER, original)
        trusted.wait_connected(gateway.device_id)
        trusted.wait_completion(gateway.device_id, FOLDER)
        gateway.wait_folder(FOLDER, files=files)
        assert gateway.counter("objects_written") == written + 1
        assert gateway.counter("blocks_received") == received + 1
    with key_holder(gateway, FOLDER) as holder:
        holder.run("restore", str(tmp_path / "restored"))
        assert_same_tree(original, tmp_path / "restored")
