"""Credentials that are fetched again when the store refuses them: expired or revoked ones may have successors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from botocore.credentials import Credentials, ReadOnlyCredentials
from botocore.exceptions import BotoCoreError

RENEWAL_INTERVAL = 5.0


class RenewableCredentials(Credentials):
    """Credentials, and where fresh ones come from. Threads may share them.

    Attributes:
        generation: How often they were replaced.
    """

    def __init__(
        self,
        first: Credentials,
        load: Callable[[], Credentials | None],
        interval: float = RENEWAL_INTERVAL,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`load` is called at most once in `interval` seconds."""
        frozen = first.get_frozen_credentials()
        super().__init__(frozen.access_key or "", frozen.secret_key or "", frozen.token)
        self.generation = 0
        self._current = first
        self._load = load
        self._interval = interval
        self._clock = clock
        self._loaded: float | None = None
        self._lock = threading.Lock()

    def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """Return what to sign with now."""
        return self._current.get_frozen_credentials()

    def renew(self, used: int) -> bool:
        """Fetch fresh credentials, because those of generation `used` were refused. May block.

        Return whether there are other ones than those that were used.
        """
        with self._lock:
            if self.generation != used:
                return True
            now = self._clock()
            if self._loaded is not None and now - self._loaded < self._interval:
                return False
            self._loaded = now
            try:
                fresh = self._load()
                if fresh is None or fresh.get_frozen_credentials() == self.get_frozen_credentials():
                    return False
            except (BotoCoreError, OSError):
                return False
            self._current = fresh
            self.generation += 1
            return True


class FixedResolver:
    """Gives botocore the same credentials whenever it looks for some."""

    def __init__(self, credentials: Credentials) -> None:
        self._credentials = credentials

    def load_credentials(self) -> Credentials:
        """Return the credentials."""
        return self._credentials
