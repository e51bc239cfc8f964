"""The control plane: S3 operations by boto3, which carry no object data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from untrusted_s3.errors import StoreError, StoreRefused, StoreUnreachable
from untrusted_s3.store.pages import MAX_TEXT_LENGTH
from untrusted_s3.store.s3_errors import translate
from untrusted_s3.threads import in_thread

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# A field that every complete answer has. boto3 takes an answer whose head is cut short for one that says nothing: for
# example an empty listing.
_ALWAYS_THERE: Mapping[str, str] = {
    "head_object": "ContentLength",
    "list_objects_v2": "IsTruncated",
    "list_multipart_uploads": "IsTruncated",
    "list_parts": "IsTruncated",
    "create_multipart_upload": "UploadId",
    "upload_part_copy": "CopyPartResult",
    "complete_multipart_upload": "ETag",
}


class ControlPlane:
    """Operations on one bucket. `requests` counts the requests that are sent, by operation."""

    def __init__(self, client: S3Client, bucket: str, requests: Counter[str]) -> None:
        self._client = client
        self._bucket = bucket
        self._requests = requests

    async def call(self, operation: str, **parameters: Any) -> dict[str, Any]:
        """Send one S3 operation once and return the answer. Raises StoreError."""
        self._requests[operation] += 1
        what = f"{operation} {parameters.get('Key', self._bucket)}"
        try:
            answer = await in_thread(getattr(self._client, operation), Bucket=self._bucket, **parameters)
        except StoreError:
            raise
        except Exception as error:  # an answer that boto3 cannot parse makes it raise almost anything
            raise translate(error, what) from None  # its text can contain anything that the store has sent
        complete_answer(answer, operation, what)
        return dict(answer)


def complete_answer(answer: Mapping[str, Any], operation: str, what: str) -> None:
    """Raise StoreUnreachable if boto3's answer to an operation was cut short."""
    if _ALWAYS_THERE.get(operation, "ResponseMetadata") not in answer:
        raise StoreUnreachable(f"the store's answer to {what} is cut short")


def required(answer: Mapping[str, Any], name: str, what: str) -> str:
    """Return a text of an answer. Raises StoreRefused if it is missing, empty or too long."""
    value = answer.get(name)
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_TEXT_LENGTH:
        raise StoreRefused(f"the store's answer to {what} lacks its {name}")
    return value
