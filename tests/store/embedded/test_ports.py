"""The ports of the embedded server: those of the last run, else free ones."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from untrusted_s3.store.embedded.files import write_last_ports
from untrusted_s3.store.embedded.ports import GRPC_OFFSET, SERVICES, all_ports, choose_ports, hold, listening_addresses
from untrusted_s3.store.embedded.server import EmbeddedStore


def test_ports_are_distinct_and_free() -> None:
    ports = choose_ports(None)
    assert tuple(ports) == SERVICES
    numbers = all_ports(ports)
    assert len(numbers) == 2 * len(SERVICES)
    for number in numbers:
        with socket.create_server(("127.0.0.1", number)):
            pass


def test_the_last_ports_are_taken_again_while_they_are_free(tmp_path: Path) -> None:
    assert tuple(choose_ports(tmp_path)) == SERVICES  # no last run
    last = choose_ports(None)
    write_last_ports(tmp_path, last)
    assert choose_ports(tmp_path) == last
    with socket.create_server(("127.0.0.1", last["filer"] + GRPC_OFFSET)):
        assert not all_ports(choose_ports(tmp_path)) & {last["filer"], last["filer"] + GRPC_OFFSET}


def test_what_is_held_no_other_store_takes(tmp_path: Path) -> None:
    last = choose_ports(None)
    write_last_ports(tmp_path, last)
    with hold(last):
        assert not set(choose_ports(tmp_path).values()) & set(last.values())
        with pytest.raises(OSError, match="in use"):
            hold(last)
        for number in all_ports(last):
            with socket.create_server(("127.0.0.1", number)):
                pass  # the server itself can listen on them
    assert choose_ports(tmp_path) == last


@pytest.mark.parametrize("last", [{"s3": 12_000}, dict.fromkeys(SERVICES, 70000)])
def test_last_ports_that_cannot_be_are_not_taken(tmp_path: Path, last: dict[str, int]) -> None:
    write_last_ports(tmp_path, last)
    assert set(choose_ports(tmp_path).values()).isdisjoint(last.values())


@pytest.mark.store
def test_it_listens_on_loopback_alone(seaweedfs: EmbeddedStore) -> None:
    listening = listening_addresses(seaweedfs.pid)
    assert len(listening) >= 8
    assert {host for host, _ in listening} == {"127.0.0.1"}


def test_a_process_that_does_not_run_listens_nowhere() -> None:
    assert listening_addresses(2**22 + 1) == set()


@pytest.mark.store
def test_a_running_store_holds_its_ports(seaweedfs: EmbeddedStore) -> None:
    port = int(seaweedfs.endpoint_url.rpartition(":")[2])
    with pytest.raises(OSError, match="in use"):
        hold({"s3": port})
