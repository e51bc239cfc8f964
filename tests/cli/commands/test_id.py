"""`id`: the device ID alone on standard output."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import RunCLI
from untrusted_s3.bep.device_id import DeviceID


def test_id_prints_the_id_alone(run_cli: RunCLI) -> None:
    first = run_cli("id")
    assert first.exit_code == 0 and first.stderr == ""
    assert str(DeviceID.parse(first.stdout)) + "\n" == first.stdout
    assert run_cli("id", "--data", "data") == first
    assert run_cli("id", "--identity", "data/identity") == first
    assert run_cli("id", "--data", "elsewhere") != first


def test_the_qr_code_goes_to_standard_error(run_cli: RunCLI) -> None:
    plain, outcome = run_cli("id"), run_cli("id", "--qr")
    assert outcome.stdout == plain.stdout
    assert "█" in outcome.stderr


def test_half_an_identity(run_cli: RunCLI) -> None:
    run_cli("id")
    Path("data/identity/key.pem").unlink()
    outcome = run_cli("id")
    assert outcome.exit_code == 2 and "key.pem" in outcome.stderr
