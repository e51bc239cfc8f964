"""Errors and dates in the answers of S3 servers, as this program's errors and ages."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from untrusted_s3.errors import (
    AccessDenied,
    AnswerTooShort,
    ChecksumWanted,
    CredentialsRefused,
    NoSuchBucket,
    NoSuchKey,
    ObjectArchived,
    OperationUnsupported,
    PreconditionFailed,
    RequestRefused,
    StoreBusy,
    StoreError,
    StoreRefused,
    StoreUnreachable,
    UploadLost,
)
from untrusted_s3.store.answers import plain_code, unreachable
from untrusted_s3.store.format import MAX_CLOCK_SKEW

_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "TokenRefreshRequired"}
_FULL = {"QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "StorageFull"}  # Ceph, MinIO and others
# Among other things. The first is Amazon's for writes where objects are locked by default.
_CHECKSUM_WANTED = {"InvalidRequest", "MissingContentMD5"}
_UPLOAD_LOST = {"NoSuchUpload", "InvalidPart", "InvalidPartOrder"}
_SECONDS = re.compile(r"[0-9]{1,6}")
_BUSY = {429, 503}
_RETRYABLE = {408, 425, 500, 502, 504}


def translate(error: Exception, what: str) -> StoreError:
    """Return our error for one of botocore; `what` names the request, such as "PUT folders/f/log/1".

    No text of botocore gets into the message, because it can hold whatever the store has sent.
    """
    if isinstance(error, Boto3Error) and isinstance(error.__context__, Exception):
        error = error.__context__  # boto3's transfers wrap the real one
    if isinstance(error, ClientError):
        metadata = error.response.get("ResponseMetadata", {})
        code = plain_code(error.response.get("Error", {}).get("Code", ""))
        pause = pause_wanted(metadata.get("HTTPHeaders", {}).get("retry-after"))
        return refusal(int(metadata.get("HTTPStatusCode", 0)), code, what, pause)
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return CredentialsRefused(
            "no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws (AWS_PROFILE)"
        )
    if isinstance(error, ProfileNotFound):
        return StoreRefused(f"{error}: check AWS_PROFILE")
    if isinstance(error, BotoCoreError) and not isinstance(error, HTTPClientError | ConnectionError):
        return StoreRefused(f"{what} cannot be sent: {type(error).__name__}")
    if isinstance(error, BotoCoreError | Boto3Error | OSError):
        return unreachable(what, error)
    return StoreUnreachable(f"the store's answer to {what} cannot be parsed ({type(error).__name__})")


def refusal(status: int, code: str, what: str, pause: float = 0.0) -> StoreError:
    """Return our error for an answer with an HTTP status from 300 up and an S3 error code, which may be empty.

    `pause` is for how many seconds the store wants no requests.
    """
    if status == 412 or (status == 409 and code in ("", "ConditionalRequestConflict", "OperationAborted")):
        return PreconditionFailed(f"{what}: the key is taken")
    if code == "NoSuchBucket":
        return NoSuchBucket("the bucket does not exist")
    if code in _UPLOAD_LOST:
        return UploadLost(f"{what}: the multipart upload is gone, or was changed by another writer ({code})")
    if status == 404:
        return NoSuchKey(f"{what}: no such object")
    if status == 416:
        return AnswerTooShort(f"{what}: the object is shorter than the range that was asked for")
    if status == 507 or code in _FULL:
        return StoreRefused(f"the store is full ({code or status}, at {what}): make room, or raise its quota")
    if code == "RequestTimeTooSkewed":
        return StoreRefused("the store refuses the time of this machine: set its clock (NTP)")
    if code in _CREDENTIALS or status == 401:
        return CredentialsRefused(
            f"the store does not accept the credentials ({code}): check the access key and its secret"
        )
    if code == "InvalidObjectState":
        return ObjectArchived(
            f"{what}: the object is in an archive storage class, such as Glacier; restore it in the store to read it"
        )
    if code.startswith("KMS"):
        return RequestRefused(f"the store denies {what} ({code}): the key with which it encrypted this is not usable")
    if status == 403:
        return AccessDenied(f"the store denies {what} ({code or 403}): the credentials lack a right, or are wrong")
    if status == 501:
        return OperationUnsupported(f"the store does not implement {what} ({code or 501})")
    if status in _BUSY:
        return StoreBusy(f"the store answered {status} {code} to {what}", pause)
    if status in _RETRYABLE:
        return StoreUnreachable(f"the store answered {status} {code} to {what}")
    if status == 400 and code in _CHECKSUM_WANTED:
        return ChecksumWanted(f"the store answered {status} {code} to {what}")
    return StoreRefused(f"the store answered {status} {code} to {what}")


def pause_wanted(retry_after: str | None) -> float:
    """Return the seconds of a `Retry-After` header; 0 if it is missing, invalid or a date."""
    return float(retry_after) if retry_after is not None and _SECONDS.fullmatch(retry_after) else 0.0


def parse_date(date_header: str | None) -> datetime | None:
    """Return the moment in a `Date` header, or None if that is missing or invalid."""
    try:
        date = parsedate_to_datetime(date_header or "")
    except (ValueError, TypeError, OverflowError):
        return None
    return _aware(date)


def _aware(time: datetime) -> datetime:
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def age_at(now: datetime | None, modified: datetime | None) -> float:
    """Return the age in seconds of an object that was modified at a time. `now` is the `Date` of the same answer.

    It is 0 if either is missing or invalid, so that nothing seems old by mistake.
    """
    if now is None or modified is None:
        return 0.0
    try:
        return (now - _aware(modified)).total_seconds()
    except (ValueError, OverflowError):  # botocore takes a time zone of more than a day
        return 0.0


def clock_skew(date_header: str | None, now: datetime | None = None) -> float:
    """Return by how many seconds our clock is ahead of the store's `Date` header; 0 if that is missing or invalid."""
    theirs = parse_date(date_header)
    return ((now or datetime.now(UTC)) - theirs).total_seconds() if theirs is not None else 0.0


def check_clock(date_header: str | None, now: datetime | None = None) -> None:
    """Raise StoreRefused if the store's `Date` header and our clock are more than MAX_CLOCK_SKEW apart.

    Signatures carry our time and presigned URLs expire by the store's, so a wrong clock breaks both.
    """
    skew = clock_skew(date_header, now)
    if abs(skew) > MAX_CLOCK_SKEW:
        direction = "ahead of" if skew > 0 else "behind"
        raise StoreRefused(
            f"this machine's clock is {abs(skew) / 60:.0f} minutes {direction} the store's: set it (NTP), "
            "signed requests depend on it"
        )
