"""Upkeep of a store with two folders."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
from structlog.testing import capture_logs

from tests.index.gateways import checkpoint_body
from tests.simulated import Call, Fault, SimulatedBucket, SimulatedClock, deny_deletions
from untrusted_s3.counters import Counters
from untrusted_s3.errors import DeletionDenied
from untrusted_s3.gateway.upkeep import Maintenance
from untrusted_s3.settings import UpkeepSettings
from untrusted_s3.store.history import write_history
from untrusted_s3.store.layout import FolderKeys

DAY = 86_400.0


class EndOfTest(Exception):
    """Ends a task that would run without end."""


FOLDERS = [FolderKeys.of("one"), FolderKeys.of("two")]

DEFAULT_HISTORY_DAYS = 30


@pytest.fixture
def bucket() -> SimulatedBucket:
    """Two folders with three segments, of which two are before the base; uploads of eight and six days, and another
    program's."""
    bucket = SimulatedBucket()
    store = bucket.store
    for keys in FOLDERS:
        for position in (1, 2, 3):
            store.put(keys.segment(position), b"")
        for position, days in ((1, 90), (2, 31), (3, 1)):
            store.put(keys.checkpoint(position), checkpoint_body(position), begun=store.clock() - days * DAY)
    for key, days in (("folders/one/objects/a", 8), ("folders/two/objects/b", 6), ("elsewhere", 100)):
        upload = store.uploads[store.begin_upload(key)]
        upload.begun = store.clock() - days * DAY
    return bucket


def maintenance(bucket: SimulatedBucket, counters: Counters) -> Maintenance:
    return Maintenance(bucket, lambda: {"one": 3, "two": 3}, DEFAULT_HISTORY_DAYS, counters, UpkeepSettings())


def counted(counters: Counters) -> list[float]:
    names = ("segments_deleted", "checkpoints_deleted", "uploads_aborted")
    return [counters.registry.get_sample_value(f"untrusted_s3_{name}_total") or 0 for name in names]


def uploads(bucket: SimulatedBucket) -> set[str]:
    return {upload.key for upload in bucket.store.uploads.values()}


async def test_a_turn(bucket: SimulatedBucket) -> None:
    counters = Counters()
    await maintenance(bucket, counters).turn()
    for keys in FOLDERS:
        assert bucket.store.keys(keys.segments) == [keys.segment(3)]
        assert bucket.store.keys(keys.checkpoints) == [keys.checkpoint(2), keys.checkpoint(3)]
    assert uploads(bucket) == {"folders/two/objects/b", "elsewhere"}
    assert counted(counters) == [4, 2, 1]


@pytest.mark.parametrize(
    "broken",
    [
        lambda call: "folders/one/" in call.key and call.operation == "list",
        lambda call: call.operation == "list_multipart_uploads",
        lambda call: call.operation == "abort_multipart_upload",
        lambda call: call.operation == "delete",
    ],
)
async def test_what_fails_is_done_in_the_next_turn(bucket: SimulatedBucket, broken: Callable[[Call], bool]) -> None:
    counters = Counters()
    work = maintenance(bucket, counters)
    bucket.fault = lambda call: Fault.UNREACHABLE if broken(call) else None
    await work.turn()
    before = counted(counters)
    assert before != [4, 2, 1]
    assert any(before), "the rest is done"
    bucket.fault = lambda call: None
    await work.turn()
    assert counted(counters) == [4, 2, 1]


async def test_a_checkpoint_where_no_log_is_deletes_nothing(bucket: SimulatedBucket) -> None:
    """It would be the oldest that covers everything."""
    for position in (4, 10**6, 2**61, 3 * 2**60):
        bucket.store.put(FOLDERS[0].checkpoint(position), b"anything", begun=bucket.store.clock() - 100 * DAY)
    await maintenance(bucket, Counters()).turn()
    assert bucket.store.keys(FOLDERS[0].segments) == [FOLDERS[0].segment(3)]
    assert FOLDERS[0].checkpoint(2) in bucket.store.objects


