"""A folder is exported as README.md says, decrypted by Syncthing's own program, and taken over by a native device."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.interop.sharing import PASSWORD, decrypt, regular_files, rescan, s3_client, share_folder, stored_keys
from tests.peers.debian import SYNCTHING_VERSIONS
from tests.peers.gateway import Gateway
from tests.peers.s3_server import S3Server
from tests.peers.syncthing import Syncthing
from tests.peers.trees import random_file
from tests.waiting import PATIENCE
from untrusted_s3.settings import Settings, UpkeepSettings
from untrusted_s3.store.layout import FolderKeys

pytestmark = pytest.mark.interop

_REPOSITORY = Path(__file__).parents[2]
FOLDER = "edited often"


def _commands_of_the_readme(begin: str) -> list[list[str]]:
    """Return the words of the commands, of which the first begins so."""
    text = (_REPOSITORY / "README.md").read_text()
    (block,) = [block for block in text.split("```") if block.startswith(f"sh\n{begin}")]
    return [shlex.split(line) for line in block.splitlines()[1:]]


def _run_the_readme(gateway: Gateway, syncthing: Path, directory: Path) -> Path:
    """Run the commands with real values in place of those that are examples; return the restored folder."""
    assert gateway.store is not None
    values = {
        "s3://my-bucket/syncthing": f"s3://{gateway.store.bucket}/{gateway.prefix}",
        "FOLDER-ID": FOLDER,
        "PASSWORD": PASSWORD,
    }
    programs = {"untrusted-s3": [sys.executable, "-m", "untrusted_s3"], "syncthing": [str(syncthing)]}
    (directory / "restored").mkdir()
    for program, *words in _commands_of_the_readme("untrusted-s3 folders export"):
        done = subprocess.run(
            [*programs[program], *(values.get(word, word) for word in words)],
            cwd=directory,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(_REPOSITORY),
                "HOME": str(directory),
                "AWS_ACCESS_KEY_ID": gateway.store.access_key,
                "AWS_SECRET_ACCESS_KEY": gateway.store.secret_key,
                "UNTRUSTED_S3_ENDPOINT_URL": gateway.store.endpoint_url,
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return directory / "restored"


def fetch_what_is_listed(gateway: Gateway, rclone: Path, work: Path) -> Path:
    """Run the commands of README.md with rclone, as soon as the list is that of now; return what they fetch."""
    assert gateway.store is not None
    store, client, keys = gateway.store, s3_client(gateway), FolderKeys.of(FOLDER)

    def listed() -> bool:
        stored = stored_keys(gateway)
        if keys.present_objects not in stored:
            return False
        found = client.get_object(Bucket=store.bucket, Key=gateway.prefix + keys.present_objects)["Body"].read()
        newest = max(keys.segment_position(key) or 0 for key in stored)
        return found.startswith(f"# position={newest} ".encode())

    gateway.wait_for("the list of present objects", listed)
    example, ours = "my-bucket/syncthing/folders/FOLDER/", f"{store.bucket}/{gateway.prefix}{keys.base}"
    commands = _commands_of_the_readme("rclone copyto")
    assert [words[0] for words in commands] == ["rclone", "rclone"]
    for _, *words in commands:
        done = subprocess.run(
            [rclone, *(word.replace(example, ours) for word in words)],
            cwd=work,
            env={
                "HOME": str(work),
                "RCLONE_CONFIG_REMOTE_TYPE": "s3",
                "RCLONE_CONFIG_REMOTE_PROVIDER": "Other",
                "RCLONE_CONFIG_REMOTE_ENDPOINT": store.endpoint_url,
                "RCLONE_CONFIG_REMOTE_ACCESS_KEY_ID": store.access_key,
                "RCLONE_CONFIG_REMOTE_SECRET_ACCESS_KEY": store.secret_key,
            },
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    return work / "encrypted"


@pytest.mark.parametrize("syncthing_version", SYNCTHING_VERSIONS[-1:], indirect=True)
def test_the_way_out_gives_the_present_state(
    syncthing_binary: Path, rclone: Path, s3_server: S3Server, bucket_prefix: str, tmp_path: Path
) -> None:
    settings = Settings(upkeep=UpkeepSettings(first_list_delay=1.0, list_interval=1.0))
    with Gateway(tmp_path / "gateway", s3_server, bucket_prefix, settings=settings) as gateway:
        take_out(gateway, syncthing_binary, rclone, tmp_path)


def take_out(gateway: Gateway, syncthing_binary: Path, rclone: Path, tmp_path: Path) -> None:
    original = tmp_path / "original"
    for number in range(12):
        random_file(original / f"directory {number % 3}" / f"file {number}", 1000 + 70_000 * number, seed=number)
    native_home, encrypted = tmp_path / "native home", tmp_path / "encrypted"
    with Syncthing(syncthing_binary, tmp_path / "home", "home") as device:
        share_folder(device, gateway, FOLDER, original)
        with Syncthing(syncthing_binary, native_home, "native") as native:
            native.add_device(device.device_id, "home")
            native.add_folder(FOLDER, encrypted, {device.device_id: ""}, type="receiveencrypted")
            device.add_device(native.device_id, "native", [native.listen_address], untrusted=True)
            both = [{"deviceID": one, "encryptionPassword": PASSWORD} for one in (gateway.device_id, native.device_id)]
            device.set_folder(FOLDER, devices=both)
            device.wait_connected(gateway.device_id)
            device.wait_completion(gateway.device_id, FOLDER)
            for edit in (100, 200):
                for number in range(9):
                    random_file(
                        original / f"directory {number % 3}" / f"file {number}", 2000 + edit, seed=edit + number
                    )
                rescan(device, gateway, FOLDER)
            (original / "directory 0" / "file 9").unlink()
            (original / "directory 1" / "file 10").rename(original / "directory 1" / "renamed")
            (original / "directory 2").rename(original / "moved")
            (original / "directory 0" / "file 0").chmod(0o600)
            rescan(device, gateway, FOLDER)
            device.wait_connected(native.device_id)
            device.wait_completion(native.device_id, FOLDER)
        work = tmp_path / "work"
        work.mkdir()
        restored = _run_the_readme(gateway, syncthing_binary, work)
        assert regular_files(restored) == regular_files(original)
        assert len(regular_files(original)) == 11

        decrypt(syncthing_binary, FOLDER, fetch_what_is_listed(gateway, rclone, work), tmp_path / "decrypted")
        # The objects have the file infos with which the data came, so names and contents alone are those of now.
        assert regular_files(tmp_path / "decrypted", mtimes=False) == regular_files(original, mtimes=False)

        # The native device loses its disk, and finds in the copy what its database says.
        encrypted.rename(tmp_path / "lost")
        (work / "copy").rename(encrypted)
        with Syncthing(syncthing_binary, native_home, "native") as native:
            native.scan(FOLDER)
            device.set_device(native.device_id, addresses=[native.listen_address])
            native.wait_connected(device.device_id)
            native.wait_in_sync(FOLDER)
            status = native.folder_status(FOLDER)
            assert (status["receiveOnlyTotalItems"], status["needTotalItems"], status["localFiles"]) == (0, 0, 11)
            received = native.rest("GET", "system/connections")["connections"][device.device_id]["inBytesTotal"]
            assert received < 10_000
