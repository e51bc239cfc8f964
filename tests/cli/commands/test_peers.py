"""`peers`: devices are accepted, changed, listed and removed."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.cli.conftest import DEVICE, RunCLI


@pytest.mark.store
def test_peers_come_and_go(run_cli: RunCLI, store_arguments: list[str]) -> None:
    def listed() -> Any:
        outcome = run_cli("peers", "list", "--json", *store_arguments)
        assert outcome.exit_code == 0 and outcome.stderr == ""
        return json.loads(outcome.stdout)

    def add(*options: str) -> None:
        outcome = run_cli("peers", "add", str(DEVICE).lower(), *options, *store_arguments)
        assert (outcome.exit_code, outcome.stdout) == (0, "")

    assert listed() == []
    addresses = ["tcp://127.0.0.1:22000", "tcp://[::1]:22000"]
    add("--address", addresses[0], "--address", addresses[1], "--share", "b", "--share", "a")
    record: dict[str, Any] = {
        "device_id": str(DEVICE),
        "name": "",
        "addresses": addresses,
        "share": ["b", "a"],
        "read_only": False,
        "folders": None,
        "untrusted": False,
        "quota": None,
    }
    assert listed() == [record]
    add("--name", "laptop")
    assert listed() == [{**record, "name": "laptop"}]
    add("--read-only", "--untrusted", "--folders", 'a,b,"c,d"', "--folders", "e f")
    record = {**record, "name": "laptop", "read_only": True, "folders": ["a", "b", "c,d", "e f"], "untrusted": True}
    assert listed() == [record]
    add("--address", addresses[0], "--name", "")
    record = {**record, "name": "", "addresses": addresses[:1]}
    assert listed() == [record]
    table = run_cli("peers", "list", *store_arguments)
    assert re.search(rf"{DEVICE} .*{addresses[0]} .*  read \(untrusted\)  +a b c,d e f *$", table.stdout, re.MULTILINE)
    wrong = run_cli("peers", "add", DEVICE, "--share", "z", *store_arguments)
    assert wrong.exit_code == 2 and "--folders does not have it" in wrong.stderr
    add("--read-write", "--trusted", "--all-folders")
    assert listed() == [{**record, "read_only": False, "folders": None, "untrusted": False}]
    table = run_cli("peers", "list", *store_arguments)
    assert re.search(rf"{DEVICE} .*  read, write  +all *$", table.stdout, re.MULTILINE)
    assert run_cli("peers", "remove", DEVICE, *store_arguments).exit_code == 0
    assert listed() == []
    again = run_cli("peers", "remove", DEVICE, *store_arguments)
    assert again.exit_code == 2 and str(DEVICE) in again.stderr


@pytest.mark.store
def test_the_quota_of_a_device(run_cli: RunCLI, store_arguments: list[str]) -> None:
    def set_quota(size: str) -> Any:
        return run_cli("peers", "set", DEVICE, "--quota", size, *store_arguments)

    def listed() -> Any:
        return [one["quota"] for one in json.loads(run_cli("peers", "list", "--json", *store_arguments).stdout)]

    refused = set_quota("1GiB")
    assert refused.exit_code == 2 and "peers list" in refused.stderr
    assert run_cli("peers", "add", DEVICE, *store_arguments).exit_code == 0
    for size, shown in (("1.5KiB", 1536), ("0", 0), ("none", None), ("2GiB", 2 << 30)):
        outcome = set_quota(size)
        assert (outcome.exit_code, outcome.stdout) == (0, "")
        assert str(DEVICE) in outcome.stderr
        assert listed() == [shown]
    assert "2.0 GiB" in run_cli("peers", "list", *store_arguments).stdout
    wrong = set_quota("much")
    assert wrong.exit_code == 2 and "100GiB" in wrong.stderr
    assert run_cli("peers", "remove", DEVICE, *store_arguments).exit_code == 0
    assert set_quota("none").exit_code == 0, "what is left of a device that was removed can go"
    assert run_cli("peers", "add", DEVICE, *store_arguments).exit_code == 0
    assert listed() == [None]


@pytest.mark.parametrize("command", ["add", "remove"])
def test_a_typo_in_a_device_id(run_cli: RunCLI, command: str) -> None:
    typo = str(DEVICE)[:-2] + ("A" if str(DEVICE)[-2] != "A" else "B") + str(DEVICE)[-1]
    outcome = run_cli("peers", command, typo)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "group 4 of 4" in outcome.stderr


@pytest.mark.parametrize("options", [["--folders", "a,"], ["--folders", "a", "--all-folders"]])
def test_folders_that_make_no_sense(run_cli: RunCLI, options: list[str]) -> None:
    outcome = run_cli("peers", "add", DEVICE, *options)
    assert outcome.exit_code == 2 and "--folders" in outcome.stderr


def test_the_gateways_own_device_id_is_refused(run_cli: RunCLI) -> None:
    outcome = run_cli("peers", "add", run_cli("id").stdout.strip())
    assert outcome.exit_code == 2 and "own device ID" in outcome.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:22000", "quic://h:1", "tcp://h", "dynamic"])
def test_an_invalid_address(run_cli: RunCLI, address: str) -> None:
    outcome = run_cli("peers", "add", DEVICE, "--address", address)
    assert outcome.exit_code == 2 and "tcp://HOST:PORT" in outcome.stderr