async def test_a_log_that_gets_many_checkpoints_is_trimmed_at_once(bucket: SimulatedBucket) -> None:
    """Then three of a day are left, however many are written."""
    keys, store = FOLDERS[0], bucket.store
    written, most = 0, 0
    await write_history(bucket, None, DEFAULT_HISTORY_DAYS)

    async def sleep(seconds: float) -> None:
        nonlocal written, most
        assert seconds == UpkeepSettings().busy_trim_interval
        most = max(most, sum(key > keys.checkpoint(3) for key in store.keys(keys.checkpoints)))
        if written == 20:
            raise EndOfTest
        written += 1
        store.put(keys.checkpoint(3 + written), checkpoint_body(3 + written))

    work = Maintenance(
        bucket,
        lambda: {"one": 3 + written, "two": 3},
        DEFAULT_HISTORY_DAYS,
        Counters(),
        UpkeepSettings(),
        sleep,
        checkpoints=lambda: {"one": written, "two": 0},
    )
    with pytest.raises(EndOfTest):
        await work.trim_busy()
    assert most <= 3 + UpkeepSettings().busy_checkpoints
    left = [key for key in store.keys(keys.checkpoints) if key > keys.checkpoint(3)]
    assert left == [keys.checkpoint(position) for position in (4, 22, 23)], "the first and the last two"
    assert len(store.keys(FOLDERS[1].checkpoints)) == 3, "nothing was written"


async def test_two_at_once(bucket: SimulatedBucket) -> None:
    await asyncio.gather(*(maintenance(bucket, Counters()).turn() for _ in range(2)))
    assert bucket.store.keys(FOLDERS[0].segments) == [FOLDERS[0].segment(3)]
    assert uploads(bucket) == {"folders/two/objects/b", "elsewhere"}


async def test_again_and_again(bucket: SimulatedBucket) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 4:
            raise EndOfTest

    settings = UpkeepSettings(first_delay=600, interval=1000)
    work = Maintenance(bucket, lambda: {"one": 3, "two": 3}, DEFAULT_HISTORY_DAYS, Counters(), settings, sleep)
    with pytest.raises(EndOfTest):
        await work.run()
    assert bucket.count("list_multipart_uploads") == 3
    assert 300 <= slept[0] <= 900
    assert all(500 <= seconds <= 1500 for seconds in slept[1:])


@pytest.mark.parametrize("collects", [True, False])
async def test_garbage_is_collected_and_checkpoints_are_wanted(tmp_path: Path, collects: bool) -> None:
    bucket, counters, wanted = SimulatedBucket(), Counters(), []
    clock = bucket.store.clock
    assert isinstance(clock, SimulatedClock)
    bucket.store.put(FOLDERS[0].object("a", "a" * 32), b"data")
    bucket.store.put(FOLDERS[1].segment(1), b"damaged")
    bucket.store.put(FOLDERS[1].object("a", "a" * 32), b"data")
    work = Maintenance(
        bucket,
        lambda: {"one": 0, "two": 1},
        DEFAULT_HISTORY_DAYS,
        counters,
        UpkeepSettings(),
        collects_garbage=collects,
        want_checkpoint=lambda folder_id, age: wanted.append((folder_id, age)),
    )
    for _ in range(2):
        clock.now += 1.1 * DAY
        with mock.patch("time.time", clock):
            await work.turn()
    assert bucket.store.keys("folders/one/objects/") == ([] if collects else [FOLDERS[0].object("a", "a" * 32)])
    assert bucket.store.keys("folders/two/objects/"), "nobody knows what the log names"
    assert counters.registry.get_sample_value("untrusted_s3_garbage_deleted_total") == collects
    assert counters.registry.get_sample_value("untrusted_s3_garbage_bytes_deleted_total") == 4 * collects
    assert wanted == [("one", DAY), ("two", DAY)] * 2


