"""A round trip with a real Syncthing: it encrypts as the trusted side, our gateway stores, and each step is checked.

Two trusted devices, which know only the gateway, share one folder with it. What the first one sends is compared with
what our own crypto makes of the plain files. What the second one receives, and what `syncthing decrypt` and our own
restore make of the bucket, is compared with the first one's folder.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from untrusted_s3.bep.constants import BLOCK_OVERHEAD
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.compat import stored_folder, trees
from untrusted_s3.compat.awkward_tree import build_awkward_tree, random_file
from untrusted_s3.compat.checks import CannotRun, Check, CheckResult, TimeLimit, run_checks
from untrusted_s3.compat.commands import command_environment, run_command, store_arguments
from untrusted_s3.compat.gateway_process import GatewayProcess
from untrusted_s3.compat.stored_folder import StoredFolder
from untrusted_s3.compat.syncthing import Syncthing
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import CheckFailed, SyncthingFailed
from untrusted_s3.store import layout
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.records import PeerRecord, write_record
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import MIB

T = TypeVar("T")

FOLDER = "untrusted-s3 compat: Grüße"
PASSWORD = "pässword, used only here"  # noqa: S105

_LARGE = "large/more than one part"
_LARGE_SIZE = 20 * MIB + 12_345
_CHANGED_OFFSET = 10 * MIB
_METADATA = ("modes/600", "sizes/1024 bytes")
_NEW_MODIFIED_NS = 1_234_567_890_123_456_789
_DELETED_FILE = "names/with space"
_DELETED_DIRECTORY = "empty directory"
_WAIT_SECONDS = 120.0
_POLL_SECONDS = 0.1
_OUTPUT_LINES = 20


class RoundTrip:
    """The processes and folders of one run, in `directory`; a context manager, for the main thread.

    `binary` is the Syncthing program; `time_limit` is in seconds from now. Entering starts the store and the gateway,
    and raises UsageError, StoreError or GatewayUnreachable.
    """

    def __init__(self, binary: Path, directory: Path, time_limit: float) -> None:
        self._binary = binary
        self._directory = directory
        self._limit = TimeLimit(time_limit)
        self._stack = ExitStack()
        self._original = directory / "original"
        self._copy = directory / "copy"
        self._devices: list[Syncthing] = []

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._store = stack.enter_context(EmbeddedStore.start(self._directory / "seaweedfs"))
            self._runner = stack.enter_context(asyncio.Runner())
            self._bucket = self._runner.run(
                S3Bucket.open(
                    StoreLocation(self._store.bucket, ""),
                    self._store.endpoint_url,
                    S3Credentials(self._store.access_key, self._store.secret_key),
                )
            )
            stack.callback(lambda: self._runner.run(self._bucket.close()))
            home = self._directory / "gateway"
            home.mkdir()
            # The embedded store is known to support conditional writes, and the probe would take seconds.
            gateway = GatewayProcess(home, self._store, options=["--single-writer"])
            self._gateway = stack.enter_context(gateway)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, value, traceback)

    def checks(self) -> Iterator[CheckResult]:
        """Run the checks, and yield the result of each."""
        return run_checks(self._plan(), self._limit)

    def _plan(self) -> list[Check]:
        there, both = frozenset({"path in"}), frozenset({"path in", "path out"})
        return [
            Check("path in", frozenset(), self._path_in),
            Check("token", there, lambda: stored_folder.check_token(self._stored, self._key)),
            Check("names", there, self._names),
            Check("block tokens", there, lambda: self._compare(stored_folder.check_block_tokens)),
            Check("file infos", there, lambda: self._compare(stored_folder.check_file_infos)),
            Check("path out", there, self._path_out),
            Check("metadata", both, self._change_metadata),
            Check("change of one block", both, self._change_block),
            Check("delete", both, self._delete),
            Check("syncthing decrypt", there, self._decrypt),
            Check("restore", there, self._restore),
        ]

    # The checks, in the order in which they need each other

    def _path_in(self) -> str:
        build_awkward_tree(self._original)
        random_file(self._original / _LARGE, _LARGE_SIZE, seed=20)
        started = time.monotonic()
        first = self._device("first", self._original)
        first.scan(FOLDER)
        self._wait_until_stored(first)
        self._key = FolderKey.derive(PASSWORD, FOLDER)
        self._stored = self._read_bucket()
        items = trees.manifest(self._original, contents=False).values()
        size = sum(item.size or 0 for item in items) / MIB
        return f"{len(items)} items, {size:.1f} MiB in {time.monotonic() - started:.1f} s"

    def _names(self) -> str:
        return stored_folder.check_names(self._stored, self._key, trees.manifest(self._original, contents=False))

    def _path_out(self) -> str:
        started = time.monotonic()
        self._device("second", self._copy)
        return f"{self._wait_until_same()} equal items in {time.monotonic() - started:.1f} s"

    def _change_metadata(self) -> str:
        by_mode, by_time = (self._original / name for name in _METADATA)
        by_mode.chmod(0o640)
        os.utime(by_time, ns=(_NEW_MODIFIED_NS, _NEW_MODIFIED_NS))
        before = self._stored
        self._send_changes(self._devices[0])
        names = [self._key.encrypt_name(name) for name in _METADATA]
        stored_folder.fail_with(
            [
                f"{path!r} {problem}"
                for path, name in zip(_METADATA, names, strict=True)
                for problem in _problems_of_metadata(before, self._stored, name)
            ]
        )
        self._wait_until_same()
        return "a mode and a time, without new data in the bucket"

    def _change_block(self) -> str:
        with (self._original / _LARGE).open("r+b") as file:
            file.seek(_CHANGED_OFFSET)
            byte = file.read(1)
            file.seek(_CHANGED_OFFSET)
            file.write(bytes([byte[0] ^ 1]))
        name = self._key.encrypt_name(_LARGE)
        before = self._stored
        self._send_changes(self._devices[0])
        old, new = (stored.entries[name].file_info.message.blocks for stored in (before, self._stored))
        if len(old) != len(new):
            raise CheckFailed(f"{len(old)} blocks have become {len(new)}")
        changed = [number for number, (one, other) in enumerate(zip(old, new, strict=True)) if one != other]
        expected = [_CHANGED_OFFSET // (new[0].size - BLOCK_OVERHEAD)]
        if changed != expected:
            raise CheckFailed(f"the tokens of the blocks {changed} have changed, not of {expected}")
        self._wait_until_same()
        return f"1 of {len(new)} tokens has changed"

    def _delete(self) -> str:
        # On the second device: the first one receives the deletion.
        (self._copy / _DELETED_FILE).unlink()
        (self._copy / _DELETED_DIRECTORY).rmdir()
        self._send_changes(self._devices[1])
        left = [
            path for path in (_DELETED_FILE, _DELETED_DIRECTORY) if self._key.encrypt_name(path) in self._stored.entries
        ]
        if left:
            raise CheckFailed(f"still in the bucket: {left}")
        self._wait_until_same()
        return "a file and a directory, deleted by the second device"

    def _decrypt(self) -> str:
        device = self._devices[0]
        try:
            usage = device.run("decrypt", "--help")
        except SyncthingFailed:
            usage = ""
        if "--folder-id" not in usage:
            raise CannotRun("this Syncthing has no command `decrypt` that takes --folder-id")
        encrypted, decrypted = self._directory / "objects", self._directory / "decrypted"
        self._run(stored_folder.download_objects(self._bucket, FOLDER, self._stored, encrypted))
        decrypted.mkdir()
        device.run("decrypt", f"--folder-id={FOLDER}", f"--password={PASSWORD}", f"--to={decrypted}", str(encrypted))
        # Only contents: it restores no directories and symlinks, and not every version sets times and modes.
        expected, actual = (_contents(folder) for folder in (self._original, decrypted))
        stored_folder.fail_with(trees.differences(expected, actual))
        return f"{len(actual)} equal files"

    def _restore(self) -> str:
        for device in self._devices:
            device.stop()
        self._gateway.stop()
        target = self._directory / "restored"
        try:
            done = run_command(
                ["restore", str(target), "--folder", FOLDER, *store_arguments(self._store)],
                command_environment(self._store, {"UNTRUSTED_S3_PASSWORD": PASSWORD}),
                self._limit.left,
            )
        except subprocess.TimeoutExpired:
            raise CheckFailed("our restore does not end") from None
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip().splitlines()[-_OUTPUT_LINES:]
            raise CheckFailed("\n".join([f"our restore ended with {done.returncode}:", *said]))
        expected, actual = trees.manifest(self._original), trees.manifest(target)
        stored_folder.fail_with(trees.differences(expected, actual))
        return f"{len(actual)} equal items, straight from the bucket"

    # Used by several checks

    def _device(self, name: str, path: Path) -> Syncthing:
        """Start a trusted device that shares the folder at `path` with the gateway; wait until it is connected."""
        device = Syncthing(self._binary, self._directory / name, name, self._limit.deadline)
        self._stack.callback(device.stop)
        record = PeerRecord(DeviceID.parse(device.device_id), name)
        self._run(write_record(self._bucket, layout.peer_key(record.device_id), record.to_json()))
        device.start()
        gateway = str(self._gateway.device_id)
        device.add_device(gateway, "gateway", [self._gateway.listen_address], untrusted=True)
        device.add_folder(FOLDER, path, {gateway: PASSWORD}, label="compat")
        device.wait_connected(gateway)
        self._devices.append(device)
        return device

    def _compare(self, check: Callable[[StoredFolder, FolderKey, Path], str]) -> str:
        return check(self._stored, self._key, self._original)

    def _send_changes(self, device: Syncthing) -> None:
        device.scan(FOLDER)
        self._wait_until_stored(device)
        self._stored = self._read_bucket()

    def _wait_until_stored(self, device: Syncthing) -> None:
        device.wait_completion(str(self._gateway.device_id), FOLDER, _WAIT_SECONDS)

    def _wait_until_same(self) -> int:
        """Wait until both devices' folders are equal; return the number of items."""
        deadline = min(time.monotonic() + _WAIT_SECONDS, self._limit.deadline)
        while True:
            expected, actual = (trees.manifest(folder, contents=False) for folder in (self._original, self._copy))
            if expected == actual:
                expected, actual = trees.manifest(self._original), trees.manifest(self._copy)
            problems = trees.differences(expected, actual)
            if not problems:
                return len(actual)
            if time.monotonic() > deadline:
                stored_folder.fail_with(problems)
            time.sleep(_POLL_SECONDS)

    def _read_bucket(self) -> StoredFolder:
        return self._run(stored_folder.read_stored_folder(self._bucket, FOLDER))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(asyncio.wait_for(work, self._limit.left))


def _problems_of_metadata(before: StoredFolder, after: StoredFolder, name: str) -> Iterator[str]:
    old, new = before.entries[name], after.entries[name]
    if old.file_info.message.version == new.file_info.message.version:
        yield "has its old version in the bucket"
    if old.stored != new.stored:
        yield "has another object"


def _contents(root: Path) -> dict[str, trees.Entry]:
    """Return the regular files below `root` without their modes and times."""
    found = trees.manifest(root).items()
    return {
        path: trees.Entry("file", size=item.size, sha256=item.sha256) for path, item in found if item.kind == "file"
    }
