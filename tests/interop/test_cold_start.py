"""A gateway with only its identity, on a store with thousands of files.

It begins from a checkpoint and the segments after it, rebuilds a damaged local state from them, and cleans up.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.filled_store import FOLDER, FetchingPeer, FilledStore, fill
from tests.interop.sharing import s3_client, stored_keys
from tests.peers.fault_proxy import FaultProxy
from tests.peers.gateway import Gateway, from_parts
from untrusted_s3.identity.certificate import Identity, generate
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import FolderKeys

pytestmark = [pytest.mark.interop, pytest.mark.store]

FILES = 6000
SEGMENT_ENTRIES = 200
SEGMENTS = FILES // SEGMENT_ENTRIES


@pytest.fixture
def identity() -> Identity:
    return generate()


@pytest.fixture
def proxy(seaweedfs: EmbeddedStore) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.endpoint_url) as running:
        yield running


@pytest.fixture
def gateway(seaweedfs: EmbeddedStore, proxy: FaultProxy, bucket_prefix: str, tmp_path: Path) -> Gateway:
    """Return a gateway that does not run yet; its requests go through the proxy."""
    return Gateway(tmp_path / "gateway", seaweedfs, bucket_prefix, options=["--endpoint-url", proxy.url])


@pytest.fixture
def store(gateway: Gateway, identity: Identity, tmp_path: Path) -> FilledStore:
    """Fill the store with 30 segments, and checkpoints at 12 and 24."""
    settings = LogSettings(
        segment_entries=SEGMENT_ENTRIES, segment_cost=0, checkpoint_share=0, checkpoint_cost=12 * 120_000
    )
    return fill(gateway, FILES, identity.device_id, tmp_path, settings)


def test_a_cold_start_reads_a_checkpoint_and_the_segments_after_it(
    gateway: Gateway, proxy: FaultProxy, store: FilledStore, identity: Identity
) -> None:
    assert store.checkpoints[0] == 2 and store.segments[0] == SEGMENTS
    with gateway:
        peer = FetchingPeer(gateway, identity, store, FILES)
        assert peer.fetch_blocks(store) == store.content
        peer.vanish()
        assert gateway.folder(FOLDER)["files"] == FILES
        (loaded,) = gateway.logged("checkpoint loaded")
    assert loaded["position"] > SEGMENTS / 2
    # Positions after the last segment are asked for too, the more often the longer it runs.
    read = {request.key for request in proxy.requests if request.request_class == "GetObject segment"}
    keys = {position: gateway.prefix + FolderKeys.of(FOLDER).segment(position) for position in range(1, SEGMENTS + 1)}
    assert [position for position, key in keys.items() if key in read] == list(
        range(loaded["position"] + 1, SEGMENTS + 1)
    )


def damage(path: Path) -> None:
    """Overwrite a file from its second tenth on, as a bad disk does."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 10)
        file.write(b"\xa5" * (size - size // 10))


def test_a_state_that_is_damaged_in_its_middle_is_rebuilt(
    gateway: Gateway, store: FilledStore, identity: Identity
) -> None:
    """Opening it succeeds, so the gateway notices the damage when a peer asks for the index."""
    with gateway:
        pass
    (state,) = gateway.state.rglob("state.sqlite")
    damage(state)
    with gateway:
        loaded = len(gateway.logged("checkpoint loaded"))
        peer = FetchingPeer(gateway, identity, store, 0)
        assert "local state is damaged" in peer.closing_reason()
        gateway.wait_for("a new state", lambda: len(gateway.logged("checkpoint loaded")) > loaded)
        gateway.wait_for("the folder", lambda: gateway.folder(FOLDER)["error"] is None)
        peer = FetchingPeer(gateway, identity, store, 0)
        assert len(peer.receive_index(FILES)) == FILES
        assert peer.fetch_blocks(store) == store.content
        peer.vanish()
        assert gateway.folder(FOLDER)["error"] is None


def test_a_gateway_cleans_up_behind_itself(
    gateway: Gateway, store: FilledStore, identity: Identity, bucket_prefix: str
) -> None:
    keys = FolderKeys.of(FOLDER)
    assert gateway.store is not None
    gateway.program = from_parts(days_old=30)
    client, bucket = s3_client(gateway), gateway.store.bucket
    ours, other = f"{bucket_prefix}/{keys.base}objects/aa/unfinished", f"{bucket_prefix}/other/unfinished"
    for key in (ours, other):
        client.create_multipart_upload(Bucket=bucket, Key=key)

    with gateway:
        gateway.wait_for("the trim", lambda: gateway.counter("segments_deleted"))
        gateway.wait_for("the abort", lambda: gateway.counter("uploads_aborted"))
    unfinished = client.list_multipart_uploads(Bucket=bucket, Prefix=f"{bucket_prefix}/").get("Uploads", [])
    assert [upload["Key"] for upload in unfinished] == [other]
    assert not set(stored_keys(gateway)) & {keys.segment(1), keys.checkpoint(12)}
    assert keys.segment(store.segments[0]) in stored_keys(gateway)
    with gateway:
        peer = FetchingPeer(gateway, identity, store, 0)
        assert len(peer.receive_index(FILES)) == FILES
        peer.vanish()
