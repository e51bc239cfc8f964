"""Old unfinished uploads are aborted, and no others."""

from __future__ import annotations

from tests.simulated import SimulatedBucket
from untrusted_s3.counters import Counters
from untrusted_s3.objects.uploads import abort_old_uploads
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
