"""The small files beside the data of the embedded store."""

from __future__ import annotations

import dataclasses
import json
import shutil
import stat
from pathlib import Path

import pytest

from untrusted_s3.errors import UsageError
from untrusted_s3.store.embedded.files import (
    Credentials,
    Endpoint,
    current_boot,
    is_in_doubt,
    is_unchecked,
    read_last_ports,
    set_unchecked,
    write_last_ports,
)
from untrusted_s3.store.embedded.server import EmbeddedStore

ENDPOINT = Endpoint("http://127.0.0.1:12000", "bucket", 17, 16, {"s3": 12_000, "master": 12_001}, "boot")


@pytest.mark.store
def test_secrets_are_the_owners_alone(seaweedfs: EmbeddedStore) -> None:
    assert stat.S_IMODE((seaweedfs.directory / "credentials.json").stat().st_mode) == 0o600
    assert stat.S_IMODE((seaweedfs.directory / "volumes").stat().st_mode) == 0o700
    assert seaweedfs.secret_key not in repr(seaweedfs)
    assert seaweedfs.secret_key not in (seaweedfs.directory / "seaweedfs.log").read_text()


def test_credentials_are_made_once(tmp_path: Path) -> None:
    first = Credentials.load_or_create(tmp_path)
    assert Credentials.load_or_create(tmp_path) == Credentials.load(tmp_path) == first
    assert first.secret_key not in repr(first)
    (path,) = tmp_path.iterdir()  # no temporary file stays behind
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ['{"access_key": "A"', "{}", "[]", "", "\xff"])
def test_damaged_credentials_are_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "credentials.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UsageError, match=r"credentials\.json.*delete"):
        Credentials.load_or_create(tmp_path)
    assert path.read_text(encoding="latin-1") == text


def test_an_endpoint_comes_back_until_the_server_stops(tmp_path: Path) -> None:
    assert Endpoint.read(tmp_path) is None and read_last_ports(tmp_path) == {}
    ENDPOINT.write(tmp_path)
    assert Endpoint.read(tmp_path) == ENDPOINT
    assert read_last_ports(tmp_path) == ENDPOINT.ports
    write_last_ports(tmp_path, ENDPOINT.ports)
    assert Endpoint.read(tmp_path) is None
    assert read_last_ports(tmp_path) == ENDPOINT.ports


def test_what_lacks_the_last_writes_or_is_a_copy_is_in_doubt(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    assert not is_in_doubt(here), "a store that was never started has nothing to lose"
    this_boot = dataclasses.replace(ENDPOINT, boot=current_boot())
    this_boot.write(here)
    assert not is_in_doubt(here)
    shutil.copytree(here, tmp_path / "copy")
    assert is_in_doubt(tmp_path / "copy")
    ENDPOINT.write(here)
    assert is_in_doubt(here), "the system has started since"
    write_last_ports(here, ENDPOINT.ports)
    assert not is_in_doubt(here)
    shutil.copytree(here, tmp_path / "copy of a stopped one")
    assert is_in_doubt(tmp_path / "copy of a stopped one")
    (here / "endpoint.json").write_text("{}")
    assert is_in_doubt(here)
    (here / "endpoint.json").unlink()
    (here / "volumes").mkdir()
    assert not is_in_doubt(here)
    (here / "volumes" / "1.dat").touch()
    assert is_in_doubt(here)


def test_a_store_stays_unchecked_until_it_is_checked(tmp_path: Path) -> None:
    assert not is_unchecked(tmp_path)
    set_unchecked(tmp_path, True)
    set_unchecked(tmp_path, True)
    assert is_unchecked(tmp_path)
    set_unchecked(tmp_path, False)
    set_unchecked(tmp_path, False)
    assert not is_unchecked(tmp_path)


@pytest.mark.parametrize("name", ["endpoint_url", "bucket", "pid", "gateway_pid", "ports"])
def test_an_endpoint_that_lacks_something_is_none(tmp_path: Path, name: str) -> None:
    ENDPOINT.write(tmp_path)
    path = tmp_path / "endpoint.json"
    value = json.loads(path.read_text())
    path.write_text(json.dumps({key: item for key, item in value.items() if key != name}))
    assert Endpoint.read(tmp_path) is None
    path.write_text(json.dumps({**value, "ports": [1]}))
    assert Endpoint.read(tmp_path) is None and read_last_ports(tmp_path) == {}
