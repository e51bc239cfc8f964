"""The files of a folder that could not be pulled, and when each is tried again."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.index.pending import Pending
from untrusted_s3.settings import SyncSettings

_NOW = float("-inf")


@dataclass(slots=True)
class Failure:
    """A version of a file that could not be pulled.

    Attributes:
        name: The encrypted name.
        version: The serialized version vector.
        devices: Those that announced this version and could be asked. When another one can, it is tried at once.
        error: Why it failed last.
        tries: How often in a row.
        due: When it may be tried again.
    """

    name: str
    version: bytes
    devices: frozenset[DeviceID]
    error: Exception
    tries: int
    due: float


class Failures:
    """The failed pulls of a folder, by name hash and version. The pause before the next try doubles with each failure,
    up to `max_failure_interval` where no peer gives it, else up to `max_pull_retry_interval`.

    The number of failures that are kept is bounded. When there are more, those that are forgotten are tried again
    whenever others are, and the pauses of all new ones grow from one time to the next.

    Attributes:
        next_due: When `release` is to be called, or None when nothing waits.
    """

    def __init__(self, settings: SyncSettings) -> None:
        self._settings = settings
        self._failures: dict[tuple[bytes, bytes], Failure] = {}
        self._versions: dict[bytes, set[bytes]] = {}
        self._least_tries = 0
        self._forgotten = False
        self.next_due: float | None = None

    def __len__(self) -> int:
        """Return the number of files."""
        return len(self._versions)

    def __iter__(self) -> Iterator[Failure]:
        return iter(self._failures.values())

    def add(self, entry: Pending, name: str, devices: Collection[DeviceID], error: Exception, now: float) -> None:
        """Note that a pull has failed. `devices` are those that were asked for the version."""
        key = entry.name_hash, entry.version
        known = self._failures.pop(key, None)
        tries = known.tries if known is not None and entry.device_id in known.devices else 0
        tries = max(tries, self._least_tries) + 1
        # Not 2**tries, which may become too large for a float.
        settings = self._settings
        peers_failed = isinstance(error, BlockUnavailable)
        longest = settings.max_failure_interval if peers_failed else settings.max_pull_retry_interval
        pause = settings.pull_retry_interval
        for _ in range(tries - 1):
            if pause >= longest:
                break
            pause = min(2 * pause, longest)
        due = now + pause
        self._failures[key] = Failure(name, entry.version, frozenset(devices), error, tries, due)
        self._versions.setdefault(entry.name_hash, set()).add(entry.version)
        if len(self._failures) > self._settings.kept_failures:
            self.drop(*next(iter(self._failures)))
            self._forgotten = True
        self.next_due = due if self.next_due is None else min(self.next_due, due)

    def waits(self, entry: Pending, now: float) -> bool:
        """Return whether a version has failed and may not be tried again yet."""
        failure = self._failures.get((entry.name_hash, entry.version))
        return failure is not None and entry.device_id in failure.devices and failure.due > now

    def tries(self, entry: Pending) -> int:
        """Return how often a version has failed in a row."""
        failure = self._failures.get((entry.name_hash, entry.version))
        return failure.tries if failure is not None and entry.device_id in failure.devices else 0

    def release(self, now: float) -> list[bytes]:
        """Let those be tried again that are due now or soon after. Return their name hashes."""
        soon = now + self._settings.pull_retry_interval
        released = []
        for (key, _), failure in self._failures.items():
            if _NOW < failure.due <= soon:
                failure.due = _NOW
                released.append(key)
        self._least_tries = self._least_tries + 1 if self._forgotten else 0
        self._forgotten = False
        self.next_due = min((failure.due for failure in self if failure.due > _NOW), default=None)
        return released

    def release_all(self) -> None:
        """Let all be tried again once. Their pauses go on growing if they fail."""
        for failure in self:
            failure.due = _NOW
        self.next_due = None

    def drop(self, key: bytes, version: bytes) -> None:
        """Forget the failures of a version of a name."""
        if self._failures.pop((key, version), None) is not None:
            versions = self._versions[key]
            versions.remove(version)
            if not versions:
                del self._versions[key]

    def keep(self, key: bytes, versions: Collection[bytes]) -> None:
        """Forget the failures of all other versions of a name."""
        for version in self._versions.get(key, set()).difference(versions):
            self.drop(key, version)

    def clear(self) -> None:
        """Forget everything."""
        self._failures.clear()
        self._versions.clear()
        self._least_tries = 0
        self._forgotten = False
        self.next_due = None
