"""The kinds of untrusted devices that can be in the middle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from tests.claims.device import Clock
from tests.claims.native import NativeDevice
from tests.claims.scheme import Gateway, Store
from tests.claims.today import TodaysGateway
from tests.claims.untrusted import UntrustedDevice
from tests.claims.world import MIDDLE, MiddleFactory

# Makes so many untrusted devices, numbered from MIDDLE. They may share something.
MakeAll = Callable[[Clock, int], Sequence[UntrustedDevice]]


def apart(make: Callable[[int, Clock], UntrustedDevice]) -> MakeAll:
    """Return what makes untrusted devices that share nothing, of one kind."""
    return lambda clock, count: [make(MIDDLE + number, clock) for number in range(count)]


def on_one_store(clock: Clock, count: int) -> list[UntrustedDevice]:
    """Return gateways that share a store."""
    store = Store(clock.next_index_id())
    return [Gateway(MIDDLE + number, clock, store) for number in range(count)]


MIDDLES: Final[dict[str, MakeAll]] = {
    "native": apart(NativeDevice),
    "native-1": apart(partial(NativeDevice, generation=1)),
    "today": apart(TodaysGateway),
    "claims": apart(Gateway),
    "shared": on_one_store,
}


def several(kind: str, count: int = 1) -> MiddleFactory:
    """Return what makes so many untrusted devices of a kind."""
    make = MIDDLES[kind]
    return lambda clock: make(clock, count)
