"""Commands of this program as child processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from untrusted_s3.store.layout import StoreLocation

# The program in this Python.
PROGRAM = (sys.executable, "-m", "untrusted_s3")


class ReachableStore(Protocol):
    """An S3 server, a bucket on it, and keys that may use it."""

    @property
    def endpoint_url(self) -> str: ...

    @property
    def bucket(self) -> str: ...

    @property
    def access_key(self) -> str: ...

    @property
    def secret_key(self) -> str: ...


def store_arguments(store: ReachableStore, prefix: str = "") -> list[str]:
    """Return the options that name a prefix (empty, or ending in a slash) of a store."""
    return ["--store", str(StoreLocation(store.bucket, prefix)), "--endpoint-url", store.endpoint_url]


def command_environment(store: ReachableStore | None, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a command on a store, or on a local one, with `more` variables.

    No setting and no credential of this process gets into it.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "UNTRUSTED_S3_"))}
    keys = {"AWS_ACCESS_KEY_ID": store.access_key, "AWS_SECRET_ACCESS_KEY": store.secret_key} if store else {}
    return {**inherited, **keys, **(more or {})}


def run_command(
    arguments: Sequence[str], environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Raises subprocess.TimeoutExpired."""
    return subprocess.run(
        [*PROGRAM, *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
