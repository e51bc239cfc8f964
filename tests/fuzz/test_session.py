"""A session with real folders on a simulated bucket, whose peer sends anything."""

from __future__ import annotations

import time

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.connections.loopback import OURS, THEIRS
from tests.file_infos import directory, file, plaintext
from tests.fuzz.inputs import BODIES, HELLO, mutated
from tests.loops import RunAsync
from tests.simulated import SimulatedBucket, fast_directory
from tests.sync.host import FakeHost, offered
from tests.sync.wire import Wire
from tests.waiting import until
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.framing import encode_frame
from untrusted_s3.errors import ProtocolError
from untrusted_s3.store.records import PeerRecord
from untrusted_s3.sync.session import Session


async def listen(data: bytes) -> tuple[FakeHost, Wire]:
    """Let a session receive Hello, a shared folder, and then `data`."""
    with fast_directory() as directory:
        host, wire = FakeHost(OURS, SimulatedBucket(), directory), Wire(THEIRS.device_id)
        host.accepts = PeerRecord(THEIRS.device_id, "peer")
        session = Session(host, wire)
        session.secured()
        config = encode_frame(pb.CLUSTER_CONFIG, pb.ClusterConfig(folders=[offered()]).SerializeToString())
        try:
            for piece in (HELLO, config, data):
                for event in wire.bep.receive_data(piece, time.monotonic()):
                    session.received(event)
                await until(lambda: host.memory.messages.used == 0 or not wire.is_open)
        except ProtocolError as error:
            wire.fail(error)
        session.closed(wire.error)
        await host.stop()
        assert host.memory.messages.used == 0
        return host, wire


INFOS = [file("a", sequence=1), file("b", sizes=(2000, 3000), sequence=2), directory("c", sequence=3)]


def index_frame(*raw: bytes) -> bytes:
    return encode_frame(pb.INDEX_UPDATE, pb.Index(folder="f", files=raw).SerializeToString())


frames = st.one_of(
    st.sampled_from(BODIES).map(lambda body: encode_frame(*body)),
    st.sampled_from(INFOS).flatmap(lambda info: mutated(st.just(info.raw))).map(index_frame),
    st.permutations([info.raw for info in INFOS]).map(lambda raw: index_frame(*raw)),
    st.just(index_frame(plaintext("secret", sequence=9))),
    st.just(encode_frame(pb.CLUSTER_CONFIG, b"")),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(frames, max_size=8).map(b"".join))
def test_a_session_that_hears_anything(run_async: RunAsync, data: bytes) -> None:
    with structlog.testing.capture_logs() as lines:
        host, wire = run_async(listen(data))
    assert not [line for line in lines if line.get("exc_info")], "an internal error"
    assert wire.error is None or isinstance(wire.error, ProtocolError)
    for key in host.bucket.store.objects:
        assert "secret" not in key and "/objects/" not in key, "no block was ever given"


async def test_it_does_take_what_is_right() -> None:
    host, wire = await listen(index_frame(INFOS[2].raw))
    assert wire.error is None
    assert host.counters.registry.get_sample_value("untrusted_s3_index_entries_received_total") == 1


async def test_it_does_end_for_what_is_wrong() -> None:
    _, wire = await listen(index_frame(b"not a file info"))
    assert "invalid FileInfo" in str(wire.error)
