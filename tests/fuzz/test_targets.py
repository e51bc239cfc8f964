"""The targets on the corpus, and on what hypothesis makes of valid messages."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import lz4.block
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import deleted, directory, file, plaintext
from tests.fuzz.targets import OWN, PEER, TARGETS, connection, messages
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.framing import encode_frame, encode_hello, frame_head

CORPUS = sorted(Path(__file__).parent.glob("corpus/*/*"))
FILES = [
    file("a", sequence=1).raw,
    file("b", sizes=(2000, 3000), sequence=2).raw,
    directory("c", sequence=3).raw,
    deleted("d", sequence=4).raw,
    plaintext("e", sequence=5),
]
DEVICES = [pb.Device(id=OWN.raw, encryption_password_token=bytes(40)), pb.Device(id=PEER.raw, index_id=5)]


def lz4_frame(kind: int, body: bytes) -> bytes:
    packed = len(body).to_bytes(4, "big") + bytes(lz4.block.compress(body, store_size=False))
    return b"\x00\x04\x08" + bytes([kind]) + b"\x10\x01" + len(packed).to_bytes(4, "big") + packed


BODIES: list[tuple[int, bytes]] = [
    (pb.CLUSTER_CONFIG, pb.ClusterConfig(folders=[pb.Folder(id="f", devices=DEVICES)]).SerializeToString()),
    (pb.INDEX, pb.Index(folder="f", files=FILES, last_sequence=5).SerializeToString()),
    (pb.INDEX_UPDATE, pb.Index(folder="f", files=FILES[:2], prev_sequence=5).SerializeToString()),
    (pb.REQUEST, pb.Request(id=1, folder="f", name="n", offset=5, size=2000, hash=bytes(48)).SerializeToString()),
    (pb.RESPONSE, pb.Response(id=1, data=bytes(100), code=pb.GENERIC).SerializeToString()),
    (pb.DOWNLOAD_PROGRESS, b""),
    (pb.PING, b""),
    (pb.CLOSE, pb.Close(reason="bye").SerializeToString()),
    (77, b"of a later version"),
]
HELLO = encode_hello(pb.Hello(device_name="name", client_name="c", client_version="v1", timestamp=1))


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: f"{path.parent.name}-{path.name[:16]}")
def test_the_corpus(path: Path) -> None:
    data = path.read_bytes()
    tracemalloc.start()
    try:
        TARGETS[path.parent.name](data)
        # LZ4 grows by 255; the rest are objects of a few hundred bytes for entries of a few bytes.
        assert tracemalloc.get_traced_memory()[1] < (1 << 20) + 1000 * len(data)
    finally:
        tracemalloc.stop()


def test_there_is_a_corpus_for_each_target() -> None:
    assert {path.parent.name for path in CORPUS} == set(TARGETS)


@st.composite
def mutated(draw: st.DrawFn, source: st.SearchStrategy[bytes]) -> bytes:
    """Bytes of `source`, some of them changed, lost or doubled."""
    data = bytearray(draw(source))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = draw(st.integers(start, min(start + 8, len(data))))
        data[start:end] = draw(
            st.binary(max_size=8) | st.sampled_from([b"", b"\xff" * 4, bytes(8), bytes(data[start:end]) * 2])
        )
    return bytes(data)


bodies = st.sampled_from(BODIES)
frames = st.one_of(
    bodies.map(lambda body: encode_frame(*body)),
    bodies.map(lambda body: lz4_frame(*body)),
    # The lengths right, the body not
    bodies.flatmap(lambda body: mutated(st.just(body[1])).map(lambda data: frame_head(body[0], len(data)) + data)),
    bodies.flatmap(lambda body: mutated(st.just(body[1])).map(lambda data: lz4_frame(body[0], data))),
)
streams = st.lists(frames, max_size=6).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(mutated(streams))
def test_any_messages(data: bytes) -> None:
    messages(data)


@settings(max_examples=200, deadline=None)
@given(st.binary() | mutated(streams.map(lambda stream: HELLO + encode_frame(*BODIES[0]) + stream)))
def test_any_connection(data: bytes) -> None:
    connection(data)


@pytest.mark.parametrize("name", ["file_info", "index", "response", "cluster_config"])
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_body(name: str, data: st.DataObject) -> None:
    seeds = {
        "file_info": FILES,
        "index": [BODIES[1][1], BODIES[2][1]],
        "response": [BODIES[4][1]],
        "cluster_config": [pb.Folder(id="f", devices=DEVICES).SerializeToString()],
    }[name]
    TARGETS[name](data.draw(mutated(st.sampled_from(seeds))))
