"""The kinds of untrusted devices that can be in the middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from tests.claims.device import Clock
from tests.claims.native import NativeDevice
from tests.claims.today import TodaysGateway
from tests.claims.untrusted import UntrustedDevice
from tests.claims.world import MIDDLE, MiddleFactory

# Makes an untrusted device with a number.
Make = Callable[[int, Clock], UntrustedDevice]

MIDDLES: Final[dict[str, Make]] = {"native": NativeDevice, "today": TodaysGateway}


def several(make: Make, count: int = 1) -> MiddleFactory:
    """Return what makes so many untrusted devices of a kind."""
    return lambda clock: [make(MIDDLE + number, clock) for number in range(count)]
