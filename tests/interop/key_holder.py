"""The key holder's commands, run on a gateway's store with read access only."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.sharing import PASSWORD
from tests.peers.fault_proxy import FaultProxy
from tests.peers.gateway import Gateway
from tests.waiting import PATIENCE
from untrusted_s3.store.embedded.process import die_with_parent

_REPOSITORY = Path(__file__).parents[2]


class KeyHolder:
    """Command lines for one folder of a gateway's store, through a proxy that records each request."""

    def __init__(self, gateway: Gateway, folder: str, proxy: FaultProxy) -> None:
        assert gateway.store is not None
        self.proxy = proxy
        self._options = [f"--folder={folder}", f"--store=s3://{gateway.store.bucket}/{gateway.prefix}"]
        self._options.append(f"--endpoint-url={proxy.url}")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "UNTRUSTED_S3_"))}
        self._environment = {
            **kept,
            "AWS_ACCESS_KEY_ID": gateway.store.access_key,
            "AWS_SECRET_ACCESS_KEY": gateway.store.secret_key,
            "UNTRUSTED_S3_PASSWORD": PASSWORD,
        }

    def start(self, command: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a command."""
        return subprocess.Popen(
            [sys.executable, "-m", "untrusted_s3", command, *self._options, *map(str, arguments)],
            cwd=_REPOSITORY,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent(),
        )

    def run(self, command: str, *arguments: object, exit_code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command, which must end with that exit code."""
        with self.start(command, *arguments) as process:
            stdout, stderr = process.communicate(timeout=PATIENCE)
        assert process.returncode == exit_code, f"{process.returncode}: {stdout}{stderr}"
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def requests_for_objects(self) -> int:
        """Return how many requests there were for files' data."""
        return sum(count for name, count in self.proxy.counts.items() if name.endswith(" object"))


@contextmanager
def key_holder(gateway: Gateway, folder: str) -> Iterator[KeyHolder]:
    """Provide a key holder. Fail if any of its requests would have written to the store."""
    assert gateway.store is not None
    with FaultProxy(gateway.store.endpoint_url) as proxy:
        yield KeyHolder(gateway, folder, proxy)
        assert proxy.requests, "it never asked the store for anything"
        assert not [request for request in proxy.requests if request.writes]
