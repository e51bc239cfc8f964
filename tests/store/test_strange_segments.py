"""An object in the place of a log segment that is too large to be read: a real store copies it itself."""

from __future__ import annotations

import pytest

from tests.index.gateways import KEYS
from tests.loops import one_loop
from tests.peers.s3_server import on_each_s3_server
from untrusted_s3.errors import AnswerTooLong
from untrusted_s3.index.strange_segments import keep_segment, remove_kept
from untrusted_s3.store.bucket import MAX_WHOLE_OBJECT
from untrusted_s3.store.s3 import S3Bucket


@one_loop
@pytest.mark.store
@on_each_s3_server
async def test_a_large_object_is_kept_whole(bucket: S3Bucket) -> None:
    key, end = KEYS.segment(7), b"the end"
    await bucket.put(key, [bytes(MAX_WHOLE_OBJECT), end])
    with pytest.raises(AnswerTooLong):
        await bucket.get(key)
    copy = await keep_segment(bucket, KEYS, 7, is_readable=False)
    assert copy is not None
    assert await keep_segment(bucket, KEYS, 7, is_readable=False) == copy, "the second time, it is there"
    assert await bucket.size(copy) == MAX_WHOLE_OBJECT + len(end)
    assert await bucket.get(copy, MAX_WHOLE_OBJECT - 1, 8) == b"\0" + end
    assert [upload async for upload in bucket.list_multipart_uploads(KEYS.base)] == []
    await remove_kept(bucket, KEYS, {key: copy})
    assert await bucket.size(key) is None
