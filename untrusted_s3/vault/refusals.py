"""Objects that the store refuses or fails to give one by one, and a store that refuses or fails everything."""

from __future__ import annotations

from untrusted_s3.errors import ObjectArchived, RequestRefused, StoreError, StoreUnreachable
from untrusted_s3.store.bucket import Bucket

# If the store refuses so many objects and has given none, it is taken to refuse everything.
_MOST_WITHOUT_SUCCESS = 20


class Refusals:
    """Tells objects that cannot be read from a store that cannot be read."""

    def __init__(self) -> None:
        self._refused = 0
        self._any_read = False

    def note_read(self) -> None:
        """Note that an object was read."""
        self._any_read = True

    def note(self, error: RequestRefused) -> None:
        """Note that an object was refused. Raises the error if the store seems to refuse everything."""
        if isinstance(error, ObjectArchived):
            return  # so the store does answer
        self._count(error)

    async def note_unreachable(self, error: StoreUnreachable, bucket: Bucket, other_key: str) -> None:
        """Note that an object could not be read. Raises the error if the store does not give another one either.

        `other_key` is the key of an object that the store has.
        """
        try:
            await bucket.get(other_key)
        except StoreError:
            raise error from None
        self._count(error)

    def _count(self, error: StoreError) -> None:
        self._refused += 1
        if not self._any_read and self._refused >= _MOST_WITHOUT_SUCCESS:
            raise error
