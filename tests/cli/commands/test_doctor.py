"""`doctor`: its report on good and on bad stores."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import RunCLI
from tests.peers.s3_server import on_each_s3_server
from tests.store.http_server import Answer, http_server


@pytest.mark.store
@on_each_s3_server
def test_doctor_finds_a_good_store_good(run_cli: RunCLI, store_arguments: list[str]) -> None:
    outcome = run_cli("doctor", *store_arguments)
    lines = outcome.stdout.splitlines()
    assert outcome.exit_code == 0 and outcome.stderr == ""
    assert [line.split()[0] for line in lines] == ["ok"] * 9 + ["note"] * 2
    assert "stolen gateway" in lines[-2] and "versioning is off" in lines[-2]
    assert "Against a stolen gateway" in lines[-2], "it says what to do"
    assert "AbortIncompleteMultipartUpload" in lines[-1]


@pytest.mark.store
@on_each_s3_server
def test_doctor_sets_the_lifecycle_rule_that_is_missing(run_cli: RunCLI, store_arguments: list[str]) -> None:
    outcome = run_cli("doctor", "--set-lifecycle", *store_arguments)
    assert outcome.exit_code == 0 and "by a rule that was added" in outcome.stdout.splitlines()[-1]
    outcome = run_cli("doctor", *store_arguments)
    assert [line.split()[0] for line in outcome.stdout.splitlines()] == ["ok"] * 9 + ["note", "ok"]


@pytest.mark.store
def test_doctor_tells_a_machine_what_is_wrong(run_cli: RunCLI, store_arguments: list[str]) -> None:
    outcome = run_cli("doctor", "--json", *store_arguments, "--store", "s3://no-such-bucket")
    assert outcome.exit_code == 3
    report = json.loads(outcome.stdout)
    assert report["ok"] is False
    assert [check["result"] for check in report["checks"]] == ["FAIL"]


@pytest.mark.usefixtures("credentials")
def test_doctor_finds_a_store_that_accepts_everything_bad(run_cli: RunCLI) -> None:
    """It answers 200 to all, so that nothing is kept, refused or deleted."""
    listing = b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"
    with http_server(lambda request: Answer(200, listing)) as url:
        outcome = run_cli("doctor", "--json", "--store", "s3://bucket", "--endpoint-url", url)
    assert outcome.exit_code == 3
    results = {check["name"]: check["result"] for check in json.loads(outcome.stdout)["checks"]}
    assert {name for name, result in results.items() if result == "ok"} == {"bucket", "clock"}
    assert json.loads(outcome.stdout)["protection"]["protected"] is False


@pytest.mark.store
def test_doctor_with_credentials_that_may_not_delete(run_cli: RunCLI, undeletable: list[str]) -> None:
    outcome = run_cli("doctor", "--json", *undeletable)
    assert outcome.exit_code == 0 and outcome.stderr == ""
    report = json.loads(outcome.stdout)
    checks, protection = report["checks"], report["protection"]
    assert [check["result"] for check in checks] == ["ok"] * 10 + ["note"]
    assert "write, read, list, but not delete" in checks[1]["message"]
    assert checks[-2]["message"].startswith("what they overwrite stays as an earlier version")
    assert (protection["protected"], protection["may_delete"], protection["versioning"]) == (True, False, "enabled")
