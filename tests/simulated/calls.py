"""The calls of a client, what may happen to them, and scripts of faults."""

from __future__ import annotations

import enum
import itertools
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass


class Crash(BaseException):
    """The end of the gateway's process."""


class Fault(enum.Enum):
    """A fault of one call."""

    UNREACHABLE = enum.auto()  # the request never arrives
    ANSWER_LOST = enum.auto()  # the server acts, and the answer never arrives
    EMPTIED = enum.auto()  # the connection ends before a body's first byte: the server writes an object of no bytes
    REFUSED = enum.auto()  # 403, and nothing happens
    DENIED = enum.auto()  # 403 AccessDenied, and nothing happens
    CONFLICT = enum.auto()  # 409 or 412, and nothing happens
    CRASH_BEFORE = enum.auto()
    CRASH_AFTER = enum.auto()


class Phase(enum.Enum):
    """The point at which a gate holds a call."""

    REQUEST = enum.auto()
    ANSWER = enum.auto()


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a method of `Bucket`. `start` and `size` are arguments of `get`."""

    operation: str
    key: str
    start: int = 0
    size: int | None = None


# Returns when the call may go on.
Gate = Callable[[Call, Phase], Awaitable[None]]


def fail_once(operation: str, fault: Fault, *, number: int = 1, key: str = "") -> Callable[[Call], Fault | None]:
    """Return a script in which the `number`th call of an operation, on a key that contains `key`, has the fault."""
    seen = 0

    def script(call: Call) -> Fault | None:
        nonlocal seen
        if call.operation != operation or key not in call.key:
            return None
        seen += 1
        return fault if seen == number else None

    return script


def deny_deletions(call: Call) -> Fault | None:
    """Deny all deletions, as a store does to credentials without that right."""
    return Fault.DENIED if call.operation in ("delete", "abort_multipart_upload") else None


def fail_on(faults: Mapping[int, Fault]) -> Callable[[Call], Fault | None]:
    """Return a script in which the calls with these numbers, from 1, have these faults."""
    numbers = itertools.count(1)
    return lambda call: faults.get(next(numbers))
