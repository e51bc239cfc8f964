"""Version vectors as Syncthing has them (v2.1.3 lib/protocol/vector.go)."""

from __future__ import annotations

from typing import Final

# Pairs of a device's number and its counter, in order of the devices. No counter is 0.
Vector = tuple[tuple[int, int], ...]

EMPTY: Final[Vector] = ()

EQUAL: Final = 0
GREATER: Final = 1
LESSER: Final = 2
CONCURRENT_LESSER: Final = 3
CONCURRENT_GREATER: Final = 4


def compare(a: Vector, b: Vector) -> int:
    """Return how `a` relates to `b`. Of concurrent ones, that with the first larger counter is the greater."""
    if a == b:
        return EQUAL
    i = j = 0
    result = EQUAL
    len_a, len_b = len(a), len(b)
    while i < len_a or j < len_b:
        if j == len_b or (i < len_a and a[i][0] < b[j][0]):
            larger = True
            i += 1
        elif i == len_a or b[j][0] < a[i][0]:
            larger = False
            j += 1
        else:
            value_a, value_b = a[i][1], b[j][1]
            i += 1
            j += 1
            if value_a == value_b:
                continue
            larger = value_a > value_b
        if larger:
            if result == LESSER:
                return CONCURRENT_LESSER
            result = GREATER
        else:
            if result == GREATER:
                return CONCURRENT_GREATER
            result = LESSER
    return result


def covers(a: Vector, b: Vector) -> bool:
    """Return whether `a` is equal to `b` or greater."""
    return compare(a, b) <= GREATER


def concurrent(a: Vector, b: Vector) -> bool:
    """Return whether neither of them covers the other."""
    return compare(a, b) >= CONCURRENT_LESSER


def counter(vector: Vector, device: int) -> int:
    """Return a device's counter, or 0."""
    for number, value in vector:
        if number == device:
            return value
    return 0


def update(vector: Vector, device: int, now: int) -> Vector:
    """Return the vector after a change on a device at a time in seconds."""
    value = max(counter(vector, device) + 1, now)
    return tuple(sorted([*(pair for pair in vector if pair[0] != device), (device, value)]))


def merge(a: Vector, b: Vector) -> Vector:
    """Return the larger counter of each device."""
    merged = dict(a)
    for number, value in b:
        merged[number] = max(value, merged.get(number, 0))
    return tuple(sorted(merged.items()))


def drop_others(vector: Vector, device: int) -> Vector:
    """Return only a device's counter."""
    value = counter(vector, device)
    return ((device, value),) if value else EMPTY


def total(vector: Vector) -> int:
    """Return the sum of the counters: the one counter that an untrusted device sees."""
    return sum(value for _, value in vector)
