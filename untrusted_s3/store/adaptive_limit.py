"""How many requests of one kind are under way at once: more where that makes the store give more, fewer where not.

The right number follows from the distance and the load of the store: 16 at a time keep a near store busy, and get 400
small objects a second from one that is 40 ms away. So a limit learns from how long requests take:

1. The *slowdown* of a request is how many times as long it took as the fastest one of about its size within the last
   minutes. As long as requests are not slowed down, more of them at once move more: the limit grows.
2. Where they wait for one another, in the store, on the way, or for this program's own processor, they take longer in
   proportion, and nothing is gained: the limit shrinks, but not below `least`.
3. A store that says that it is asked too much (429, 503 SlowDown), or does not answer in time, has the limit halved, to
   1 if need be. Until the end of the pause that it asks for, nothing begins.

The rule for 1 and 2 is that of the gradient limits in Netflix's concurrency-limits, which is TCP Vegas without its need
for an exact queue; for 3 it is AIMD's. As in TCP BBR, the fastest time is measured again now and then with few requests
under way, because under steady load the time of a loaded store would come to pass for it.
"""

from __future__ import annotations

import asyncio
import math
import resource
import statistics
from collections import Counter, deque
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from typing import Any, Final

import structlog

_logger = structlog.get_logger()

# Requests that take so many times as long as the fastest are no reason to have fewer at once.
_TOLERANCE: Final = 2.0
# Up to this slowdown the limit grows fast, as long as it has not met its bound yet.
_PLENTY: Final = 1.3
_FAST_GROWTH: Final = 1.5
_STRONGEST_CUT: Final = 0.5
_REFUSED_CUT: Final = 0.5
# The slowdown is judged by the median of so many requests at least.
_LEAST_SAMPLES: Final = 8
# How long the fastest times count, at least; at most twice that.
_BASE_LIFETIME: Final = 60.0
# With which part of `least` they are measured again, by how many answers each, and how long that takes at most.
_PROBE_SHARE: Final = 4
_PROBE_ROUNDS: Final = 2
_PROBE_SECONDS: Final = 1.0
# The longest pause that a store can ask for.
_LONGEST_PAUSE: Final = 30.0
_LOG_INTERVAL: Final = 60.0
# One limit may use this part of the files that the process may open.
_SHARE_OF_FILES: Final = 8


