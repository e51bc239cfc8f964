"""Memory accounts: bytes that several owners share, bounded in all and fair between owners.

An owner is what must not hold up others: a device, a folder, or a file that is being read. There are two ways to use an
account:

- `await share.acquire(size)` before the memory is used, for data that can wait: blocks, parts, reads.
- `share.charge(size)` for memory that is in use already: messages, cached entries. When the account is then above its
  capacity, the owner that holds most is told to evict.

Grants follow these rules:

1. The demands of one owner are granted strictly in order.
2. An owner may hold at most `_SHARE_OF_FREE` times what is free. So a single owner leaves a third of the account to
   others, and a newcomer gets a fair share at once (the dynamic thresholds of shared-memory switches: Choudhury and
   Hahne, IEEE/ACM Transactions on Networking 6(2), 1998).
3. When memory is released, the owner that holds least is served first.
4. With `guarantee`, an owner that holds nothing is granted one demand at once, whatever others hold. `used` then stays
   below the capacity plus one demand of each owner. Without it, `used` stays within the capacity, except for a single
   demand that could never be met otherwise; such a demand is granted when nothing else is held.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

_SHARE_OF_FREE = 2


@dataclass(slots=True)
class _Owner:
    used: int = 0
    waiting: deque[_Demand] = field(default_factory=deque)
    shares: list[Share] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Demand:
    share: Share
    size: int
    number: int
    granted: asyncio.Future[None]


class Account:
    """`capacity` bytes for several owners.

    Attributes:
        capacity: The bytes that may be held.
        used: The bytes that are held.
        most_used: The highest value that `used` has had.
        closed: Whether nothing more is granted for now.
    """

    def __init__(self, capacity: int, *, guarantee: bool = False) -> None:
        """Make an account. With `guarantee`, rule 4 of this module lets every owner hold one demand."""
        self.capacity = capacity
        self.used = 0
        self.most_used = 0
        self.closed = False
        self._guarantee = guarantee
        self._owners: dict[Hashable, _Owner] = {}
        self._demands = 0
        self._waiting = 0
        self._evicting = False

    def share(self, owner: Hashable, limit: int | None = None, evict: Callable[[], None] | None = None) -> Share:
        """Open a share for an owner, which may have several.

        `limit` is the most bytes that this share may hold, except for a single demand above it. `evict` releases some
        of what the share holds; it is called while the account is above its capacity and this owner holds most.
        """
        share = Share(self, owner, limit, evict)
        self._owners.setdefault(owner, _Owner()).shares.append(share)
        return share

    @property
    def scarce(self) -> bool:
        """Whether more than half of the capacity is held."""
        return self.used > self.capacity // 2

    @classmethod
    def of_slots(cls, most: int) -> Account:
        """Return an account of slots, each of size 1. A single owner can have `most`, and others always get one."""
        return cls(cls.capacity_of_slots(most), guarantee=True)

    @staticmethod
    def capacity_of_slots(most: int) -> int:
        """Return the capacity of such an account, which may change."""
        return -(-most * (_SHARE_OF_FREE + 1) // _SHARE_OF_FREE)

    def used_by(self, owner: Hashable) -> int:
        """Return the bytes that one owner holds."""
        found = self._owners.get(owner)
        return found.used if found is not None else 0

    def usage(self) -> Mapping[Hashable, int]:
        """Return the bytes that each owner holds."""
        return {name: owner.used for name, owner in self._owners.items()}

    def _acquire(self, share: Share, size: int) -> asyncio.Future[None] | None:
        """Grant a demand now, or give what becomes done when it is granted."""
        owner = self._owners[share.owner]
        if not self._waiting and self._fits(owner, share, size):
            self._add(owner, share, size)
            return None
        self._demands += 1
        demand = _Demand(share, size, self._demands, asyncio.get_running_loop().create_future())
        owner.waiting.append(demand)
        self._waiting += 1
        self._grant()
        return demand.granted

    def _withdraw(self, share: Share, granted: asyncio.Future[None]) -> None:
        """Take back a demand that nobody waits for any more."""
        owner = self._owners.get(share.owner)
        if owner is not None:  # else the share was closed
            self._drop_demands(owner, lambda demand: demand.granted is granted)
            self._grant()

    def _add(self, owner: _Owner, share: Share, size: int) -> None:
        owner.used += size
        share.used += size
        self.used += size
        self.most_used = max(self.most_used, self.used)

    def _charge(self, share: Share, size: int) -> None:
        self._add(self._owners[share.owner], share, size)
        self._evict()

    def _release(self, share: Share, size: int) -> None:
        owner = self._owners[share.owner]
        assert 0 <= size <= share.used
        owner.used -= size
        share.used -= size
        self.used -= size
        self._grant()

    def _close(self, share: Share) -> None:
        owner = self._owners[share.owner]
        self._drop_demands(owner, lambda demand: demand.share is share)
        owner.shares.remove(share)
        owner.used -= share.used
        self.used -= share.used
        share.used = 0
        if not owner.shares:
            del self._owners[share.owner]
        self._grant()

    def _drop_demands(self, owner: _Owner, unwanted: Callable[[_Demand], bool]) -> None:
        for demand in [demand for demand in owner.waiting if unwanted(demand)]:
            owner.waiting.remove(demand)
            self._waiting -= 1
            demand.granted.cancel()

    def _fits(self, owner: _Owner, share: Share, size: int) -> bool:
        if self.closed:
            return False
        if share.limit is not None and share.used and share.used + size > share.limit:
            return False
        if self.used == 0 or (self._guarantee and owner.used == 0):
            return True
        free = self.capacity - self.used - size
        return free >= 0 and owner.used + size <= _SHARE_OF_FREE * free

    def _is_overdrawn(self, owner: _Owner) -> bool:
        if owner.used * len(self._owners) <= self.capacity:
            return False
        return any(other.waiting and other.used < owner.used for other in self._owners.values())

    def _grant(self) -> None:
        """Grant what fits now: the owner that holds least first, and of equal ones the one that waits longest."""
        while self._waiting:
            for owner in self._owners.values():
                # Cancelled, and the task that waited for it has not run since.
                while owner.waiting and owner.waiting[0].granted.cancelled():
                    owner.waiting.popleft()
                    self._waiting -= 1
            waiting = [owner for owner in self._owners.values() if owner.waiting]
            waiting.sort(key=lambda owner: (owner.used, owner.waiting[0].number))
            for owner in waiting:
                demand = owner.waiting[0]
                if self._fits(owner, demand.share, demand.size):
                    owner.waiting.popleft()
                    self._waiting -= 1
                    self._add(owner, demand.share, demand.size)
                    demand.granted.set_result(None)
                    break
                if not self._guarantee and owner.used == 0 and not demand.share.used:
                    # Smaller demands of others must not keep a large one waiting without end.
                    return
            else:
                return

    def _evict(self) -> None:
        if self._evicting:
            return
        self._evicting = True
        try:
            while self.used > self.capacity:
                evictable = [share for owner in self._owners.values() for share in owner.shares if share.evict]
                evictable = [share for share in evictable if share.used]
                if not evictable:
                    return
                largest = max(evictable, key=lambda share: (self._owners[share.owner].used, share.used))
                before = self.used
                assert largest.evict is not None
                largest.evict()
                if self.used >= before:
                    return
        finally:
            self._evicting = False


class Share:
    """What one owner holds of an account. A context manager that closes itself.

    Attributes:
        owner: What the account counts this share for.
        limit: The most bytes that this share may hold, or None.
        used: The bytes that this share holds.
    """

    def __init__(self, account: Account, owner: Hashable, limit: int | None, evict: Callable[[], None] | None) -> None:
        self.owner = owner
        self.limit = limit
        self.evict = evict
        self.used = 0
        self._account = account

    @property
    def account(self) -> Account:
        """The account that this share belongs to."""
        return self._account

    async def acquire(self, size: int) -> None:
        """Wait until `size` bytes may be held, and hold them. Raises CancelledError when the share is closed."""
        granted = self._account._acquire(self, size)
        if granted is None:
            return
        try:
            await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._account._release(self, size)
            else:
                self._account._withdraw(self, granted)
            raise

    def fits(self, size: int) -> bool:
        """Return whether `size` bytes are within the owner's share now, and none of its demands waits."""
        owner = self._account._owners[self.owner]
        return not owner.waiting and self._account._fits(owner, self, size)

    @property
    def overdrawn(self) -> bool:
        """Whether the owner holds more than an equal part of the account, and another one with less waits."""
        return self._account._is_overdrawn(self._account._owners[self.owner])

    def charge(self, size: int) -> None:
        """Hold `size` bytes that are in use already; owners evict until the account is within its capacity."""
        self._account._charge(self, size)

    def release(self, size: int) -> None:
        """Stop holding `size` bytes."""
        self._account._release(self, size)

    def close(self) -> None:
        """Release all and cancel what waits. The share must not be used after that."""
        self._account._close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class ByteCache(Generic[Key, Value]):
    """A cache that is bounded by an account: when memory is short, the least recently used value is dropped."""

    def __init__(self, account: Account, owner: Hashable, *, keep_one: bool = False) -> None:
        """Make a cache that the account counts for `owner`.

        With `keep_one`, a value larger than the account is kept while it is all that the account holds.
        """
        self._keep_one = keep_one
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._share = account.share(owner, evict=self._drop_oldest)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """Return a value, or None when it is not in the cache."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """Keep a value that takes about `size` bytes; one of the same key is replaced."""
        self.pop(key)
        self._values[key] = (value, size)
        self._share.charge(size)

    def pop(self, key: Key) -> Value | None:
        """Drop a value and return it, or None when it is not in the cache."""
        found = self._values.pop(key, None)
        if found is None:
            return None
        self._share.release(found[1])
        return found[0]

    def clear(self) -> None:
        """Drop everything."""
        self._values.clear()
        self._share.release(self._share.used)

    def close(self) -> None:
        """Drop everything and leave the account. The cache must not be used after that."""
        self._values.clear()
        self._share.close()

    def _drop_oldest(self) -> None:
        if self._keep_one and len(self._values) == 1 and self._share.account.used == self._share.used:
            return
        if self._values:
            self.pop(next(iter(self._values)))
