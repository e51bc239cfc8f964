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
