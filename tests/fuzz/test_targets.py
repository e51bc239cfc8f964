"""Every target on its corpus and on damaged inputs, and some on what Hypothesis makes of valid messages."""

from __future__ import annotations

import tracemalloc
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.catalog import TARGETS
from tests.fuzz.engine import fuzz
from tests.fuzz.inputs import BODIES, HELLO, lz4_frame, mutated
from tests.fuzz.targets import connection, messages
from untrusted_s3.bep.framing import encode_frame, frame_head

CORPUS = sorted(Path(__file__).parent.glob("corpus/*/*"))
EXECUTIONS = {"connection": 200}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    warnings.simplefilter("ignore")  # dateutil warns of zones that it does not know


@pytest.mark.parametrize("name", sorted({path.parent.name for path in CORPUS}))
def test_the_corpus(name: str) -> None:
    for path in CORPUS:
        if path.parent.name != name:
            continue
        data = path.read_bytes()
        TARGETS[name].run(data)  # what is made once is made now
        tracemalloc.start()
        try:
            TARGETS[name].run(data)
            # LZ4 grows by 255; the rest are objects of a few hundred bytes for entries of a few bytes.
            assert tracemalloc.get_traced_memory()[1] < (1 << 20) + 1000 * len(data), path
        finally:
            tracemalloc.stop()


def test_there_is_a_corpus_for_each_target() -> None:
    assert {path.parent.name for path in CORPUS} == set(TARGETS)


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_inputs(name: str) -> None:
    report = fuzz(TARGETS[name], EXECUTIONS.get(name, 500), 1)
    assert not report.finds, "\n".join(text for _, text in report.finds.values())
    assert report.kept, "no input has reached anything new"


@pytest.mark.parametrize("name", TARGETS)
def test_sound_inputs_are_taken(name: str) -> None:
    outcomes = [TARGETS[name].run(seed) for seed in TARGETS[name].seeds()]
    assert any("taken" in outcome or "Received" in outcome for outcome in outcomes), outcomes


def test_a_run_can_be_repeated() -> None:
    first, second = (fuzz(TARGETS["records"], 500, 7) for _ in range(2))
    assert first.kept == second.kept


def test_what_goes_wrong_is_found() -> None:
    def run(data: bytes) -> str:
        if b"\xff" in data:
            raise KeyError("wrong")
        return "taken"

    target = TARGETS["records"]
    report = fuzz(type(target)(run, lambda: [b"a"], target.damage), 500, 1)
    ((find, (data, text)),) = report.finds.items()
    assert find.startswith("KeyError at test_targets.py")
    assert b"\xff" in data
    assert "wrong" in text


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
