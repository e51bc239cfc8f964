"""A real Syncthing as a child process, driven by its REST API.

It connects only to the devices that it is told of: no discovery, relays, NAT traversal, reports or upgrades. Folders
are scanned only on request. Waiting means polling until a deadline; an error of a wait ends with Syncthing's log.

Start it from the main thread: on Linux it is told to end when the thread that started it ends.
"""

from __future__ import annotations

import contextlib
import http.client
import json as json_format
import math
import os
import re
import secrets
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import quote, urlencode

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.compat.child_process import ChildProcess
from untrusted_s3.errors import SyncthingFailed, UsageError

T = TypeVar("T")

_POLL_SECONDS = 0.05
_START_SECONDS = 120.0
_STOP_SECONDS = 15.0
_COMMAND_SECONDS = 120.0
_REST_SECONDS = 120.0
_WAIT_SECONDS = 180.0
_LEAST_SECONDS = 1.0  # for ending it after the deadline
_VERSION = re.compile(r"syncthing (v\d+\.\d+\.\d+\S*)")


def syncthing_version(binary: Path, timeout: float = _COMMAND_SECONDS) -> str:
    """Return the version of a Syncthing program, as in `v1.29.5`. Raises UsageError if it is another program."""
    try:
        done = subprocess.run(
            [binary.absolute(), "--version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        raise UsageError(f"{binary} cannot be run: {error.strerror}") from error
    except subprocess.TimeoutExpired:
        raise UsageError(f"{binary} is not Syncthing: --version does not end") from None
    version = _VERSION.match(done.stdout)
    if version is None:
        said = (done.stdout or done.stderr).strip().partition("\n")[0]
        raise UsageError(f"{binary} is not Syncthing: --version says {said[:200]!r}")
    return version[1]


class Syncthing(ChildProcess):
    """One device. `home` holds its configuration, database and log, and survives `stop` and another `start`."""

    def __init__(self, binary: Path, home: Path, name: str, deadline: float = math.inf) -> None:
        """Make a configuration if `home` has none. No wait lasts beyond `deadline`, on the monotonic clock.

        Raises SyncthingFailed.
        """
        super().__init__(home / "syncthing.log", _STOP_SECONDS)
        self.binary = binary
        self.home = home
        self.deadline = deadline
        self.name = name
        self.api_key = secrets.token_hex(16)
        self.gui_port = self.reserve_port()
        self.listen_address = f"tcp://127.0.0.1:{self.reserve_port()}"
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "config.xml").exists():
            self.run("generate", f"--home={home}")
            self._edit_configuration(_remove_folders)  # versions 1 begin with one in the home directory
        self.device_id = self.home_device_id()
        self._edit_configuration(self._configure)

    def run(self, *arguments: str) -> str:
        """Run another command of Syncthing and return its output. Raises SyncthingFailed."""
        command = arguments[0]
        try:
            done = subprocess.run(
                [self.binary, *arguments],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=self._seconds(_COMMAND_SECONDS),
                check=False,
                env=self._environment(),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise SyncthingFailed(f"{self.name}: syncthing {command}: {error}") from error
        if done.returncode != 0:
            said = (done.stdout + done.stderr).strip()
            raise SyncthingFailed(f"{self.name}: syncthing {command} ended with {done.returncode}: {said}")
        return done.stdout

    def _seconds(self, most: float) -> float:
        return max(_LEAST_SECONDS, min(max(most, self.patience), self.deadline - time.monotonic()))

    # The process

    def start(self) -> Self:
        """Start it and wait until its REST API answers. Raises SyncthingFailed."""
        # Without STMONITORED it starts a child that does the work and outlives a kill (v1.29.5
        # cmd/syncthing/monitor.go).
        self.launch(
            [self.binary, "serve", f"--home={self.home}", "--no-browser", "--no-restart", "--no-upgrade"],
            {**self._environment(), "STMONITORED": "yes"},
        )

        def answers() -> bool:
            with contextlib.suppress(OSError, http.client.HTTPException, SyncthingFailed):
                return bool(self.rest("GET", "system/status")["myID"] == self.device_id)
            return False

        try:
            self._wait_for("its REST API", max(_START_SECONDS, self.patience), answers)
        except BaseException:
            self.stop()
            raise
        return self

    def ask_to_end(self, process: subprocess.Popen[bytes]) -> None:
        """Shut it down by its API, or by SIGTERM if that does not answer."""
        try:
            self.rest("POST", "system/shutdown")
        except (OSError, http.client.HTTPException, SyncthingFailed):
            process.terminate()

    # The REST API

    def rest(self, method: str, path: str, json: object = None, **parameters: object) -> Any:
        """Call `/rest/{path}?{parameters}` and return the decoded answer, None if it is empty.

        Raises SyncthingFailed on any status but 200.
        """
        query = f"?{urlencode(parameters)}" if parameters else ""
        body = None if json is None else json_format.dumps(json).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.gui_port, timeout=self._seconds(_REST_SECONDS))
        try:
            connection.request(method, f"/rest/{path}{query}", body, {"X-API-Key": self.api_key})
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            text = answer.decode(errors="replace").strip()
            raise SyncthingFailed(f"{self.name}: {method} {path}{query}: {response.status} {text}")
        return json_format.loads(answer) if answer.strip() else None

    def add_device(self, device_id: str, name: str, addresses: Sequence[str] = (), untrusted: bool = False) -> None:
        """Add a device; without an address, Syncthing waits for its connection."""
        self.rest(
            "POST",
            "config/devices",
            {"deviceID": device_id, "name": name, "addresses": list(addresses), "untrusted": untrusted},
        )

    def set_device(self, device_id: str, **changes: object) -> None:
        """Change settings of a device, under the names of Syncthing's configuration."""
        self.rest("PATCH", f"config/devices/{device_id}", changes)

    def add_folder(
        self,
        folder: str,
        path: Path,
        devices: Mapping[str, str],
        type: str = "sendreceive",
        label: str = "",
        watch: bool = False,
        **extra: object,
    ) -> None:
        """Share the folder at `path` with `devices`: device ID to encryption password, "" for a trusted one.

        `watch` turns the file system watcher on; `extra` are settings under the names of Syncthing's configuration.
        """
        path.mkdir(parents=True, exist_ok=True)
        self.rest(
            "POST",
            "config/folders",
            {
                "id": folder,
                "label": label,
                "path": str(path),
                "type": type,
                "devices": [
                    {"deviceID": device_id, "encryptionPassword": password} for device_id, password in devices.items()
                ],
                "fsWatcherEnabled": watch,
                "fsWatcherDelayS": 1,
                "rescanIntervalS": 86_400,
                "minDiskFree": {"value": 0, "unit": "%"},
                **extra,
            },
        )

    def set_folder(self, folder: str, **changes: object) -> None:
        """Change settings of a folder, under the names of Syncthing's configuration."""
        self.rest("PATCH", f"config/folders/{quote(folder, safe='')}", changes)

    def pause_device(self, device_id: str) -> None:
        self.rest("POST", "system/pause", device=device_id)

    def resume_device(self, device_id: str) -> None:
        """Connect again, at once: without waiting for the reconnection interval."""
        self.rest("POST", "system/resume", device=device_id)

    def scan(self, folder: str) -> None:
        """Scan a folder and wait for the end. Raises SyncthingFailed if the scan found errors."""
        self.rest("POST", "db/scan", folder=folder)
        errors = self.rest("GET", "folder/errors", folder=folder).get("errors")
        if errors:
            raise SyncthingFailed(f"{self.name}: the scan of {folder!r} found errors: {errors}")

    def folder_status(self, folder: str) -> dict[str, Any]:
        status: dict[str, Any] = self.rest("GET", "db/status", folder=folder)
        return status

    def completion(self, device_id: str, folder: str) -> dict[str, Any]:
        """Return what this device believes that another one has of a folder."""
        completion: dict[str, Any] = self.rest("GET", "db/completion", device=device_id, folder=folder)
        return completion

    # Waiting: without a timeout, for three minutes, or for `patience` if that is more

    def wait_connected(self, device_id: str, timeout: float | None = None, connected: bool = True) -> None:
        """Wait until a device is connected, or with `connected=False` until it is not."""

        def is_so() -> bool:
            connections = self.rest("GET", "system/connections")["connections"]
            return bool(connections.get(device_id, {}).get("connected", False) is connected)

        self._wait_for(f"{'a' if connected else 'no'} connection to {device_id}", timeout, is_so)

    def wait_completion(self, device_id: str, folder: str, timeout: float | None = None) -> dict[str, Any]:
        """Wait until this device believes that another one has all of a folder; return its completion.

        An empty folder is complete at once, so `scan` first.
        """

        last: dict[str, Any] = {}

        def complete() -> dict[str, Any] | None:
            nonlocal last
            last = self.completion(device_id, folder)
            is_complete = (
                last["completion"] == 100
                and last["needItems"] == 0
                and last["needDeletes"] == 0
                # A device that has not announced anything yet counts as complete.
                and (last["sequence"] > 0 or last["globalItems"] == 0)
                and last.get("remoteState", "valid") == "valid"  # 1.19 does not say
            )
            return last if is_complete else None

        return self._wait_for(f"completion of {folder!r} at {device_id}", timeout, complete, lambda: last)

    def wait_in_sync(
        self, folder: str, expected_files: int | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """Wait until a folder is idle, needs nothing, and holds `expected_files` regular files; return its status.

        Without `expected_files` a folder that has not yet heard of any file counts as in sync.
        """

        last: dict[str, Any] = {}

        def in_sync() -> dict[str, Any] | None:
            nonlocal last
            last = self.folder_status(folder)
            if last["state"] == "error":
                raise SyncthingFailed(f"{self.name}: folder {folder!r}: {last.get('error')}\n{self.log_tail()}")
            is_so = (
                last["state"] == "idle"
                and last["needTotalItems"] == 0
                and (expected_files is None or last["localFiles"] == expected_files)
            )
            return last if is_so else None

        return self._wait_for(
            f"folder {folder!r} with {expected_files or 'its'} files to be in sync",
            timeout,
            in_sync,
            lambda: {**last, "errors": self.rest("GET", "folder/errors", folder=folder)},
        )

    def _wait_for(
        self,
        what: str,
        timeout: float | None,
        check: Callable[[], T | None],
        details: Callable[[], object] = lambda: "",
    ) -> T:
        started = time.monotonic()
        if timeout is None:
            timeout = max(_WAIT_SECONDS, self.patience)
        deadline = min(started + timeout, self.deadline)
        while True:
            if self.process is None or self.process.poll() is not None:
                raise SyncthingFailed(f"{self.name} is not running, waiting for {what}\n{self.log_tail()}")
            answer = check()
            if answer:
                return answer
            if time.monotonic() > deadline:
                raise SyncthingFailed(
                    f"{self.name}: waited {deadline - started:.0f} s in vain for {what}: {details()}\n{self.log_tail()}"
                )
            time.sleep(_POLL_SECONDS)

    # The configuration

    def _environment(self) -> dict[str, str]:
        own = {"HOME": str(self.home), "STNOUPGRADE": "1", "STNOPORTPROBING": "1", "LC_ALL": "C.UTF-8"}
        return {name: value for name, value in os.environ.items() if not name.startswith("ST")} | own

    def _edit_configuration(self, edit: Callable[[ElementTree.Element], None]) -> None:
        path = self.home / "config.xml"
        try:
            tree = ElementTree.parse(path)  # noqa: S314 - the program that wrote it is the one that we run
        except (OSError, ElementTree.ParseError) as error:
            raise SyncthingFailed(f"{self.name}: syncthing generate has made no configuration: {error}") from error
        edit(tree.getroot())
        tree.write(path, encoding="utf-8")

    def _configure(self, root: ElementTree.Element) -> None:
        """Set our addresses, and turn off all that reaches out to other machines."""
        for device in root.findall("device"):
            if device.get("id") == self.device_id:
                device.set("name", self.name)
        _set(root, "gui/address", f"127.0.0.1:{self.gui_port}")
        _set(root, "gui/apikey", self.api_key)
        options = {
            "listenAddress": self.listen_address,
            "globalAnnounceEnabled": "false",
            "localAnnounceEnabled": "false",
            "relaysEnabled": "false",
            "natEnabled": "false",
            "crashReportingEnabled": "false",
            "urAccepted": "-1",
            "autoUpgradeIntervalH": "0",
            "startBrowser": "false",
            "stunKeepaliveStartS": "0",
            "reconnectionIntervalS": "1",  # Syncthing raises it to its minimum
            "minHomeDiskFree": "0",
            "setLowPriority": "false",  # beside a busy gateway it would get almost nothing of the processor
        }
        for name, value in options.items():
            _set(root, f"options/{name}", value)

    def home_device_id(self) -> str:
        """Return the device ID of the certificate in `home`."""
        try:
            certificate = x509.load_pem_x509_certificate((self.home / "cert.pem").read_bytes())
        except (OSError, ValueError) as error:
            raise SyncthingFailed(f"{self.name}: syncthing generate has made no certificate: {error}") from error
        return str(DeviceID.from_certificate(certificate.public_bytes(Encoding.DER)))


def _remove_folders(root: ElementTree.Element) -> None:
    for folder in root.findall("folder"):
        root.remove(folder)


def _set(root: ElementTree.Element, path: str, text: str) -> None:
    parent, name = path.split("/")
    section = root.find(parent)
    if section is None:
        raise SyncthingFailed(f"syncthing generate has made a configuration without <{parent}>")
    element = section.find(name)
    if element is None:
        element = ElementTree.SubElement(section, name)
    element.text = text
