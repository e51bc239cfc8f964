"""A folder is attacked, and its owner takes the way back of docs/way-back.md.

In the end every device is at 100 % with the honest files. The gateway runs all the time.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.interop.attacker import accepted
from tests.interop.key_holder import key_holder
from tests.interop.sharing import PASSWORD, fetched_folder, rescan, share_folder, wait_same_tree
from tests.peers.debian import SyncthingVersion
from tests.peers.gateway import Gateway
from tests.peers.s3_server import S3Server
from tests.peers.syncthing import Syncthing
from tests.peers.trees import assert_same_tree, random_file
from untrusted_s3.settings import ConnectionSettings, LogSettings, Settings, UpkeepSettings

pytestmark = pytest.mark.interop

FOLDER = "attacked"
FILES = 12
# A gateway that follows the store quickly, and dials: Syncthing does so once a minute
QUICK = Settings(
    upkeep=UpkeepSettings(heartbeat_interval=0.5, peers_interval=0.5),
    log=LogSettings(poll_interval=0.5, idle_poll_interval=0.5),
    connections=ConnectionSettings(dial_interval=8.0, max_dial_interval=4.0),
)


@pytest.fixture
def gateway(s3_server: S3Server, bucket_prefix: str, tmp_path: Path) -> Iterator[Gateway]:
    """Run a gateway on an empty store."""
    with Gateway(tmp_path / "gateway", s3_server, bucket_prefix, settings=QUICK) as running:
        yield running


def build_tree(root: Path) -> None:
    for number in range(FILES):
        random_file(root / f"directory {number % 3}" / f"file {number}", 3000 + number, seed=number)


def change_all(root: Path, seed: int) -> None:
    """Change every file, and with that all that an attack may have aimed at."""
    for number, path in enumerate(sorted(root.glob("*/file *"))):
        random_file(path, 4000 + number, seed=seed + number)


def wait_cut_off(gateway: Gateway, *devices: Syncthing) -> None:
    """Wait until trusted devices have closed their connections over an entry that does not decrypt."""

    def are_cut_off() -> bool:
        # The status has only the last reason, and one connection follows the other.
        ended = gateway.logged("connection ended")
        cut_off = {line["device"] for line in ended if "authentication failed" in line["reason"]}
        return cut_off >= {device.device_id for device in devices}

    gateway.wait_for("the end of their connections", are_cut_off)


def retract(gateway: Gateway, *arguments: str) -> dict[str, Any]:
    """Take entries back: first a dry run, then with --yes, then once more, which finds nothing."""
    command = ["folders", "retract", FOLDER, "--json", *arguments]
    dry = json.loads(gateway.command(*command).stdout)
    done: dict[str, Any] = json.loads(gateway.command(*command, "--yes").stdout)
    assert (dry["applied"], done["applied"]) == (False, True)
    assert {**dry, "applied": True} == done
    assert json.loads(gateway.command(*command, "--yes").stdout)["changes"] == 0
    return done


def test_an_attack_is_taken_back(gateway: Gateway, syncthing_binary: Path, tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    build_tree(original)
    (tmp_path / "password").write_text(PASSWORD)
    with Syncthing(syncthing_binary, tmp_path / "first", "first") as first:
        share_folder(first, gateway, FOLDER, original, dialed=True)
        first.wait_connected(gateway.device_id)
        first.wait_completion(gateway.device_id, FOLDER)
        with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, FILES, dialed=True) as second:
            attackers = [accepted(gateway, FOLDER) for _ in range(2)]
            for attacker in attackers:
                attacker.wait_index(FILES + 3)
            forged = [{*one.deletions, *one.directories} for one in (attackers[0].attack(0), attackers[1].attack(6))]
            wait_cut_off(gateway, first, second)
            # Changes of honest devices, which the attack keeps from being stored.
            random_file(original / "new", 5000, seed=100)
            first.scan(FOLDER)
            with ThreadPoolExecutor() as threads:
                list(threads.map(lambda one: gateway.command("peers", "remove", str(one.device_id)), attackers))
            gateway.wait_for("the end of both", lambda: len(gateway.status()["peers"]) == 2)
            for attacker in attackers:
                attacker.vanish()

            for arguments, names in (
                (["--device", str(attackers[0].device_id)], forged[0]),
                (["--undecryptable", "--password-file", str(tmp_path / "password")], forged[1]),
            ):
                done = retract(gateway, *arguments)
                assert {one["encrypted_name"] for one in done["names"]} == names
                assert done["earlier_versions"] == len(names) - 1
            for device in (first, second):
                device.wait_connected(gateway.device_id)
            change_all(original, 1000)
            rescan(first, gateway, FOLDER)
            wait_same_tree(gateway, original, copy)
            random_file(copy / "from the second device", 2000, seed=1)
            rescan(second, gateway, FOLDER)
            wait_same_tree(gateway, copy, original)
            for device in (first, second):
                device.wait_completion(gateway.device_id, FOLDER)
            assert gateway.folder(FOLDER)["failing_files"] == 0
    with key_holder(gateway, FOLDER) as holder:
        assert holder.run("verify").stdout.endswith(": no damage\n")
    with fetched_folder(
        syncthing_binary, tmp_path / "third", gateway, FOLDER, tmp_path / "fresh", FILES + 2, dialed=True
    ):
        assert_same_tree(original, tmp_path / "fresh")


def test_malware_on_a_trusted_device(
    gateway: Gateway, syncthing_binaries: dict[SyncthingVersion, Path], tmp_path: Path
) -> None:
    """Rewinding the store alone does not last; both ways that docs/way-back.md describes do."""
    syncthing_binary = syncthing_binaries["1.29.5"]
    original, copy, good = tmp_path / "original", tmp_path / "copy", tmp_path / "good"
    build_tree(original)
    shutil.copytree(original, good)
    with Syncthing(syncthing_binary, tmp_path / "first", "first") as first:
        share_folder(first, gateway, FOLDER, original, dialed=True)
        first.wait_connected(gateway.device_id)
        first.wait_completion(gateway.device_id, FOLDER)
        with fetched_folder(syncthing_binary, tmp_path / "second", gateway, FOLDER, copy, FILES, dialed=True) as second:
            devices = {first: original, second: copy}
            moment = _between_seconds()
            _encrypt_all(original)
            rescan(first, gateway, FOLDER)
            wait_same_tree(gateway, original, copy)

            # The devices still have the damaged folder: it comes back.
            changed = FILES + 2  # all files, one of which has another name too, and the ransom note
            assert _rewind(gateway, moment)["changes"] == changed
            for device in devices:
                device.wait_connected(gateway.device_id)
                device.wait_completion(gateway.device_id, FOLDER)
            gateway.wait_for(
                "what the devices have", lambda: _rewind(gateway, moment, apply=False)["changes"] == changed
            )
            for device in devices:
                device.wait_connected(gateway.device_id)
                device.wait_completion(gateway.device_id, FOLDER)
            assert_same_tree(original, copy)

            # One way: the old files are put into the folder.
            with key_holder(gateway, FOLDER) as holder:
                holder.run("restore", "--as-of", moment, "--overwrite", copy)
            (copy / "README TO GET YOUR FILES").unlink()
            (copy / "locked").unlink()
            rescan(second, gateway, FOLDER)
            wait_same_tree(gateway, copy, original)
            assert_same_tree(good, original)

            # The other way: no device has the folder, and the store is rewound.
            moment = _between_seconds()
            _encrypt_all(original)
            rescan(first, gateway, FOLDER)
            wait_same_tree(gateway, original, copy)
            for device in devices:
                device.rest("DELETE", f"config/folders/{FOLDER}")
            gateway.wait_for("nobody", lambda: not any(peer["folders"] for peer in gateway.status()["peers"]))
            assert _rewind(gateway, moment)["changes"] == changed
            assert _rewind(gateway, moment)["changes"] == 0
            for device in devices:
                fresh = tmp_path / f"fresh {device.name}"
                device.add_folder(FOLDER, fresh, {gateway.device_id: PASSWORD})
                device.scan(FOLDER)
                device.wait_connected(gateway.device_id)
                device.wait_in_sync(FOLDER, FILES)
                device.wait_completion(gateway.device_id, FOLDER)
                assert_same_tree(good, fresh)


def _between_seconds() -> str:
    """Return a time that is after all that was stored, and before all that will be."""
    time.sleep(1.5)
    moment = datetime.now(UTC)
    time.sleep(1.5)
    return moment.isoformat()


def _encrypt_all(root: Path) -> None:
    """Do what malware does."""
    change_all(root, 7000)
    (root / "directory 0" / "file 0").rename(root / "locked")
    (root / "README TO GET YOUR FILES").write_text("pay")


def _rewind(gateway: Gateway, moment: str, *, apply: bool = True) -> dict[str, object]:
    done = gateway.command("folders", "rewind", FOLDER, "--to", moment, "--json", *(["--yes"] if apply else []))
    report: dict[str, object] = json.loads(done.stdout)
    return report
