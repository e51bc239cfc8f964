"""`verify`: output and exit codes."""

from __future__ import annotations

import json

import pytest

from tests.cli.commands.conftest import KEYS, flip, in_store
from tests.cli.conftest import RunCLI
from untrusted_s3.store.s3 import S3Bucket

pytestmark = pytest.mark.store


def test_verify_of_a_sound_folder(filled: list[str], run_cli: RunCLI) -> None:
    done = run_cli("verify", *filled)
    assert done.exit_code == 0
    assert done.stdout.startswith("verified 3 files (30") and done.stdout.endswith("no damage\n")
    report = json.loads(run_cli("verify", *filled, "--json").stdout)
    assert (report["ok"], report["files"], report["others"], report["damaged"], report["log"]) == (True, 3, 2, [], [])


def test_verify_names_damage(filled: list[str], run_cli: RunCLI) -> None:
    flip(filled, "docs/letter.txt", 3)
    flip(filled, "top", -1)
    done = run_cli("verify", *filled)
    assert done.exit_code == 1
    assert "  docs/letter.txt: its block at 0 is damaged" in done.stderr
    assert "  top: the trailer of its object states another length" in done.stderr
    assert done.stdout.endswith("2 problems\n")
    assert run_cli("verify", *filled, "--path", "docs/?[[]*").exit_code == 0


def test_verify_names_a_damaged_segment_even_where_it_hides_the_files(filled: list[str], run_cli: RunCLI) -> None:
    async def damage(bucket: S3Bucket) -> None:
        body = bytearray(await bucket.get(KEYS.segment(1)))
        body[50] ^= 1
        await bucket.put(KEYS.segment(1), [bytes(body)])

    in_store(filled, damage)
    done = run_cli("verify", *filled)
    assert done.exit_code == 1
    assert f"  {KEYS.segment(1)}: " in done.stderr
    assert "too damaged" in done.stderr
    report = json.loads(run_cli("verify", *filled, "--json").stdout)
    assert not report["ok"]
    assert [problem["path"] for problem in report["log"]] == [KEYS.segment(1)]


def test_verify_of_a_sample_tells_its_seed(filled: list[str], run_cli: RunCLI) -> None:
    report = json.loads(run_cli("verify", *filled, "--sample", "1%", "--json").stdout)
    assert report["files"] == 1
    again = json.loads(run_cli("verify", *filled, "--sample", "1", "--seed", report["seed"], "--json").stdout)
    assert again["bytes"] == report["bytes"]
    for wrong in ("0%", "101%", "some", "nan"):
        assert run_cli("verify", *filled, "--sample", wrong).exit_code == 2
