"""Which of the versions that peers announce under one name comes first.

The newest one does, for the others are out of date. But a version that may never come must not keep another one out:

- Nobody can check what untrusted devices announce. A version of a connected trusted device comes before theirs, unless
  it has failed some times.
- A version that could not be pulled keeps no older one waiting: one of an untrusted device from its first failure on,
  one of a trusted device after some failures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from untrusted_s3.bep.vector import is_newer
from untrusted_s3.index.pending import Pending, PendingIndex
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.claiming import Claiming
from untrusted_s3.sync.failures import Failures
from untrusted_s3.sync.sources import Sources


class Precedence:
    """The order of the pending versions of each name of a folder."""

    def __init__(
        self, claiming: Claiming, pending: PendingIndex, sources: Sources, failures: Failures, settings: SyncSettings
    ) -> None:
        self._claiming = claiming
        self._pending = pending
        self._sources = sources
        self._failures = failures
        self._settings = settings

    def is_wanted(self, entry: Pending) -> bool:
        """Return whether an entry is new to the folder."""
        return self._claiming.is_new(entry)

    def is_outdated(self, entry: Pending) -> bool:
        """Return whether a connected peer announces a newer version that is worth waiting for."""
        return any(True for _ in self._newer(entry))

    def comes_later(self, entry: Pending) -> bool:
        """Return whether another entry of the name is to be brought in before this one, or instead of it.

        Or its device may still take over what the folder has.
        """
        if self._claiming.has_to_wait(entry):
            return True
        if len(self._sources.connected) < 2:
            return False
        return self.is_outdated(entry) or self._gives_way(entry)

    def is_superseded(self, entry: Pending) -> bool:
        """Return whether the content of an entry is not to be brought in now.

        Another gateway may have brought in this version or a newer one, a connected peer announces newer content, or a
        trusted device's version comes first.
        """
        if not self.is_wanted(entry) or self._gives_way(entry):
            return True
        return any(other.content_hash != entry.content_hash for other in self._newer(entry))

    def _newer(self, entry: Pending) -> Iterator[Pending]:
        for other in self._pending.of_name(entry.name_hash):
            if (
                other.version != entry.version
                and other.device_id in self._sources.connected
                and is_newer(other.vector, entry.vector)
                and not self._may_never_come(other, entry)
            ):
                yield other

    def _may_never_come(self, newer: Pending, entry: Pending) -> bool:
        trusted = self._sources.is_trusted(newer.device_id)
        if self._sources.is_trusted(entry.device_id) and not trusted:
            return True
        most = self._settings.tries_before_older if trusted else 1
        return self._failures.tries(newer) >= most and self._waits(newer)

    def is_preferred(self, entry: Pending) -> bool:
        """Return whether an entry comes before those of untrusted devices: it is one of a connected trusted device."""
        return (
            entry.device_id in self._sources.connected
            and self._sources.is_trusted(entry.device_id)
            and self._failures.tries(entry) < self._settings.tries_before_older
            and not self._waits(entry)
        )

    def _gives_way(self, entry: Pending) -> bool:
        """Return whether an untrusted device's entry comes after one of a connected trusted device."""
        return not self._sources.is_trusted(entry.device_id) and any(
            self.is_preferred(other) and self.is_wanted(other) for other in self._pending.of_name(entry.name_hash)
        )

    def _waits(self, entry: Pending) -> bool:
        return self._failures.waits(entry, asyncio.get_running_loop().time())
