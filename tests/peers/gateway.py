"""The gateway as a child process: with settings of the test, its log, and its end checked.

Its log is one JSON object a line; a line that is not JSON is a traceback.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.peers.gateway_main import encode
from tests.peers.s3_server import S3Server
from tests.waiting import PATIENCE
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.compat.commands import PROGRAM, command_environment
from untrusted_s3.compat.gateway_process import GatewayProcess
from untrusted_s3.settings import Settings
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.format import PART_GRID
from untrusted_s3.store.layout import peer_key
from untrusted_s3.store.records import PeerRecord


class Gateway(GatewayProcess):
    """One gateway on a prefix of `store`, or, with None, on an embedded store below `home`.

    `settings` are what no option sets. Waits fail after `tests.waiting.PATIENCE`.
    """

    patience = PATIENCE

    def __init__(
        self,
        home: Path,
        store: S3Server | None,
        prefix: str = "",
        *,
        options: Sequence[str] = (),
        settings: Settings | None = None,
        identity: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            home,
            store,
            f"{prefix}/" if prefix else "",
            options=options,
            identity=identity,
            environment={**(environment or {}), "PYTHONUNBUFFERED": "1"},
            program=PROGRAM if settings is None else with_settings(settings),
        )

    def add_peer(self, device_id: str, addresses: Sequence[str] = (), share: Sequence[str] = ()) -> None:
        """Accept a device as the command does, but without a process, which takes a second of the processor."""
        if self.store is None or self.process is None:
            super().add_peer(device_id, addresses, share)
            return
        record = PeerRecord(DeviceID.parse(device_id), addresses=tuple(addresses), share=tuple(share))
        key = self.prefix + peer_key(record.device_id)
        client = connect(self.store.endpoint_url, S3Credentials(self.store.access_key, self.store.secret_key)).client
        with contextlib.closing(client):
            if client.list_objects_v2(Bucket=self.store.bucket, Prefix=key)["KeyCount"]:
                super().add_peer(device_id, addresses, share)  # it changes the record that is there
                return
            client.put_object(Bucket=self.store.bucket, Key=key, Body=json.dumps(record.to_json()).encode())

    def wait_ended(self) -> int:
        """Return the exit code of the gateway, which must end by itself in time."""
        assert self.process is not None
        try:
            return self.process.wait(PATIENCE)
        finally:
            self.kill()

    def run_to_its_end(self) -> tuple[int, str]:
        """Start a gateway that cannot run. Return its exit code and what it printed."""
        done = subprocess.run(
            self.serve_command(),
            env=command_environment(self.store),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it. Unless the test has failed, it must end well and never have logged an internal error."""
        if kind is not None:
            self.kill()
            return
        assert self.stop() in (0, None), self.log_tail(40)
        self.assert_no_internal_errors()

    def http_get(self, path: str) -> tuple[int, bytes]:
        """Return status code and body of an HTTP GET.

        Ask again if the gateway was too busy to read the request before it closed the connection.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return super().http_get(path)
            except ConnectionResetError:
                if self.process is None or self.process.poll() is not None or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def http_status(self, path: str) -> int:
        """Return the status code of a GET."""
        return self.http_get(path)[0]

    def log(self) -> list[dict[str, Any]]:
        """Return all lines of the log. Fails where one is neither JSON nor the message of a start that failed."""
        lines = self.log_file.read_text(errors="replace").splitlines()
        lines = [line for line in lines if not line.startswith("error: ")]
        try:
            return [json.loads(line) for line in lines]
        except ValueError:
            raise AssertionError(f"not every line of the log is JSON:\n{self.log_tail(40)}") from None

    def folder(self, folder_id: str) -> dict[str, Any]:
        """Return the status of a folder, less what goes on by itself or with the devices that are connected."""
        passing = ("remote_sequence", "scrub")
        return {key: value for key, value in super().folder(folder_id).items() if key not in passing}

    def logged(self, event: str, **fields: object) -> list[dict[str, Any]]:
        """Return the lines of one event with these values."""
        return [line for line in self.log() if {"event": event, **fields}.items() <= line.items()]

    def assert_no_internal_errors(self) -> None:
        """Fail if the gateway ever logged a traceback or anything critical."""
        errors = [line for line in self.log() if "exception" in line or line["level"] == "critical"]
        assert not errors, "\n".join(json.dumps(line, indent=1).replace("\\n", "\n") for line in errors)


def with_settings(settings: Settings) -> list[str]:
    """Return the command of a program that is `untrusted-s3` with these settings."""
    return [sys.executable, "-m", "tests.peers.gateway_main", encode(settings)]


def from_parts(*, days_old: float = 0.0, max_parts: int = PART_GRID.max_parts) -> list[str]:
    """Return the command of `tests.peers.gateway_from_parts`."""
    options = [f"--days-old={days_old}", f"--max-parts={max_parts}"]
    return [sys.executable, "-m", "tests.peers.gateway_from_parts", *options]
