"""What leaves the gateway about an error of any kind: to a peer, and on the pages."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from structlog.testing import capture_logs

from tests.connections.loopback import OURS, THEIRS, Recorder, connected, new_transport
from tests.secret_errors import TEXT, leaks, private, secret_errors
from tests.simulated import SimulatedBucket
from tests.sync.host import FakeHost, offered
from tests.waiting import until
from untrusted_s3.bep import events
from untrusted_s3.connections.reasons import (
    INTERNAL_ERROR,
    LOCAL_DISK_FAILED,
    STATE_DAMAGED,
    STORE_NOT_AVAILABLE,
    TOO_MANY_CONNECTIONS,
    public_reason,
)
from untrusted_s3.errors import FolderRefused, RemoteProtocolError, TooManyConnections
from untrusted_s3.gateway.gateway import Gateway
from untrusted_s3.gateway.settings import GatewaySettings
from untrusted_s3.store.records import PeerRecord
from untrusted_s3.sync.session import Session

ERRORS = secret_errors()


class Bucket(SimulatedBucket):
    """A simulated bucket that says where it is."""

    location = "s3://bucket"
    requests: dict[str, int] = {}  # noqa: RUF012
    received = 0


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    settings = GatewaySettings(("tcp://127.0.0.1:0",), "127.0.0.1:0", "gateway", tmp_path)
    opened = Gateway(Bucket(), OURS, settings)
    await opened.start()
    yield opened
    await opened.stop()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_is_told_in_a_fixed_phrase(error: Exception) -> None:
    reason = public_reason(error)
    if isinstance(error, RemoteProtocolError):
        assert leaks(reason) == [] and len(reason) <= 200 and reason.isprintable()
    else:
        fixed = INTERNAL_ERROR, LOCAL_DISK_FAILED, STATE_DAMAGED, STORE_NOT_AVAILABLE, TOO_MANY_CONNECTIONS
        assert reason in fixed


@pytest.mark.parametrize(
    "error",
    [error for error in ERRORS if not isinstance(error, FolderRefused)],
    ids=lambda error: type(error).__name__,
)
async def test_a_peer_is_told_no_text_of_an_error(tmp_path: Path, error: Exception) -> None:
    host, peer = FakeHost(OURS, SimulatedBucket(), tmp_path), Recorder(THEIRS, dialed=True)
    host.accepts, host.store_error = PeerRecord(THEIRS.device_id, "peer"), error
    transport = new_transport(OURS, lambda _: session, dialed=False)
    session = Session(host, transport)
    async with connected(transport, peer.transport):
        await peer.hear(events.ClusterConfigReceived)
        with capture_logs():
            peer.transport.write(peer.transport.bep.cluster_config([offered()], time.monotonic()))
            reason = (await peer.hear(events.CloseReceived)).reason
    assert reason == public_reason(error)
    assert (leaks if isinstance(error, RemoteProtocolError) else private)(reason) == []
    await host.stop()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
async def test_the_pages_show_no_signature(gateway: Gateway, error: Exception) -> None:
    async def fails() -> None:
        raise error

    with capture_logs():
        gateway.supervisor.start("extra", fails)
        await until(lambda: gateway.failing_tasks == ["extra"])
        await gateway.accept_device(THEIRS.device_id, "device")
        gateway.peers.accepted[THEIRS.device_id].error = TEXT
        async with aiohttp.ClientSession(f"http://{gateway.http_addresses[0]}") as client:
            texts = {}
            for path in ("/healthz", "/readyz", "/metrics", "/api/status"):
                async with client.get(path) as response:
                    texts[path] = await response.text()
    status = json.loads(texts.pop("/api/status"))
    assert leaks(json.dumps(status)) == []
    assert "no such table" in status["peers"][0]["error"], "the operator reads what happened"
    assert [private(text) for text in texts.values()] == [[], [], []]


def test_a_connection_cut_for_a_newer_one_is_told_so() -> None:
    assert public_reason(TooManyConnections(TEXT)) == "too many connections"
