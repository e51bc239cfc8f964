"""The bound on connections of unknown devices, and what a connection sends before it is admitted."""

from __future__ import annotations

import resource

import pytest
from structlog.testing import capture_logs

from untrusted_s3.connections.admission import Admission, UnadmittedConnections, raise_file_limit, unadmitted_capacity
from untrusted_s3.errors import TooManyConnections
from untrusted_s3.settings import ConnectionSettings

SETTINGS = ConnectionSettings(max_unadmitted=1000, max_open_files=50_000)


class Clock:
    """Seconds that a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def table_of(capacity: int, clock: Clock | None = None) -> UnadmittedConnections:
    return UnadmittedConnections(capacity, log_interval=10, clock=clock or Clock())


class Cut:
    """A connection that notes its end, and is then gone from the table as a real one is."""

    def __init__(self, table: UnadmittedConnections, host: str) -> None:
        self.table = table
        self.error: Exception | None = None
        table.add(self, host)

    def evict(self, error: Exception) -> None:
        self.error = error
        self.table.remove(self)


def test_the_oldest_goes() -> None:
    table = table_of(3)
    connections = [Cut(table, "192.0.2.1") for _ in range(5)]
    assert [bool(one.error) for one in connections] == [True, True, False, False, False]
    assert isinstance(connections[0].error, TooManyConnections)
    assert len(table) == 3


def test_who_has_most_loses_and_a_newcomer_stays() -> None:
    table = table_of(10)
    honest = Cut(table, "192.0.2.1")
    attacks = [Cut(table, "198.51.100.7") for _ in range(1000)]
    newcomer = Cut(table, "192.0.2.2")
    assert honest.error is None and newcomer.error is None
    assert [one.error for one in attacks[-8:]] == [None] * 8
    assert len(table) == 10


def test_one_newcomer_among_as_many_addresses_as_there_is_room() -> None:
    table = table_of(10)
    attacks = [Cut(table, f"198.51.100.{number}") for number in range(100)]
    newcomer = Cut(table, "192.0.2.1")
    assert newcomer.error is None
    assert [one.error is None for one in attacks[-9:]] == [True] * 9


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::2:3", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("fe80::1%eth0", "fe80::2%eth0", True),
        ("unknown", "unknown", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    table = table_of(3)
    third = Cut(table, "203.0.113.1")
    first, _, last = Cut(table, one), Cut(table, other), Cut(table, "203.0.113.9")
    assert last.error is None
    # Two of one address: its older one goes. All different: the oldest of all.
    assert (first.error is not None) == same
    assert (third.error is not None) == (not same)


def test_admitted_and_ended_ones_do_not_count() -> None:
    table = table_of(2)
    first, second = Cut(table, "192.0.2.1"), Cut(table, "192.0.2.1")
    table.remove(first)
    table.remove(first)
    Cut(table, "192.0.2.1")
    assert first.error is None and second.error is None
    table.add(second, "192.0.2.1")
    assert len(table) == 2


def test_a_flood_is_one_line_in_the_log() -> None:
    table = table_of(2)
    with capture_logs() as lines:
        for _ in range(1000):
            Cut(table, "192.0.2.1")
    assert [line["log_level"] for line in lines] == ["warning"]


def test_a_flood_that_lasts_is_logged_again_with_what_was_cut_meanwhile() -> None:
    clock = Clock()
    table = table_of(1, clock)
    with capture_logs() as lines:
        for seconds in (0, 0, 5, 4.9, 0.1, 0):
            clock.now += seconds
            Cut(table, "192.0.2.1")
    assert [line["cut"] for line in lines] == [1, 3]


class Connection:
    """A connection whose admission is decided."""

    def __init__(self, table: UnadmittedConnections | None) -> None:
        self.admission = Admission(self, table)
        self.error: Exception | None = None

    def evict(self, error: Exception) -> None:
        self.error = error
        self.admission.ended()


def test_a_connection_counts_until_it_is_admitted_and_again_while_it_closes() -> None:
    table = table_of(10)
    connection = Connection(table)
    assert len(table) == 0
    connection.admission.opened("192.0.2.1")
    assert len(table) == 1
    connection.admission.begin()
    assert len(table) == 1
    connection.admission.admit()
    assert len(table) == 0
    connection.admission.closing()
    assert len(table) == 1
    connection.admission.ended()
    assert len(table) == 0


def test_one_that_is_cut_leaves_the_table() -> None:
    table = table_of(1)
    first, second = Connection(table), Connection(table)
    first.admission.opened("192.0.2.1")
    second.admission.opened("192.0.2.1")
    assert isinstance(first.error, TooManyConnections) and second.error is None
    assert len(table) == 1


@pytest.mark.parametrize("counted", [True, False])
def test_data_is_held_from_the_hello_until_the_decision(counted: bool) -> None:
    admission = Connection(table_of(10) if counted else None).admission
    admission.opened("192.0.2.1")
    holding = [admission.holding]
    admission.begin()
    holding.append(admission.holding)
    admission.hold([b"a", b"b"])
    admission.hold([b"c"])
    assert admission.admit() == [b"a", b"b", b"c"]
    holding.append(admission.holding)
    assert holding == [False, True, False]
    assert admission.admit() == []


def test_the_capacity_leaves_files_for_other_things() -> None:
    assert unadmitted_capacity(256, SETTINGS) == 64
    assert unadmitted_capacity(10**6, SETTINGS) == SETTINGS.max_unadmitted


def test_the_file_limit_is_raised_as_far_as_it_may(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, pair: given.append(pair))
    for soft, hard, open_files in (
        (1024, 4096, 4096),
        (1024, resource.RLIM_INFINITY, SETTINGS.max_open_files),
        (1024, 2**30, SETTINGS.max_open_files),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, pair=(soft, hard): pair)
        assert raise_file_limit(SETTINGS) == open_files
        assert given.pop() == (open_files, hard)
    for soft in (4096, 2**30):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, pair=(soft, soft): pair)
        assert raise_file_limit(SETTINGS) == soft
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert raise_file_limit(SETTINGS) == SETTINGS.max_open_files
    assert given == []
