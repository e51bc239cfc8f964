"""What the logs of folders have lost, as a gateway shows it."""

from __future__ import annotations

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from tests.file_infos import device
from tests.simulated import Call, Fault, Phase, SimulatedBucket
from tests.virtual_time import virtual_time
from untrusted_s3.gateway.losses import Losses
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import LossRecord, LostSegments

pytestmark = virtual_time

KEYS = FolderKeys.of("f")
SHORT, LONG = 60.0, 600.0


def lost(position: int) -> LossRecord:
    return LossRecord(position, device(1), 0, 0, (LostSegments(position, position, 0, 0),), loss_id=f"{position:032x}")


def put(bucket: SimulatedBucket, record: LossRecord) -> str:
    key = KEYS.loss(record.position, record.loss_id)
    bucket.store.put(key, json.dumps(record.to_json()).encode())
    return key


@pytest.fixture
def bucket() -> SimulatedBucket:
    return SimulatedBucket()


@pytest.fixture
def losses(bucket: SimulatedBucket) -> Losses:
    return Losses(bucket, SHORT, LONG)


async def test_losses_of_others_are_seen_and_those_that_are_noted_no_longer(
    bucket: SimulatedBucket, losses: Losses
) -> None:
    await losses.read(["f"])
    assert losses.texts("f") == []
    key = put(bucket, lost(3))
    await asyncio.sleep(LONG - 1)
    await losses.read(["f"])
    assert losses.texts("f") == [], "a folder without losses is read rarely"
    await asyncio.sleep(1)
    await losses.read(["f"])
    assert ["segment 3:" in text for text in losses.texts("f")] == [True]
    del bucket.store.objects[key]
    await losses.read(["f"])
    assert len(losses.texts("f")) == 1
    await asyncio.sleep(SHORT)
    await losses.read(["f"])
    assert losses.texts("f") == []


async def test_after_a_renewal_they_are_read_at_once(bucket: SimulatedBucket, losses: Losses) -> None:
    await losses.read(["f", "g"])
    put(bucket, lost(3))
    losses.renewed("f")
    await losses.read(["f", "g"])
    assert (len(losses.texts("f")), losses.texts("g"), bucket.count("list")) == (1, [], 3)


async def test_what_was_found_here_is_shown_and_then_read(bucket: SimulatedBucket, losses: Losses) -> None:
    assert losses.found("f", []) == []
    (text,) = losses.found("f", [lost(3)])
    assert losses.texts("f") == [text]
    put(bucket, lost(2))
    put(bucket, lost(3))
    await losses.read(["f"])
    assert ["segment 2:" in losses.texts("f")[0], losses.texts("f")[1]] == [True, text]
    losses.forget("f")
    assert losses.texts("f") == []


async def test_a_damaged_record_is_a_problem_of_its_folder_and_logged_once(
    bucket: SimulatedBucket, losses: Losses
) -> None:
    put(bucket, lost(3))
    bad = KEYS.loss(9, "b" * 32)
    bucket.store.put(bad, b"{")
    with capture_logs() as lines:
        for _ in range(3):
            await losses.read(["f", "g"])
            await asyncio.sleep(SHORT)
    assert [(line["event"], line["key"]) for line in lines] == [("record of losses not readable", bad)]
    assert len(losses.texts("f")) == 1
    assert list(losses.problems()) == ["folder f: losses not readable"]
    assert bad in losses.problems()["folder f: losses not readable"]
    del bucket.store.objects[bad]
    await losses.read(["f", "g"])
    assert losses.problems() == {}


async def test_few_problems_are_named(bucket: SimulatedBucket, losses: Losses) -> None:
    for number in range(50):
        bucket.store.put(KEYS.losses + str(number), b"")
    await losses.read(["f"])
    assert losses.problems()["folder f: losses not readable"].endswith("; …")


async def test_a_store_that_fails_is_a_problem_until_it_answers(bucket: SimulatedBucket, losses: Losses) -> None:
    put(bucket, lost(3))
    await losses.read(["f"])
    await asyncio.sleep(SHORT)
    bucket.fault = lambda call: Fault.REFUSED
    with capture_logs() as lines:
        for _ in range(2):
            await losses.read(["f"])
            await asyncio.sleep(SHORT)
    assert [line["event"] for line in lines] == ["losses of a folder not read"]
    assert (len(losses.texts("f")), list(losses.problems())) == (1, ["folder f: losses not readable"])
    bucket.fault = lambda call: None
    await losses.read(["f"])
    assert (len(losses.texts("f")), losses.problems()) == (1, {})


async def test_a_store_that_is_slow_is_not_waited_for(losses: Losses, bucket: SimulatedBucket) -> None:
    first, second = put(bucket, lost(3)), put(bucket, lost(4))

    async def gate(call: Call, phase: Phase) -> None:
        if call.key == second:
            await asyncio.sleep(100)

    bucket.gate = gate
    await losses.read(["f"], timeout=10)
    assert ["segment 3:" in text for text in losses.texts("f")] == [True], "what has come counts"
    assert "in time" in losses.problems()["folder f: losses not readable"]
    await asyncio.sleep(SHORT)
    await losses.read(["f"])
    assert (len(losses.texts("f")), losses.problems()) == (2, {})
    assert [call.key for call in bucket.calls if call.operation == "get"].count(first) == 1
