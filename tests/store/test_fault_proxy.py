"""The real client and the real server with the fault proxy between them: what passes, and what faults come to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.file_infos import device, encrypted_name, entry, file
from tests.peers.fault_proxy import (
    PASSING,
    SLOW_DOWN,
    Answer,
    Delay,
    Fault,
    FaultProxy,
    Forged,
    Moment,
    Reset,
    Script,
    store_full,
)
from tests.peers.store_requests import StoreRequest
from untrusted_s3.errors import PreconditionFailed, StoreRefused, StoreUnreachable
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.adaptive_limit import AdaptiveLimit
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import MIB

pytestmark = pytest.mark.store

OBJECT = "folders/f/objects/ab/abc/def"
BODY = bytes(range(256)) * 1000


@pytest.fixture
def proxy(seaweedfs: EmbeddedStore) -> Iterator[FaultProxy]:
    with FaultProxy(seaweedfs.endpoint_url) as running:
        yield running


@pytest.fixture
async def bucket(seaweedfs: EmbeddedStore, bucket_prefix: str, proxy: FaultProxy) -> AsyncIterator[S3Bucket]:
    opened = await S3Bucket.open(
        StoreLocation(seaweedfs.bucket, f"{bucket_prefix}/"),
        proxy.url,
        S3Credentials(seaweedfs.access_key, seaweedfs.secret_key),
    )
    yield opened
    await opened.close()


def once(fault: Fault, operation: str) -> Script:
    """The first request of the operation meets the fault."""
    left = [fault]
    return lambda request: left.pop() if left and request.operation == operation else None


def always(fault: Fault) -> Script:
    return lambda request: fault


async def _put_and_get(bucket: S3Bucket) -> None:
    await bucket.put(OBJECT, [BODY[:1000], BODY[1000:]])
    assert await bucket.get(OBJECT) == BODY
    assert await bucket.get(OBJECT, 1000, 5000) == BODY[1000:6000]


async def test_what_passes_is_unchanged_and_known_by_name(
    bucket: S3Bucket, proxy: FaultProxy, bucket_prefix: str, tmp_path: Path
) -> None:
    await _put_and_get(bucket)
    await bucket.put("folders/f/log/1", [b"segment"], if_none_match=True)
    with pytest.raises(PreconditionFailed):
        await bucket.put("folders/f/log/1", [b"segment"], if_none_match=True)
    (tmp_path / "file").write_bytes(BODY * 4)
    await bucket.upload_file("folders/f/checkpoints/1", tmp_path / "file")
    await bucket.download_file("folders/f/checkpoints/1", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == BODY * 4
    other, part = OBJECT + "2", bytes(5 * MIB)  # the least that S3 takes for any part but the last
    upload = await bucket.create_multipart_upload(other)
    etags = [
        await bucket.upload_part(other, upload, 1, [part]),
        await bucket.upload_part_copy(other, upload, 2, OBJECT, 0, 1000),
    ]
    await bucket.complete_multipart_upload(other, upload, etags)
    assert await bucket.get(other) == part + BODY[:1000]
    await bucket.abort_multipart_upload(other, await bucket.create_multipart_upload(other))
    assert await bucket.size(other) == len(part) + 1000
    assert len([item async for item in bucket.list("folders/f/")]) == 4
    assert [name async for name in bucket.list_directories("folders/")] == ["folders/f/"]
    await bucket.delete(other)

    assert proxy.counts.keys() >= {
        "PutObject object",
        "GetObject object",
        "PutObject segment",
        "PutObject checkpoint",
        "HeadObject object",
        "CreateMultipartUpload object",
        "UploadPart object",
        "UploadPartCopy object",
        "CompleteMultipartUpload object",
        "AbortMultipartUpload object",
        "ListObjects folders",
        "DeleteObject object",
    }
    assert proxy.requests[-1] == StoreRequest("DeleteObject", f"{bucket_prefix}/{other}", "object")
    assert not proxy.faults


@pytest.mark.parametrize("fault", PASSING, ids=str)
async def test_one_fault_is_got_over(bucket: S3Bucket, proxy: FaultProxy, fault: Fault) -> None:
    proxy.script = once(fault, "PutObject")
    await bucket.put(OBJECT, [BODY])
    proxy.script = once(fault, "GetObject")
    assert await bucket.get(OBJECT) == BODY
    proxy.script = once(fault, "HeadObject")
    assert await bucket.size(OBJECT) == len(BODY)
    proxy.script = once(fault, "ListObjects")
    assert [item.size async for item in bucket.list("folders/")] == [len(BODY)]
    assert proxy.faults.total() == 4


@pytest.mark.parametrize("operation", ["HeadObject", "ListObjects", "CreateMultipartUpload", "ListParts"])
async def test_an_answer_whose_head_is_cut_short_says_nothing(
    bucket: S3Bucket, proxy: FaultProxy, operation: str, tmp_path: Path
) -> None:
    """Above all not that a listing is empty, or an object not there."""
    await bucket.put(OBJECT, [BODY])
    upload = await bucket.create_multipart_upload(OBJECT + "2")
    proxy.script = always(Reset(Moment.HEAD))
    with pytest.raises(StoreUnreachable):
        match operation:
            case "HeadObject":
                await bucket.size(OBJECT)
            case "ListObjects":
                async for _ in bucket.list("folders/"):
                    pass
            case "CreateMultipartUpload":
                await bucket.create_multipart_upload(OBJECT + "3")
            case "ListParts":
                async for _ in bucket.list_parts(OBJECT + "2", upload):
                    pass
    with pytest.raises(StoreUnreachable):
        await bucket.download_file(OBJECT, tmp_path / "file")


@pytest.mark.parametrize("moment", Moment)
async def test_a_conditional_write_whose_answer_is_lost_may_meet_itself(
    bucket: S3Bucket, proxy: FaultProxy, moment: Moment
) -> None:
    proxy.script = once(Reset(moment), "PutObject")
    if moment is Moment.UNSENT:
        # SeaweedFS 4.48 stores an object of no bytes.
        with contextlib.suppress(PreconditionFailed):
            await bucket.put(OBJECT, [BODY], if_none_match=True)
        assert await bucket.get(OBJECT) in (b"", BODY)
        return
    if moment in (Moment.BEFORE, Moment.BODY):
        await bucket.put(OBJECT, [BODY], if_none_match=True)
    else:
        with pytest.raises(PreconditionFailed):
            await bucket.put(OBJECT, [BODY], if_none_match=True)
    assert await bucket.get(OBJECT) == BODY


@pytest.mark.parametrize(
    "work",
    [
        _put_and_get,
        lambda bucket: bucket.delete(OBJECT),
        lambda bucket: bucket.create_multipart_upload(OBJECT),
    ],
)
async def test_a_store_that_is_away_cannot_be_reached_and_serves_when_it_is_back(
    bucket: S3Bucket, proxy: FaultProxy, work: Callable[[S3Bucket], Awaitable[object]]
) -> None:
    proxy.go_away()
    with pytest.raises(StoreUnreachable):
        await work(bucket)
    proxy.come_back()
    await work(bucket)


async def test_a_store_that_asks_for_a_pause_gets_fewer_requests_and_all_of_them(
    bucket: S3Bucket, proxy: FaultProxy
) -> None:
    storm = iter(range(8))
    busy = Forged(503, (("Retry-After", "1"),), b"<Error><Code>SlowDown</Code></Error>")
    proxy.script = lambda request: busy if request.operation == "PutObject" and next(storm, None) is not None else None
    limit = AdaptiveLimit(16, 32)

    async def put(number: int) -> None:
        async with limit.of("folder"):
            await bucket.put(f"{OBJECT}{number}", [BODY])

    await asyncio.gather(*map(put, range(40)))
    assert limit.backed_off >= 1 and limit.in_flight == 0
    assert proxy.faults.total() == 8 and proxy.counts["PutObject object"] == 48
    assert sorted([item.key async for item in bucket.list(OBJECT)]) == sorted(f"{OBJECT}{n}" for n in range(40))


async def test_lasting_faults(bucket: S3Bucket, proxy: FaultProxy) -> None:
    await bucket.put(OBJECT, [BODY])
    proxy.script = always(SLOW_DOWN)
    with pytest.raises(StoreUnreachable, match="503 SlowDown"):
        await bucket.get(OBJECT)
    proxy.script = store_full(Answer(403, "QuotaExceeded"))
    with pytest.raises(StoreRefused, match="full"):
        await bucket.put(OBJECT + "2", [BODY])
    with pytest.raises(StoreRefused, match="full"):
        await bucket.create_multipart_upload(OBJECT + "2")
    assert await bucket.get(OBJECT) == BODY
    proxy.script = always(Answer(507, "XMinioStorageFull"))
    with pytest.raises(StoreRefused, match="full"):
        await bucket.put(OBJECT + "2", [BODY])


async def test_throttled(bucket: S3Bucket, proxy: FaultProxy) -> None:
    proxy.bandwidth = 10 * len(BODY)
    await _put_and_get(bucket)
    assert proxy.counts["PutObject object"] == 1


async def test_a_store_that_hangs_is_given_up_after_one_timeout(seaweedfs: EmbeddedStore, proxy: FaultProxy) -> None:
    impatient = await S3Bucket.open(
        StoreLocation(seaweedfs.bucket, ""),
        proxy.url,
        S3Credentials(seaweedfs.access_key, seaweedfs.secret_key),
        settings=StoreSettings(timeout=1.0),
    )
    proxy.script = always(Delay(3600))
    try:
        with pytest.raises(StoreUnreachable):
            await impatient.get(OBJECT)
        with pytest.raises(StoreUnreachable):
            await impatient.put(OBJECT, [b"small"])
    finally:
        await impatient.close()
    assert (proxy.counts["GetObject object"], proxy.counts["PutObject object"]) == (1, 1)


async def test_a_log_goes_on_behind_an_empty_segment(bucket: S3Bucket, proxy: FaultProxy, tmp_path: Path) -> None:
    keys, states = FolderKeys.of("folder"), [FolderState(tmp_path / f"{number}.sqlite") for number in range(2)]
    writer, reader = (FolderLog(bucket, keys, state, device(1)) for state in states)
    await writer.load()
    proxy.script = once(Reset(Moment.UNSENT), "PutObject")
    await writer.append([entry(file("a"))])
    await writer.append([entry(file("b"))])
    assert proxy.faults.total() == 1
    await reader.load()
    for state in states:
        assert state.sequence == 2
        assert state.entry(encrypted_name("a")) == entry(file("a"))
        state.close()
    # SeaweedFS 4.48 keeps an empty object at the first position.
    sizes = [item.size async for item in bucket.list(keys.segments)]
    assert sizes.count(0) == len(sizes) - 2 <= 1
