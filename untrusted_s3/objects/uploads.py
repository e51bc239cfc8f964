"""Unfinished multipart uploads: those that no gateway finishes are aborted, for they take space."""

from __future__ import annotations

import structlog

from untrusted_s3.counters import Counters
from untrusted_s3.errors import UploadLost
from untrusted_s3.store.bucket import Bucket, MultipartUpload
from untrusted_s3.store.format import UPLOAD_RETENTION
from untrusted_s3.units import DAY

_logger = structlog.get_logger()
# The next call finds the others.
_ABORTED_AT_ONCE = 10_000


async def abort_old_uploads(bucket: Bucket, prefix: str, counters: Counters) -> None:
    """Abort the uploads to keys with `prefix` that nobody has worked on for UPLOAD_RETENTION. Raises StoreError."""
    # They are listed first, because an abort would change what the next page holds.
    uploads = []
    async for upload in bucket.list_multipart_uploads(prefix):
        if upload.age > UPLOAD_RETENTION:
            uploads.append(upload)
        if len(uploads) == _ABORTED_AT_ONCE:
            break
    for upload in uploads:
        if not await _is_in_use(bucket, upload):
            await bucket.abort_multipart_upload(upload.key, upload.upload_id)
            counters.uploads_aborted.inc()
            _logger.info("old upload aborted", key=upload.key, days=round(upload.age / DAY))


async def _is_in_use(bucket: Bucket, upload: MultipartUpload) -> bool:
    """Whether the upload got a part within UPLOAD_RETENTION. False if the store does not date parts."""
    try:
        async for part in bucket.list_parts(upload.key, upload.upload_id):
            if part.age is not None and part.age <= UPLOAD_RETENTION:
                return True
    except UploadLost:
        return False
    return False