class AdaptiveLimit:
    """A limit that several owners share, such as the folders of a gateway.

    A free place goes to the owner that has the fewest requests under way, and of equal ones to the one that waits
    longest. For use within one event loop, whose clock it reads.

    Attributes:
        name: What the requests are for.
        least: The limit at the start, and the least unless the store refuses.
        most: The highest limit.
        in_flight: How many requests are under way.
        on_change: Called when more may begin, or fewer than before.
        backed_off: How often the limit was cut because the store refused or did not answer in time.
    """

    def __init__(self, least: int, most: int, name: str = "requests") -> None:
        """`name` is for the log. `most` is lowered to a part of the files that may be open, not below `least`."""
        self.name = name
        self.least = least
        self.most = max(least, min(most, _open_files() // _SHARE_OF_FILES))
        self.in_flight = 0
        self.backed_off = 0
        self.on_change: Callable[[], object] = lambda: None
        self._limit = float(least)
        self._grows_fast = True
        self._slowdowns: list[float] = []
        self._was_full = False
        self._base = _FastestTimes()
        self._cut_at = -math.inf
        self._resumes_at = -math.inf
        self._logged_at = -math.inf
        self._probe: _Probe | None = None
        self._held: Counter[Hashable] = Counter()
        self._waiting: dict[Hashable, deque[asyncio.Future[None]]] = {}

    @property
    def limit(self) -> int:
        """How many requests may be under way now."""
        return int(self._limit)

    @property
    def has_room(self) -> bool:
        """Whether another request may begin at once."""
        return not self._waiting and self._admits()

    def of(self, owner: Hashable) -> Places:
        """Return the places of an owner."""
        return Places(self, owner)

    def status(self) -> dict[str, Any]:
        """Return the JSON of the limit, as docs/http.md has it."""
        return {"limit": self.limit, "under_way": self.in_flight, "backed_off": self.backed_off}

    # What is under way

    async def acquire(self, owner: Hashable) -> None:
        """Wait until another request may begin."""
        if self.has_room:
            self._begin(owner)
            return
        granted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner, deque()).append(granted)
        self._was_full = True
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self.release(owner)
            elif (queue := self._waiting.get(owner)) is not None and granted in queue:
                queue.remove(granted)
                if not queue:
                    del self._waiting[owner]
            raise

    def release(self, owner: Hashable) -> None:
        """Note that a request has ended."""
        self.in_flight -= 1
        self._held[owner] -= 1
        if not self._held[owner]:
            del self._held[owner]
        self._grant()

    def _begin(self, owner: Hashable) -> None:
        self.in_flight += 1
        self._held[owner] += 1
        if self.in_flight >= self.limit:
            self._was_full = True

    def _admits(self) -> bool:
        now = _now()
        if now < self._resumes_at:
            return False
        allowed = self.limit if self._probe is None else min(self.limit, self._probe.allowed)
        return self.in_flight < allowed

    def _grant(self) -> None:
        while self._waiting and self._admits():
            owner = min(self._waiting, key=self._held.__getitem__)  # the first of equal ones
            queue = self._waiting.pop(owner)
            granted = queue.popleft()
            if queue:
                self._waiting[owner] = queue  # behind the others
            if not granted.cancelled():
                self._begin(owner)
                granted.set_result(None)

    # What the store tells

    def answered(self, size: int, began: float) -> None:
        """Note that the store has answered a request that moved `size` bytes and began at a time of the loop."""
        now = _now()
        seconds = max(now - began, 1e-6)
        if self._base.note(size, seconds, now):
            self._begin_probe(now)
        if self._probe is not None and self._probe.answered(began):
            self._end_probe()
        if began < self._cut_at:
            return
        self._slowdowns.append(seconds / self._base.of(size))
        if len(self._slowdowns) >= max(self.limit, _LEAST_SAMPLES):
            self._adapt()

    def refused(self, began: float, pause: float = 0.0) -> None:
        """Note that the store asks for fewer requests, or did not answer one in time that began at a time of the loop.

        `pause` is for how many seconds it wants none.
        """
        now = _now()
        if pause > 0:
            self._pause(now, min(pause, _LONGEST_PAUSE))
        if began < self._cut_at:
            return  # it was under way when the limit was cut
        self._cut_at = now
        self._limit = max(self._limit * _REFUSED_CUT, 1.0)
        self.backed_off += 1
        if now >= self._logged_at + _LOG_INTERVAL:
            self._logged_at = now
            _logger.warning("fewer requests to the store, it is asked too much", requests=self.name, limit=self.limit)
        self._grows_fast = False
        self._start_again()

    def _adapt(self) -> None:
        slowdown = statistics.median(self._slowdowns)
        was_full = self._was_full
        self._start_again()
        if slowdown > _TOLERANCE:
            self._grows_fast = False
        if self._limit < self.least:  # after a refusal
            self._limit = min(self._limit + max(1.0, math.sqrt(self._limit)), self.least)
        elif was_full and self._grows_fast and slowdown <= _PLENTY:
            self._limit *= _FAST_GROWTH
        else:
            cut = max(min(_TOLERANCE / slowdown, 1.0), _STRONGEST_CUT)
            self._limit = max(self._limit * cut + (math.sqrt(self._limit) if was_full else 0.0), self.least)
        self._limit = min(self._limit, self.most)
        self._changed()

    def _start_again(self) -> None:
        self._slowdowns.clear()
        self._was_full = bool(self._waiting)

    def _changed(self) -> None:
        self._grant()
        self.on_change()

    def _pause(self, now: float, seconds: float) -> None:
        if now + seconds > self._resumes_at:
            self._resumes_at = now + seconds
            asyncio.get_running_loop().call_at(self._resumes_at, self._changed)

    def _begin_probe(self, now: float) -> None:
        allowed = max(self.least // _PROBE_SHARE, 1)
        if self._probe is None and self.in_flight > allowed:
            self._probe = _Probe(allowed, now)
            asyncio.get_running_loop().call_at(now + _PROBE_SECONDS, self._end_probe, self._probe)

    def _end_probe(self, probe: _Probe | None = None) -> None:
        if self._probe is not None and probe in (None, self._probe):
            self._probe = None
            self._start_again()
            self._changed()


class Places:
    """The places of one owner within a limit.

    `async with` holds one for a request; what the store says of that request is told to the limit.
    """

    def __init__(self, limit: AdaptiveLimit, owner: Hashable) -> None:
        self.limit = limit
        self._owner = owner

    async def __aenter__(self) -> None:
        await self.limit.acquire(self._owner)
        _limit_of_request.set(self.limit)

    async def __aexit__(self, *error: object) -> None:
        _limit_of_request.set(None)
        self.limit.release(self._owner)


_limit_of_request: ContextVar[AdaptiveLimit | None] = ContextVar("limit of the request", default=None)


def limit_of_request() -> AdaptiveLimit | None:
    """Return the limit within which the present task holds a place, for who sends its request."""
    return _limit_of_request.get()


class _Probe:
    """A short time with few requests, to see how long one takes that waits for no other."""

    def __init__(self, allowed: int, began: float) -> None:
        self.allowed = allowed
        self._began = began
        self._answers_left = allowed * _PROBE_ROUNDS

    def answered(self, began: float) -> bool:
        """Note an answer to a request that began at a time. Return whether that was the last one needed."""
        if began >= self._began:
            self._answers_left -= 1
        return self._answers_left <= 0


class _FastestTimes:
    """The fastest request of each size, to the next power of two, within the last minutes."""

    def __init__(self) -> None:
        self._began = -math.inf
        self._recent: dict[int, float] = {}
        self._before: dict[int, float] = {}

    def note(self, size: int, seconds: float, now: float) -> bool:
        """Take the time of a request. Return whether older times have just expired."""
        expired = now - self._began >= _BASE_LIFETIME
        if expired:
            gap = now - self._began >= 2 * _BASE_LIFETIME
            self._before, self._recent, self._began = {} if gap else self._recent, {}, now
            expired = not gap
        known = self._recent.get(_size_class(size), math.inf)
        if seconds < known:
            self._recent[_size_class(size)] = seconds
        return expired

    def of(self, size: int) -> float:
        """Return the fastest time of a size that was noted."""
        key = _size_class(size)
        return min(self._recent[key], self._before.get(key, math.inf))


def _size_class(size: int) -> int:
    return max(size, 1 << 16).bit_length()  # smaller ones take no time to send


def _open_files() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 20


def _now() -> float:
    return asyncio.get_running_loop().time()
