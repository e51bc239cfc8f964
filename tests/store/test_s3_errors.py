"""What answers of a store mean to the user."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import format_datetime

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, ParamValidationError
from botocore.parsers import ResponseParserError

from untrusted_s3.errors import (
    AccessDenied,
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
from untrusted_s3.store.s3_errors import age_at, check_clock, clock_skew, parse_date, refusal, translate

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "code", "kind", "message"),
    [
        (404, "NoSuchBucket", NoSuchBucket, "does not exist"),
        (404, "NoSuchKey", NoSuchKey, "no such object"),
        (404, "", NoSuchKey, "no such object"),
        (404, "NoSuchUpload", UploadLost, "another writer"),
        (400, "InvalidPart", UploadLost, "another writer"),
        (412, "PreconditionFailed", PreconditionFailed, "taken"),
        (409, "ConditionalRequestConflict", PreconditionFailed, "taken"),
        (409, "BucketNotEmpty", StoreRefused, "409"),
        (403, "RequestTimeTooSkewed", StoreRefused, "clock"),
        (403, "SignatureDoesNotMatch", CredentialsRefused, "access key and its secret"),
        (401, "", CredentialsRefused, "credentials"),
        (403, "AccessDenied", AccessDenied, "lack a right"),
        (403, "InvalidObjectState", ObjectArchived, "archive storage class"),
        (400, "KMS.DisabledException", RequestRefused, "not usable"),
        (403, "QuotaExceeded", StoreRefused, "full"),
        (507, "XMinioStorageFull", StoreRefused, "full"),
        (507, "", StoreRefused, "full"),
        (501, "NotImplemented", OperationUnsupported, "does not implement"),
        (503, "SlowDown", StoreBusy, "503"),
        (500, "", StoreUnreachable, "500"),
    ],
)
def test_refusals(status: int, code: str, kind: type[StoreError], message: str) -> None:
    error = refusal(status, code, "PUT k")
    assert type(error) is kind
    assert message in str(error)


def test_botocore_errors() -> None:
    refused = ClientError({"Error": {"Code": "NoSuchBucket"}, "ResponseMetadata": {"HTTPStatusCode": 404}}, "op")  # type: ignore[typeddict-item]
    assert type(translate(refused, "op")) is NoSuchBucket
    unreachable = EndpointConnectionError(endpoint_url="http://127.0.0.1:9")
    assert type(translate(unreachable, "op")) is StoreUnreachable
    assert "AWS_ACCESS_KEY_ID" in str(translate(NoCredentialsError(), "op"))
    assert type(translate(ParamValidationError(report="bad"), "op")) is StoreRefused
    assert type(translate(ConnectionResetError("reset"), "op")) is StoreUnreachable


def test_what_a_transfer_wraps_is_unwrapped() -> None:
    try:
        try:
            raise ClientError({"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "op")  # type: ignore[typeddict-item]
        except ClientError:
            raise S3UploadFailedError("failed") from None
    except S3UploadFailedError as error:
        assert type(translate(error, "upload_file")) is AccessDenied


@pytest.mark.parametrize(
    ("ahead", "message"),
    [
        (timedelta(hours=1), "60 minutes ahead"),
        (timedelta(hours=-1), "60 minutes behind"),
        (timedelta(seconds=301), "5 minutes ahead"),
    ],
)
def test_a_clock_that_is_off_is_refused(ahead: timedelta, message: str) -> None:
    with pytest.raises(StoreRefused, match=message):
        check_clock(format_datetime(NOW, usegmt=True), NOW + ahead)


@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(seconds=300), timedelta(seconds=-300)])
def test_a_clock_that_is_nearly_right_is_fine(ahead: timedelta) -> None:
    check_clock(format_datetime(NOW, usegmt=True), NOW + ahead)


def test_dates_without_a_zone_and_texts_that_are_no_dates() -> None:
    assert clock_skew("Sun, 01 Mar 2026 11:59:50 -0000", NOW) == 10
    assert clock_skew("yesterday", NOW) == clock_skew(None, NOW) == 0
    assert clock_skew("Thu, 01 Jan 2026 00:00:00 +99999999999999999999", NOW) == 0
    assert clock_skew("Thu, 01 Jan 99999999999999999999 00:00:00 GMT", NOW) == 0


class FarAway(tzinfo):
    """A time zone of more than a day, which dateutil makes of some texts."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(hours=41)

    def dst(self, when: datetime | None) -> timedelta | None:
        return None

    def tzname(self, when: datetime | None) -> str | None:
        return None


def test_the_age_of_a_time_in_an_impossible_zone() -> None:
    assert age_at(NOW, datetime(2026, 3, 1, 11, 0, 0, tzinfo=FarAway())) == 0


def test_ages_of_times_without_a_zone() -> None:
    modified = datetime(2026, 3, 1, 11, 0, 0)
    assert age_at(NOW, modified) == age_at(NOW, modified.replace(tzinfo=UTC)) == 3600
    assert age_at(NOW, None) == age_at(parse_date("yesterday"), modified) == 0


def test_what_boto3_raises_for_an_answer_that_it_cannot_parse() -> None:
    for error in (ValueError("a"), RuntimeError("b"), ResponseParserError("c"), KeyError("d"), OverflowError("e")):
        found = translate(error, "op")
        assert type(found) is StoreUnreachable
        assert "cannot be parsed" in str(found)
