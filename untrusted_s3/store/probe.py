"""Probes: experiments that show whether a store does what gateways rely on.

Each probe deletes the objects that it writes below `probe/`, if the credentials may delete, and returns its finding as
a sentence. If the store fails, it raises a StoreError. A gateway runs `probe_conditional_writes` at every start. What
is left is deleted by `remove_old_probes`.
"""

from __future__ import annotations

import asyncio
import os
import secrets

from untrusted_s3.errors import (
    ConditionalWritesUnsupported,
    DataError,
    PreconditionFailed,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.deletions import where_allowed
from untrusted_s3.store.records import StoreRecord, read_folders, read_peers, read_record
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.store.s3_errors import clock_skew
from untrusted_s3.units import DAY, KIB, MIB

_WRITERS = 4
_ATTEMPTS = 3
_MIN_PART_SIZE = 5 * MIB  # Amazon's, for all parts but the last
_MAX_SKEW_WAITED_FOR = 10.0
_LIFETIME = DAY  # one that is older is not under way
_REMOVED_AT_ONCE = 10_000  # the next call finds the others


def _fresh_key() -> str:
    return f"{layout.PROBES}{secrets.token_hex(16)}"


async def _remove(bucket: Bucket, *keys: str) -> None:
    with where_allowed():
        for key in keys:
            await bucket.delete(key)


async def _abort(bucket: Bucket, key: str, upload_id: str) -> None:
    with where_allowed():
        await bucket.abort_multipart_upload(key, upload_id)


async def check_deletion(bucket: Bucket) -> None:
    """Raise DeletionDenied if the credentials may not delete objects. Nothing is written and nothing deleted."""
    await bucket.delete(_fresh_key())


async def remove_old_probes(bucket: Bucket, lifetime: float = _LIFETIME) -> None:
    """Delete what probes have left that were interrupted, or that were made by somebody who may not delete."""
    found = []
    async for item in bucket.list(layout.PROBES):
        found.append(item)
        if len(found) == _REMOVED_AT_ONCE:
            break
    for item in found:
        if item.age > lifetime:
            await bucket.delete(item.key)


async def probe_conditional_writes(bucket: Bucket) -> str:
    """Check that of concurrent `If-None-Match: *` PUTs to one key exactly one succeeds, and that a later one fails.

    Raises ConditionalWritesUnsupported.
    """
    for _ in range(_ATTEMPTS):
        await bucket.put(layout.PROBE_OF_RIGHTS, [b"unconditional"])  # a refusal after this is not for lack of rights
        await _remove(bucket, layout.PROBE_OF_RIGHTS)
        key = _fresh_key()
        try:
            outcomes = await asyncio.gather(*(_create(bucket, key, number) for number in range(_WRITERS)))
            winners = [number for number, won in enumerate(outcomes) if won]
            if len(winners) > 1 or await _create(bucket, key, _WRITERS):
                raise _unsupported(f"{len(winners)} of {_WRITERS} concurrent conditional writes to one key succeeded")
            if winners and await bucket.get(key) != b"%d" % winners[0]:
                raise _unsupported("the writer that won a conditional write is not the one whose data is there")
        except ConditionalWritesUnsupported:
            raise
        except StoreRefused as error:
            raise _unsupported(str(error)) from error
        finally:
            await _remove(bucket, key)
        if winners:
            return f"of {_WRITERS} concurrent writers one won"
    # A winner whose answer was lost tries again, and then meets its own object.
    raise StoreUnreachable("the store's answers to conditional writes get lost: check the network, then try again")


async def _create(bucket: Bucket, key: str, number: int) -> bool:
    try:
        await bucket.put(key, [b"%d" % number], if_none_match=True)
    except PreconditionFailed:
        return False
    return True


def _unsupported(finding: str) -> ConditionalWritesUnsupported:
    return ConditionalWritesUnsupported(
        f"the store does not keep conditional writes apart ({finding}), so two gateways could overwrite each other's"
        " log"
    )


async def probe_rights(bucket: Bucket) -> str:
    """Check that the credentials may write, read and list, and whether they may delete."""
    key, body = _fresh_key(), os.urandom(KIB)
    await bucket.put(key, [body])
    try:
        if await bucket.get(key) != body:
            raise StoreRefused("a GET returns other bytes than were written")
        if key not in [item.key async for item in bucket.list(layout.PROBES)]:
            raise StoreRefused("a listing lacks an object that was just written")
    finally:
        await _remove(bucket, key)
    if not bucket.deletions.objects:
        return "write, read, list, but not delete: others have to delete what is not needed any more"
    if await bucket.size(key) is not None:
        raise StoreRefused("an object that was deleted is still there")
    return "write, read, list, delete"


async def probe_records(bucket: Bucket) -> str:
    """Check that the store's records can be read. Raises StoreRefused, which names those that cannot."""
    try:
        await read_record(bucket, layout.STORE, StoreRecord.from_json)
    except DataError as error:
        raise StoreRefused(str(error)) from error
    folders, peers = await read_folders(bucket), await read_peers(bucket)
    if unreadable := folders.unreadable + peers.unreadable:
        raise StoreRefused("; ".join(f"{problem.path}: {problem.reason}" for problem in unreadable))
    return f"{len(folders)} folders, {len(peers)} devices"


async def probe_clock(bucket: S3Bucket) -> str:
    """Measure the difference between our clock and the store's. `S3Bucket.open` refuses too large a one."""
    skew = await _measure_skew(bucket)
    return f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the store's"


async def probe_presigned_ranges(bucket: Bucket) -> str:
    """Check that a ranged GET on a presigned URL returns exactly the range."""
    key, body = _fresh_key(), os.urandom(64 * KIB)
    await bucket.put(key, [body])
    try:
        for start, size in ((0, 1), (1000, 4096), (len(body) - 10, 10), (0, len(body))):
            if await bucket.get(key, start, size) != body[start : start + size]:
                raise StoreRefused(f"a GET of {size} bytes from {start} gives other bytes")
    finally:
        await _remove(bucket, key)
    return "exact"


async def probe_presigned_expiry(bucket: S3Bucket) -> str:
    """Check that a presigned PUT is refused after its lifetime, as rule 5 of the log needs (index/log.py).

    Takes 2 seconds.
    """
    key = _fresh_key()
    # The lifetime ends by the store's clock.
    wait = 2 + min(max(await _measure_skew(bucket), 0.0), _MAX_SKEW_WAITED_FOR)
    try:
        await bucket.put_late(key, [b"late"], 1, wait)
    except StoreUnreachable:
        raise
    except StoreError:
        return "refused after its end"
    finally:
        await _remove(bucket, key)
    raise StoreRefused(
        "a presigned PUT still works after its end, so a writer that stalled could bring old log segments back:"
        " use another store, or compare its clock with this machine's"
    )


async def probe_multipart(bucket: S3Bucket) -> str:
    """Check a multipart upload of a part that is sent and one that is copied from another object inside the store.

    The unfinished upload and its parts must be listed, so that an interrupted one can be continued.
    """
    key, source_key = _fresh_key(), _fresh_key()
    source, sent = os.urandom(_MIN_PART_SIZE + MIB), os.urandom(_MIN_PART_SIZE)
    await bucket.put(source_key, [source])
    upload_id = await bucket.create_multipart_upload(key)
    try:
        start, end = KIB, KIB + _MIN_PART_SIZE
        etags = [
            await bucket.upload_part(key, upload_id, 1, [sent]),
            await bucket.upload_part_copy(key, upload_id, 2, source_key, start, end),
        ]
        uploads = [upload.upload_id async for upload in bucket.list_multipart_uploads(key)]
        if upload_id not in uploads:
            raise StoreRefused("a listing of unfinished multipart uploads lacks one, so none can be continued")
        found = [(part.number, part.size) async for part in bucket.list_parts(key, upload_id)]
        if found != [(1, _MIN_PART_SIZE), (2, _MIN_PART_SIZE)]:
            raise StoreRefused("a listing of an upload's parts differs from what was sent, so none can be continued")
        await bucket.complete_multipart_upload(key, upload_id, etags)
        if await bucket.get(key) != sent + source[start:end]:
            raise StoreRefused("an object of two parts, one sent and one copied, has other bytes")
    finally:
        await _abort(bucket, key, upload_id)
        await _remove(bucket, key, source_key)
    return "upload, copy of a part, listings, completion"


async def probe_conditional_completion(bucket: Bucket) -> str:
    """Check that `If-None-Match: *` also holds when a multipart upload is completed.

    No data depends on it, because objects of one key hold the same content. But the encryption of each upload differs,
    so the log's checksums are those of one of them.
    """
    key = _fresh_key()
    await bucket.put(key, [b"first"])
    upload_id = await bucket.create_multipart_upload(key)
    try:
        etag = await bucket.upload_part(key, upload_id, 1, [b"second"])
        await bucket.complete_multipart_upload(key, upload_id, [etag])
    except PreconditionFailed:
        return "a completion does not replace an existing object"
    finally:
        await _abort(bucket, key, upload_id)
        await _remove(bucket, key)
    raise StoreRefused(
        "a completion replaces an existing object: no data is lost, but if two gateways finish the same large file at"
        " once, the log's checksums may be those of the other upload"
    )


async def _measure_skew(bucket: S3Bucket) -> float:
    answer = await bucket.call("list_objects_v2", MaxKeys=1)
    return clock_skew(answer["ResponseMetadata"]["HTTPHeaders"].get("date"))
