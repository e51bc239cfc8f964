"""What a gateway tells its operator."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.console import address_for_peers, introduction, summary

DEVICE = DeviceID(bytes(range(32)))


@given(name=st.text() | st.text(alphabet='"\\\n\r\x1b \u202e\u2028'))
@example(name='x"\n  device ID  AAAAAAA')
@example(name='" (AAAAAAA...)? [y/N] y')
@example(name="\\" * 39 + '"')
@example(name="\\" * 100)
def test_the_question_shows_the_whole_device_id_and_no_name_imitates_it(name: str) -> None:
    lines = introduction(DEVICE, name).splitlines()
    assert lines[2] == f"  device ID  {DEVICE}"
    assert len(lines) == 5, "a name adds no line"
    shown = lines[3].removeprefix("  its name   ")
    assert shown.isprintable() and len(shown) <= 45
    assert re.fullmatch(r'"(?:[^"\\]|\\.)*"(?:\.\.\.)?', shown), "a quote in the name is escaped"
    assert all(len(line) < 80 for line in lines)


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