@pytest.mark.parametrize("collects_garbage", [False, True])
async def test_without_the_right_to_delete_upkeep_is_left_to_others(
    bucket: SimulatedBucket, collects_garbage: bool
) -> None:
    wanted: list[str] = []
    counters = Counters()
    work = Maintenance(
        bucket,
        lambda: {"one": 3, "two": 3},
        DEFAULT_HISTORY_DAYS,
        counters,
        UpkeepSettings(),
        collects_garbage=collects_garbage,
        want_checkpoint=lambda folder_id, age: wanted.append(folder_id),
    )
    before = bucket.store.keys("folders/"), uploads(bucket)
    bucket.fault = deny_deletions
    with capture_logs() as log:
        await work.turn()
        requests = len(bucket.calls)
        for _ in range(5):
            await work.turn()
    (said,) = log
    assert (said["event"], said["log_level"]) == ("upkeep left to others", "warning")
    assert said["denied"] == ["DeleteObject", "AbortMultipartUpload"]
    assert (bucket.store.keys("folders/"), uploads(bucket)) == before
    assert len(bucket.calls) == requests, "nothing is asked of the store any more"
    assert counted(counters) == [0, 0, 0]
    assert wanted == ["one", "two"] * 6


async def test_who_may_only_abort_uploads_does_that(bucket: SimulatedBucket) -> None:
    bucket.fault = lambda call: Fault.DENIED if call.operation == "delete" else None
    counters = Counters()
    await maintenance(bucket, counters).turn()
    assert counted(counters) == [0, 0, 1]
    assert bucket.deletions.denied == ["DeleteObject"]


async def test_what_the_trial_of_the_store_has_found_is_said_at_once(bucket: SimulatedBucket) -> None:
    async def sleep(seconds: float) -> None:
        raise EndOfTest

    bucket.fault = lambda call: Fault.DENIED if call.operation == "delete" else None
    with pytest.raises(DeletionDenied):
        await bucket.delete("probe/1")
    work = Maintenance(bucket, dict, DEFAULT_HISTORY_DAYS, Counters(), UpkeepSettings(), sleep)
    with capture_logs() as log, pytest.raises(EndOfTest):
        await work.run()
    with capture_logs() as later:
        await work.turn()
    assert [line["denied"] for line in log] == [["DeleteObject"]]
    assert [line["event"] for line in later] == ["old upload aborted"]


async def test_history_is_that_of_the_store(bucket: SimulatedBucket) -> None:
    """A gateway with a shorter one deletes nothing that another one keeps, and a change takes effect a day later."""
    clock = bucket.store.clock
    assert isinstance(clock, SimulatedClock)
    segments = bucket.store.keys(FOLDERS[0].segments)
    await write_history(bucket, None, 60)
    clock.now += 1.5 * DAY
    work = Maintenance(bucket, lambda: {"one": 3, "two": 3}, 7, Counters(), UpkeepSettings(), history_is_wanted=True)
    with capture_logs() as log:
        for _ in range(2):
            await work.turn()
    (said,) = (line for line in log if line["event"] == "history is longer in the store")
    assert (said["log_level"], said["days"], said["wanted"]) == ("warning", 60, 7)
    assert bucket.store.keys(FOLDERS[0].segments) == segments[1:], "those before the checkpoint of 90 days ago"
    await write_history(bucket, FOLDERS[0], 7)
    await work.turn()
    assert bucket.store.keys(FOLDERS[0].segments) == segments[1:]
    clock.now += 1.1 * DAY
    await work.turn()
    assert bucket.store.keys(FOLDERS[0].segments) == segments[2:]
    assert bucket.store.keys(FOLDERS[1].segments) == [key.replace("one", "two") for key in segments[1:]]


async def test_nothing_is_trimmed_while_the_history_is_not_known(bucket: SimulatedBucket) -> None:
    before = bucket.store.keys("folders/")
    bucket.store.put("history.json", b"{")
    work = maintenance(bucket, Counters())
    with capture_logs() as log:
        await work.turn()
    assert [line["event"] for line in log].count("log not trimmed") == 2
    assert bucket.store.keys("folders/") == before
    del bucket.store.objects["history.json"]
    await work.turn()
    assert len(bucket.store.keys("folders/")) < len(before)
