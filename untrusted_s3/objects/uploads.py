"""Unfinished multipart uploads: those on which nobody works any more are aborted, for they take space.

An upload is in use as long as parts come. So one that takes months is never aborted. Nobody goes on with an upload that
has got no part for UPLOAD_CONTINUATION, and none is aborted before it has got none for UPLOAD_RETENTION, which is a day
longer: a gateway that goes on with one has a day for the first part.
"""

from __future__ import annotations

import structlog

from untrusted_s3.counters import Counters
from untrusted_s3.errors import UploadLost
from untrusted_s3.store.bucket import Bucket, MultipartUpload, UploadedPart
from untrusted_s3.store.format import UPLOAD_CONTINUATION, UPLOAD_RETENTION
from untrusted_s3.units import DAY

_logger = structlog.get_logger()
# The next call finds the others.
_ABORTED_AT_ONCE = 10_000


async def abort_old_uploads(
    bucket: Bucket, prefix: str, counters: Counters, retention: float = UPLOAD_RETENTION
) -> int:
    """Abort the uploads to keys with `prefix` that have got no part for so many seconds, and return how many.

    Raises StoreError. One with parts of which the store does not say how old they are may be in use, and stays.
    """
    # They are listed first, because an abort would change what the next page holds.
    uploads = []
    async for upload in bucket.list_multipart_uploads(prefix):
        if upload.age > retention:
            uploads.append(upload)
        if len(uploads) == _ABORTED_AT_ONCE:
            break
    count = 0
    for upload in uploads:
        if not await _is_in_use(bucket, upload, retention):
            await bucket.abort_multipart_upload(upload.key, upload.upload_id)
            count += 1
            counters.uploads_aborted.inc()
            _logger.info("old upload aborted", key=upload.key, days=round(upload.age / DAY))
    return count


async def _is_in_use(bucket: Bucket, upload: MultipartUpload, retention: float) -> bool:
    try:
        async for part in bucket.list_parts(upload.key, upload.upload_id):
            if part.age is None or part.age <= retention:
                return True
    except UploadLost:
        return False
    return False


def may_be_continued(upload: MultipartUpload, parts: list[UploadedPart]) -> bool:
    """Return whether somebody who finds an upload with these parts may go on with it."""
    ages = [part.age for part in parts]
    return min([upload.age, *(age for age in ages if age is not None)]) <= UPLOAD_CONTINUATION or None in ages
