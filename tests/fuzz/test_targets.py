"""The targets on the corpus, and on what Hypothesis makes of valid messages."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.inputs import BODIES, DEVICES, FILES, HELLO, lz4_frame, mutated
from tests.fuzz.targets import TARGETS, connection, messages
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.framing import encode_frame, frame_head

CORPUS = sorted(Path(__file__).parent.glob("corpus/*/*"))


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
