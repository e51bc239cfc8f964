"""Which of two versions is newer."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.vector import is_newer

Counters = dict[int, int]
vectors = st.dictionaries(st.integers(1, 4) | st.integers(0, 2**64 - 1), st.integers(0, 3) | st.integers(0, 2**64 - 1))


def vector(counters: Counters) -> pb.Vector:
    return pb.Vector(counters=[pb.Counter(id=device, value=value) for device, value in counters.items()])


@pytest.mark.parametrize(
    ("candidate", "current", "newer"),
    [
        ({}, {}, False),
        ({1: 1}, {}, True),
        ({}, {1: 1}, False),
        ({1: 5}, {1: 5}, False),
        ({1: 6}, {1: 5}, True),
        ({1: 5}, {1: 6}, False),
        ({1: 2**64 - 1}, {1: 2**64 - 2}, True),
        ({1: 5, 2: 1}, {1: 5}, True),
        ({1: 5}, {1: 5, 2: 1}, False),
        ({1: 6, 2: 0}, {1: 5, 2: 1}, False),  # concurrent
        ({1: 6}, {2: 1}, False),  # concurrent
        ({1: 0}, {}, False),  # a counter of 0 says nothing
        ({}, {1: 0}, False),
        ({1: 1}, {2: 0}, True),
    ],
)
def test_newer(candidate: Counters, current: Counters, newer: bool) -> None:
    assert is_newer(vector(candidate), vector(current)) is newer


@given(vectors, vectors)
def test_newer_is_strictly_above_in_the_partial_order(candidate: Counters, current: Counters) -> None:
    devices = candidate.keys() | current.keys()
    pairs = [(candidate.get(device, 0), current.get(device, 0)) for device in devices]
    expected = all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
    assert is_newer(vector(candidate), vector(current)) == expected


@given(vectors, vectors)
def test_never_both_ways(one: Counters, other: Counters) -> None:
    assert not (is_newer(vector(one), vector(other)) and is_newer(vector(other), vector(one)))


@given(vectors, st.integers(0, 5), st.integers(1, 1000))
def test_one_more_change_is_newer(counters: Counters, device: int, changes: int) -> None:
    later = {**counters, device: min(counters.get(device, 0), 2**63) + changes}
    before = {**counters, device: min(counters.get(device, 0), 2**63)}
    assert is_newer(vector(later), vector(before))


@given(vectors, vectors, st.randoms(use_true_random=False))
def test_the_order_of_counters_means_nothing(one: Counters, other: Counters, shuffler: random.Random) -> None:
    items = list(one.items())
    shuffler.shuffle(items)
    assert is_newer(vector(dict(items)), vector(other)) == is_newer(vector(one), vector(other))
    assert is_newer(vector(other), vector(dict(items))) == is_newer(vector(other), vector(one))
