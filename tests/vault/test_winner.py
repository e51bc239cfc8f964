"""Which version wins, against cases from Syncthing's rule worked out by hand, and what must hold of all."""

from __future__ import annotations

import itertools
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.claims import vector as second
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.vault.winner import Order, compare, conflict_paths, loses_content, winner, wins

A, B, C = 1, 2, 3
Counters = dict[int, int]


def vector(counters: Counters) -> pb.Vector:
    return pb.Vector(counters=[pb.Counter(id=device, value=value) for device, value in sorted(counters.items())])


def version(
    counters: Counters, modified: int = 0, *, deleted: bool = False, invalid: bool = False, nanoseconds: int = 0
) -> pb.FileInfo:
    return pb.FileInfo(
        name="f",
        version=vector(counters),
        modified_s=modified,
        modified_ns=nanoseconds,
        deleted=deleted,
        invalid=invalid,
    )


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({}, {}, Order.EQUAL),
        ({A: 1, B: 2}, {A: 1, B: 2}, Order.EQUAL),
        ({A: 1, B: 0}, {A: 1}, Order.EQUAL),
        ({A: 1}, {}, Order.GREATER),
        ({}, {A: 1}, Order.LESSER),
        ({A: 2}, {A: 1}, Order.GREATER),
        ({A: 1, C: 1}, {A: 1, B: 0}, Order.GREATER),
        ({A: 1, B: 1}, {A: 2, B: 1}, Order.LESSER),
        ({A: 2}, {A: 1, B: 9}, Order.CONCURRENT_GREATER),
        ({A: 1, B: 9}, {A: 2}, Order.CONCURRENT_LESSER),
        ({A: 1}, {B: 1}, Order.CONCURRENT_GREATER),
        ({B: 1, C: 1}, {A: 1}, Order.CONCURRENT_LESSER),
        ({A: 1, B: 1, C: 2}, {A: 1, B: 2, C: 1}, Order.CONCURRENT_LESSER),
        ({A: 1, 2**64 - 1: 1}, {A: 2}, Order.CONCURRENT_LESSER),
    ],
)
def test_vectors(one: Counters, other: Counters, expected: Order) -> None:
    assert compare(vector(one), vector(other)) is expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        # v2.1.3 lib/protocol/conflict_test.go, where vectors without an order are concurrent
        (version({A: 1}, 42), version({B: 1}, 41)),
        (version({A: 1}, 42, deleted=True), version({B: 1}, 41)),
        (version({A: 1}, 0, deleted=True), version({B: 1}, 10, invalid=True)),
        (version({42: 2, 43: 1}, 41), version({42: 1, 43: 2}, 41)),
        # An edit that is based on the other one wins, whatever the times and sums are.
        (version({A: 2}, 1), version({A: 1}, 99)),
        (version({A: 5, B: 1}, 1), version({A: 5}, 99)),
        (version({A: 5, B: 1}, 1, deleted=True), version({A: 5}, 99)),
        (version({A: 5, B: 1}, 1, invalid=True), version({A: 5}, 99)),
        # docs/claims.md: the newer edit of A has the smaller sum.
        (version({A: 1_700_002_000}, 1_700_002_000), version({A: 1_700_000_000, B: 1_700_001_000}, 1_700_001_000)),
        # Syncthing 2: a deletion wins or loses by its time.
        (version({A: 1}, 41), version({B: 1}, 40, deleted=True)),
        (version({B: 1}, 42), version({A: 1}, 41, deleted=True)),
        # Nanoseconds count, and times before 1970.
        (version({B: 1}, 41, nanoseconds=2), version({A: 1}, 41, nanoseconds=1)),
        (version({B: 1}, -1, nanoseconds=1), version({A: 1}, -1)),
        # Equal times: the larger counter at the first device with a difference.
        (version({A: 1}, 41), version({B: 9}, 41)),
        (version({A: 1, B: 2}, 41), version({A: 1, C: 9}, 41)),
        # Of equal vectors, the one that is not ignored.
        (version({A: 1}, 1), version({A: 1}, 1, invalid=True)),
    ],
)
def test_who_wins_over_whom(one: pb.FileInfo, other: pb.FileInfo) -> None:
    assert wins(one, other) and not wins(other, one)


