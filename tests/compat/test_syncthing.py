"""The driver of Syncthing with a script that makes a configuration and serves nothing."""

from __future__ import annotations

import signal
import subprocess
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from untrusted_s3.compat.syncthing import Syncthing, syncthing_version
from untrusted_s3.errors import SyncthingFailed, UsageError
from untrusted_s3.identity.files import load_or_create

CONFIGURATION = """
<configuration version="35">
    <folder id="default" path="~/Sync"></folder>
    <device id="{device_id}" name="host"></device>
    <gui><address>127.0.0.1:8384</address></gui>
    <options><listenAddress>default</listenAddress><globalAnnounceEnabled>true</globalAnnounceEnabled></options>
    <defaults><folder id="" path="~"></folder></defaults>
</configuration>
"""
SCRIPT = """#!/bin/sh
case $1 in
    generate) cp {prepared}/*.* {home}/ ;;
    --version) echo 'syncthing v1.23.4-rc.2 "Fermium Flea"' ;;
    serve) exec sleep 600 ;;
    *) echo "no $1"; exit 7 ;;
esac
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    """What `generate` makes."""
    prepared = tmp_path / "prepared"
    identity = load_or_create(prepared)
    (prepared / "config.xml").write_text(CONFIGURATION.format(device_id=identity.device_id))
    return prepared


@pytest.fixture
def binary(tmp_path: Path, prepared: Path, home: Path) -> Path:
    binary = tmp_path / "syncthing"
    binary.write_text(SCRIPT.format(prepared=prepared, home=home))
    binary.chmod(0o755)
    return binary


def test_its_version(binary: Path) -> None:
    assert syncthing_version(binary) == "v1.23.4-rc.2"


def test_a_program_that_does_not_end(binary: Path) -> None:
    binary.write_text("#!/bin/sh\nexec sleep 600\n")
    with pytest.raises(UsageError, match="--version does not end"):
        syncthing_version(binary, timeout=0.2)


def test_a_fresh_configuration_is_cut_off_from_the_world(binary: Path, home: Path, prepared: Path) -> None:
    device = Syncthing(binary, home, "first")
    assert device.device_id == str(load_or_create(prepared).device_id)
    root = ElementTree.parse(home / "config.xml").getroot()
    assert root.findall("folder") == []
    assert root.find("defaults/folder") is not None
    assert {element.get("name") for element in root.findall("device")} == {"first"}
    texts = {element.tag: element.text for element in [*root.iterfind("options/*"), *root.iterfind("gui/*")]}
    assert texts["listenAddress"] == device.listen_address
    assert texts["address"] == f"127.0.0.1:{device.gui_port}"
    off = {"globalAnnounceEnabled", "localAnnounceEnabled", "relaysEnabled", "natEnabled", "crashReportingEnabled"}
    assert {texts[name] for name in off} == {"false"}


def test_a_configuration_that_was_there_keeps_its_folders(binary: Path, home: Path, prepared: Path) -> None:
    Syncthing(binary, home, "first")
    (home / "config.xml").write_bytes((prepared / "config.xml").read_bytes())
    Syncthing(binary, home, "first")
    assert len(ElementTree.parse(home / "config.xml").getroot().findall("folder")) == 1


@pytest.mark.parametrize(("missing", "said"), [("cert.pem", "no certificate"), ("config.xml", "no configuration")])
def test_a_program_that_makes_no_configuration(
    binary: Path, home: Path, prepared: Path, missing: str, said: str
) -> None:
    (prepared / missing).unlink()
    with pytest.raises(SyncthingFailed, match=said):
        Syncthing(binary, home, "first")


def test_a_command_that_fails_says_why(binary: Path, home: Path) -> None:
    with pytest.raises(SyncthingFailed, match="first: syncthing decrypt ended with 7: no decrypt"):
        Syncthing(binary, home, "first").run("decrypt", "--help")


def test_no_wait_lasts_beyond_the_deadline(binary: Path, home: Path) -> None:
    device = Syncthing(binary, home, "first", deadline=time.monotonic() - 1)
    with pytest.raises(SyncthingFailed, match=r"waited -[0-9]+ s in vain for its REST API"):
        device.start()
    assert device.process is None


def test_one_whose_api_does_not_answer_is_ended_by_a_signal(binary: Path, home: Path) -> None:
    device = Syncthing(binary, home, "first")
    device.process = process = subprocess.Popen(["sleep", "600"])
    device.stop()
    assert process.returncode == -signal.SIGTERM
    device.stop()
