"""Old unfinished uploads are aborted, and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

from tests.simulated import SimulatedBucket
from untrusted_s3.counters import Counters
from untrusted_s3.objects.uploads import abort_old_uploads, may_be_continued
from untrusted_s3.store.bucket import MultipartUpload, UploadedPart
from untrusted_s3.units import DAY


async def test_old_uploads_below_the_prefix_are_aborted() -> None:
    bucket, counters = SimulatedBucket(), Counters()
    store = bucket.store
    for key, days in (("folders/a", 7.1), ("folders/b", 6.9), ("folders/a", 100), ("elsewhere", 100)):
        store.uploads[store.begin_upload(key)].begun = store.clock() - days * DAY
    await abort_old_uploads(bucket, "folders/", counters)
    assert [upload.key for upload in store.uploads.values()] == ["folders/b", "elsewhere"]
    assert counters.registry.get_sample_value("untrusted_s3_uploads_aborted_total") == 2


async def test_an_upload_that_is_in_use_is_kept_however_old_it_is() -> None:
    bucket = SimulatedBucket()
    store = bucket.store
    used, left = store.begin_upload("folders/used"), store.begin_upload("folders/left")
    now = store.clock()
    for upload_id, days in ((used, 6.9), (left, 7.1)):
        store.uploads[upload_id].begun = now - 100 * DAY
        store.add_part(upload_id, 1, b"1")
        store.add_part(upload_id, 2, b"2")
        store.uploads[upload_id].written = {1: now - 99 * DAY, 2: now - days * DAY}
    await abort_old_uploads(bucket, "folders/", Counters())
    assert [upload.key for upload in store.uploads.values()] == ["folders/used"]


async def test_an_upload_is_kept_if_the_store_does_not_say_how_old_its_parts_are() -> None:
    class Undated(SimulatedBucket):
        async def list_parts(self, key: str, upload_id: str) -> AsyncIterator[UploadedPart]:
            async for part in super().list_parts(key, upload_id):
                yield replace(part, age=None)

    bucket = Undated()
    used, empty = (bucket.store.begin_upload(f"folders/{name}") for name in ("used", "empty"))
    for upload_id in (used, empty):
        bucket.store.uploads[upload_id].begun -= 100 * DAY
    bucket.store.add_part(used, 1, b"1")
    await abort_old_uploads(bucket, "folders/", Counters())
    assert [upload.key for upload in bucket.store.uploads.values()] == ["folders/used"]


def test_nobody_goes_on_with_what_is_aborted_soon() -> None:
    def part(days: float | None) -> UploadedPart:
        return UploadedPart(1, 1, "etag", None if days is None else days * DAY)

    young, old = MultipartUpload("k", "1", 5 * DAY), MultipartUpload("k", "1", 100 * DAY)
    assert may_be_continued(young, [])
    assert may_be_continued(young, [part(7)])
    assert not may_be_continued(old, [])
    assert not may_be_continued(old, [part(50), part(6.1)])
    assert may_be_continued(old, [part(50), part(5.9)])
    assert may_be_continued(old, [part(None)])
