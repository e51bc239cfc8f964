"""Pauses for all pulls of a folder while the store fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from untrusted_s3.index.pending import Pending
from untrusted_s3.settings import SyncSettings


class StoreTrouble:
    """What the pulls of one folder tell of the store.

    Attributes:
        present: Whether the store is in trouble. Nothing begins before its next try: other files would fail as well,
            and peers would send their blocks in vain.
    """

    def __init__(self, settings: SyncSettings, on_retry: Callable[[int], None]) -> None:
        """`on_retry` is called when the store is tried again, with how many files wait for that."""
        self.present = False
        self._settings = settings
        self._on_retry = on_retry
        # By name hash, the versions that wait for the next try.
        self._failed: dict[bytes, bytes] = {}
        self._failures_in_a_row = 0
        self._retry: asyncio.TimerHandle | None = None
        # By name hash, for what failed because of the store: how many pulls had succeeded by then.
        self._succeeded_before: dict[bytes, int] = {}
        self._succeeded = 0

    @property
    def awaits_retry(self) -> bool:
        """Whether a try of the store is due."""
        return self._retry is not None

    def keeps(self, entry: Pending) -> bool:
        """Return whether an entry waits for the next try."""
        return self._failed.get(entry.name_hash) == entry.version

    def succeeded(self, entry: Pending) -> bool:
        """Note that a pull has succeeded. Return whether that ends a trouble."""
        self._succeeded += 1
        self._succeeded_before.pop(entry.name_hash, None)
        self._failures_in_a_row = 0
        before, self.present = self.present, False
        return before

    def concerns_only(self, entry: Pending) -> bool:
        """Note a failure of the store, and return whether it has taken others since this file failed before.

        Then it is no trouble of the store: the file has pauses of its own, and stops nothing else.
        """
        before = self._succeeded_before.pop(entry.name_hash, self._succeeded)
        if len(self._succeeded_before) >= self._settings.kept_failures:
            self._succeeded_before.clear()
        self._succeeded_before[entry.name_hash] = self._succeeded
        return self._succeeded > before

    def begin(self, entry: Pending) -> None:
        """Note that the store is in trouble: an entry has failed because of it. It is tried again after a pause."""
        self._failed[entry.name_hash] = entry.version
        self.present = True
        if self._retry is None:
            delay = self._settings.pull_retry_interval * 2 ** min(self._failures_in_a_row, 30)
            self._failures_in_a_row += 1
            delay = min(delay, self._settings.max_pull_retry_interval)
            self._retry = asyncio.get_running_loop().call_later(delay, self._try_again)

    def _try_again(self) -> None:
        self._retry = None
        self.present = False
        files = len(self._failed)
        self._failed.clear()
        self._on_retry(files)

    def forget(self) -> None:
        """Forget the trouble: nothing is pulled any more."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._failed.clear()
        self.present = False
