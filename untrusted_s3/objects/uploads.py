"""Unfinished multipart uploads: those that no gateway finishes are aborted, for they take space."""

from __future__ import annotations

import structlog

from untrusted_s3.counters import Counters
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.format import UPLOAD_RETENTION
from untrusted_s3.units import DAY

_logger = structlog.get_logger()


async def abort_old_uploads(bucket: Bucket, prefix: str, counters: Counters) -> None:
    """Abort the uploads to keys with `prefix` that are older than UPLOAD_RETENTION. Raises StoreError."""
    # All pages are listed first, because an abort would change what the next page holds.
    uploads = [upload async for upload in bucket.list_multipart_uploads(prefix)]
    for upload in uploads:
        if upload.age > UPLOAD_RETENTION:
            await bucket.abort_multipart_upload(upload.key, upload.upload_id)
            counters.uploads_aborted.inc()
            _logger.info("old upload aborted", key=upload.key, days=round(upload.age / DAY))
