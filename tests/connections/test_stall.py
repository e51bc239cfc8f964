"""When a peer that does not read is given up."""

from __future__ import annotations

import pytest

from untrusted_s3.connections.stall import StallTimer
from untrusted_s3.errors import RemoteProtocolError
from untrusted_s3.settings import ConnectionSettings


def started(now: float, sent: int) -> StallTimer:
    timer = StallTimer(ConnectionSettings(stall_timeout=120, slowest_peer=1024))
    timer.start(now, sent)
    assert timer.running
    return timer


def test_a_peer_that_reads_slowly_but_reads_is_waited_for() -> None:
    timer = started(1000, 5 << 20)
    read = (5 << 20) + (10 << 20)
    for seconds in (0, 119, 121, 10_000):
        timer.check(1000 + seconds, read)
    with pytest.raises(RemoteProtocolError, match="too slowly"):
        timer.check(1000 + 10 * 1024 + 10, read)


def test_a_peer_that_reads_nothing_gets_the_shortest_time() -> None:
    timer = started(1000, 5)
    timer.check(1119, 5)
    with pytest.raises(RemoteProtocolError, match="0 bytes in 120 s"):
        timer.check(1120, 5)


def test_nothing_is_measured_while_no_data_waits() -> None:
    timer = started(1000, 5)
    timer.stop()
    timer.check(10**9, 5)
    assert not timer.running
