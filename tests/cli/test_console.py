"""What a gateway tells its operator."""

from __future__ import annotations

import re
from typing import Any

import pytest

from untrusted_s3.cli.console import address_for_peers, summary


def test_the_summary() -> None:
    folder = {"id": "a\x1b", "files": 1500, "bytes": 3 << 30, "pending_files": 0, "pending_bytes": 0, "error": None}
    status: dict[str, Any] = {"folders": [folder], "peers": [{"connected": True}, {"connected": False}]}
    assert summary(status) == "1/2 devices | 1 folder | 1,500 files 3.0 GiB | up to date"
    folder.update(pending_files=1200, pending_bytes=5 << 20, error="bad")
    assert summary(status).endswith("| 1,200 to come 5.0 MiB | error in a\\x1b")


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        (["tcp://192.0.2.7:22001", "tcp://127.0.0.1:1"], r"tcp://192\.0\.2\.7:22001"),
        (["tcp://[2001:db8::1]:22001"], r"tcp://\[2001:db8::1\]:22001"),
        (["tcp://0.0.0.0:22001"], r"tcp://(THIS-HOST|\d+\.\d+\.\d+\.\d+):22001"),
        (["tcp://[::]:22001"], r"tcp://(THIS-HOST|\d+\.\d+\.\d+\.\d+):22001"),
    ],
)
def test_the_address_that_peers_may_type(listen: list[str], address: str) -> None:
    assert re.fullmatch(address, address_for_peers(listen))
    assert "0.0.0.0" not in address_for_peers(listen)
