"""What credentials may delete: a gateway works with such that may delete nothing.

A thief of these can then delete nothing either (docs/keeping-a-store-healthy.md, "Against a stolen gateway"). Somebody
else, with other credentials, deletes what is not needed any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from untrusted_s3.errors import AccessDenied, DeletionDenied


class Deletions:
    """Whether a bucket's credentials may delete, as far as that is known.

    After the first denial, all deletions of that kind are denied without a request, until the process ends.

    Attributes:
        objects: Whether the store has not denied to delete an object yet.
        uploads: Whether it has not denied to abort a multipart upload yet.
    """

    def __init__(self) -> None:
        self.objects = True
        self.uploads = True

    @property
    def denied(self) -> list[str]:
        """What the store has denied: S3 operations by their names."""
        allowed = {"DeleteObject": self.objects, "AbortMultipartUpload": self.uploads}
        return [operation for operation, is_allowed in allowed.items() if not is_allowed]

    @contextlib.contextmanager
    def of_object(self, key: str) -> Iterator[None]:
        """Delete an object in the block. Raises DeletionDenied in place of AccessDenied, or at once."""
        if not self.objects:
            raise _denied(f"to delete {key}")
        try:
            yield
        except AccessDenied as error:
            self.objects = False
            raise _denied(f"to delete {key}") from error

    @contextlib.contextmanager
    def of_upload(self, key: str) -> Iterator[None]:
        """Abort an upload to a key in the block. Raises DeletionDenied in place of AccessDenied, or at once."""
        if not self.uploads:
            raise _denied(f"to abort an upload to {key}")
        try:
            yield
        except AccessDenied as error:
            self.uploads = False
            raise _denied(f"to abort an upload to {key}") from error


def _denied(what: str) -> DeletionDenied:
    return DeletionDenied(f"the store denies {what}: the credentials may not do that")


def where_allowed() -> contextlib.AbstractContextManager[None]:
    """Return a context for deletions that are only tidy: the first one that the store denies ends the block."""
    return contextlib.suppress(DeletionDenied)