def test_of_equal_versions_none_wins_and_the_first_is_chosen() -> None:
    equal = version({A: 1}, 1)
    assert not wins(equal, equal)
    assert winner([equal, equal]) == 0


def test_an_ignored_version_is_chosen_only_where_all_are_ignored() -> None:
    ignored, older = version({A: 2}, 9, invalid=True), version({A: 1}, 1)
    assert winner([ignored, older]) == 1
    assert winner([version({A: 1}, invalid=True), ignored]) == 1


def test_in_a_circle_no_version_wins_that_another_one_is_based_on() -> None:
    older = version({A: 1}, 30)  # newer than the one of C, by its time
    newer = version({A: 1, B: 1}, 10)  # based on it, and its time is the oldest
    concurrent = version({C: 1}, 20)
    assert wins(newer, older) and wins(older, concurrent) and wins(concurrent, newer)
    for versions in itertools.permutations([older, newer, concurrent]):
        assert versions[winner(versions)] == concurrent


counters = st.dictionaries(st.integers(1, 3), st.integers(0, 2), max_size=3)
file_infos = st.builds(
    version,
    counters,
    st.integers(0, 2),
    deleted=st.booleans(),
    invalid=st.booleans(),
    nanoseconds=st.integers(0, 1),
)


@settings(max_examples=150, deadline=None)
@given(counters, counters)
def test_vectors_compare_as_in_the_model(one: Counters, other: Counters) -> None:
    """The model has its own translation of Syncthing's function, which goes over both vectors at once."""
    ours, theirs = (tuple(sorted((key, value) for key, value in some.items() if value)) for some in (one, other))
    order = compare(vector(one), vector(other))
    names = ("EQUAL", "GREATER", "LESSER", "CONCURRENT_LESSER", "CONCURRENT_GREATER")
    assert second.compare(ours, theirs) == getattr(second, order.name)
    assert {getattr(second, name) for name in names} == set(range(len(names)))


@settings(max_examples=150, deadline=None)
@given(file_infos, file_infos)
def test_one_of_two_different_versions_wins(one: pb.FileInfo, other: pb.FileInfo) -> None:
    assert not (wins(one, other) and wins(other, one))
    if compare(one.version, other.version) is not Order.EQUAL or one.invalid != other.invalid:
        assert wins(one, other) or wins(other, one)
    assert not (loses_content(one, other) and compare(one.version, other.version) is Order.GREATER)


