"""What credentials may delete: a gateway works with such that may delete nothing.

A thief of these can then delete nothing either (docs/keeping-a-store-healthy.md, "Against a stolen gateway"). Somebody
else, with other credentials, deletes what is not needed any more.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Final

from untrusted_s3.errors import AccessDenied, DeletionDenied

_DELETE: Final = "DeleteObject"
_ABORT: Final = "AbortMultipartUpload"


class Deletions:
    """Whether a bucket's credentials may delete, as far as that is known.

    After the first denial, all deletions of that kind are denied without a request, until the process ends.
    """

    def __init__(self) -> None:
        self._denied: set[str] = set()

    @property
    def objects(self) -> bool:
        """Whether the store has not denied to delete an object yet."""
        return _DELETE not in self._denied

    @property
    def uploads(self) -> bool:
        """Whether it has not denied to abort a multipart upload yet."""
        return _ABORT not in self._denied

    @property
    def denied(self) -> list[str]:
        """What the store has denied: S3 operations by their names."""
        return [operation for operation in (_DELETE, _ABORT) if operation in self._denied]

    def of_object(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Delete an object in the block. Raises DeletionDenied in place of AccessDenied, or at once."""
        return self._asked(_DELETE, f"to delete {key}")

    def of_upload(self, key: str) -> contextlib.AbstractContextManager[None]:
        """Abort an upload to a key in the block. Raises DeletionDenied in place of AccessDenied, or at once."""
        return self._asked(_ABORT, f"to abort an upload to {key}")

    @contextlib.contextmanager
    def _asked(self, operation: str, what: str) -> Iterator[None]:
        text = f"the store denies {what}: the credentials may not do that"
        if operation in self._denied:
            raise DeletionDenied(text)
        try:
            yield
        except AccessDenied as error:
            self._denied.add(operation)
            raise DeletionDenied(text) from error


def where_allowed() -> contextlib.AbstractContextManager[None]:
    """Return a context for deletions that are only tidy: the first one that the store denies ends the block."""
    return contextlib.suppress(DeletionDenied)