@settings(max_examples=150, deadline=None)
@given(st.lists(file_infos, min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_the_winner_does_not_depend_on_the_order(versions: list[pb.FileInfo], random: Random) -> None:
    """Not even where versions win over each other in a circle; of versions that are equal, either is chosen."""
    first = versions[winner(versions)]
    shuffled = versions.copy()
    random.shuffle(shuffled)
    again = shuffled[winner(shuffled)]
    assert compare(first.version, again.version) is Order.EQUAL and first.invalid == again.invalid


@settings(max_examples=150, deadline=None)
@given(st.lists(file_infos, min_size=1, max_size=5))
def test_a_version_that_wins_over_all_others_is_the_winner(versions: list[pb.FileInfo]) -> None:
    valid = [one for one in versions if not one.invalid] or versions
    best = [one for one in valid if not any(wins(other, one) for other in valid)]
    chosen = versions[winner(versions)]
    assert not chosen.invalid or all(one.invalid for one in versions)
    if best:
        assert any(compare(chosen.version, one.version) is Order.EQUAL for one in best)


def file(counters: Counters, *hashes: bytes, kind: pb.FileInfoType = pb.FILE, **fields: object) -> pb.FileInfo:
    message = version(counters)
    message.type, message.size = kind, len(hashes)
    message.blocks.extend(pb.BlockInfo(offset=place, size=1, hash=one) for place, one in enumerate(hashes))
    for name, value in fields.items():
        setattr(message, name, value)
    return message


@pytest.mark.parametrize(
    ("winning", "losing", "expected"),
    [
        (file({A: 1}, b"a"), file({B: 1}, b"b"), True),
        (file({A: 1, B: 1}, b"a"), file({B: 1}, b"b"), False),  # based on it
        (file({A: 1}, b"a"), file({A: 1}, b"b"), False),
        (file({A: 1}, b"a"), file({B: 1}, b"a"), False),  # equal content
        (file({A: 1}, b"a"), file({B: 1}, b"a", b"a"), True),
        (file({A: 1}, b"a"), file({B: 1}, deleted=True), False),
        (file({A: 1}, b"a"), file({B: 1}, invalid=True), False),
        (file({A: 1}, b"a"), file({B: 1}, kind=pb.DIRECTORY), False),
        (file({A: 1}, b"a"), file({B: 1}, kind=pb.SYMLINK), False),
        (file({A: 1}, kind=pb.DIRECTORY), file({B: 1}, b"b"), True),
        (file({A: 1}, deleted=True), file({B: 1}, b"b"), True),
        (file({A: 1}, deleted=True), file({B: 1}), True),  # an empty file
        # Made from the very content that loses
        (
            file({A: 1}, b"a", blocks_hash=b"1", previous_blocks_hash=b"2"),
            file({B: 1}, b"b", blocks_hash=b"2"),
            False,
        ),
        (
            file({A: 1}, b"a", blocks_hash=b"1", previous_blocks_hash=b"2"),
            file({B: 1}, b"b", blocks_hash=b"3"),
            True,
        ),
        (file({A: 1}, b"a", previous_blocks_hash=b"2"), file({B: 1}, b"b", blocks_hash=b"2"), True),
    ],
)
def test_of_what_there_is_a_conflict_copy(winning: pb.FileInfo, losing: pb.FileInfo, expected: bool) -> None:
    assert loses_content(winning, losing) is expected


DEVICE = int.from_bytes(b"\x00\x44\x32\x14\xc7\x42\x54\xb6", "big")  # the bits of "ABCDEFG", and more


@pytest.mark.parametrize(
    ("path", "modified", "expected"),
    [
        ("report.txt", 1_700_000_000, "report.sync-conflict-20231114-221320-ABCDEFG.txt"),
        ("a.b/c", 0, "a.b/c.sync-conflict-19700101-000000-ABCDEFG"),
        ("a/x.tar.gz", -1, "a/x.tar.sync-conflict-19691231-235959-ABCDEFG.gz"),
        (".bashrc", 0, ".sync-conflict-19700101-000000-ABCDEFG.bashrc"),
        ("end.", 0, "end.sync-conflict-19700101-000000-ABCDEFG."),
        ("far", 2**62, "far.sync-conflict-99991231-235959-ABCDEFG"),
        ("far", -(2**62), "far.sync-conflict-00010101-000000-ABCDEFG"),
    ],
)
def test_names_of_conflict_copies(path: str, modified: int, expected: str) -> None:
    names = conflict_paths(path, pb.FileInfo(name=path, modified_s=modified, modified_by=DEVICE))
    assert next(names) == expected
    assert len({expected, *itertools.islice(names, 100)}) == 101


def test_the_name_of_a_conflict_copy_of_an_unknown_device() -> None:
    paths = conflict_paths("f.txt", pb.FileInfo(name="f.txt", modified_s=1))
    assert next(paths) == "f.sync-conflict-19700101-000001-.txt"
    assert next(paths) == "f.sync-conflict-19700101-000002-.txt"
