"""`stats` prints what a store holds and what it costs, as text and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import RunCLI

OWN = '[[price]]\nname = "own"\ncurrency = "EUR"\ngigabyte = 1\nstorage = 1\n'


def test_stats(run_cli: RunCLI, arguments: list[str], tmp_path: Path) -> None:
    store = arguments[:4]
    outcome = run_cli("stats", *store)
    assert (outcome.exit_code, outcome.stderr) == (0, "")
    lines = outcome.stdout.splitlines()
    assert lines[0].split() == ["folder", "live", "history", "garbage", "log", "unknown"]
    assert any(line.startswith("cloudflare-r2") for line in lines)
    assert lines[-1].startswith("Examples: check the prices")
    (prices := tmp_path / "prices.toml").write_text(OWN)
    found = json.loads(run_cli("stats", *store, "--json", "--prices", str(prices)).stdout)
    total = found["total"]
    assert total["all"]["bytes"] == sum(total[kind]["bytes"] for kind in ("live", "history", "log"))
    assert (total["history"]["objects"], total["garbage"]["objects"], total["unknown"]["objects"]) == (2, 0, 0)
    assert sum(one["objects"] for one in total["size_classes"]) == total["live"]["objects"] + 2
    assert found["requests"]["gateways"] == 0
    (cost,) = found["monthly_cost"]
    assert (cost["name"], cost["total"], cost["requests"]) == ("own", total["all"]["bytes"], 0)


def test_wrong_prices(run_cli: RunCLI, store_arguments: list[str], tmp_path: Path) -> None:
    (prices := tmp_path / "prices.toml").write_text("[[price]]\n")
    outcome = run_cli("stats", *store_arguments, "--prices", str(prices))
    assert outcome.exit_code == 2
    assert "'name' is missing" in outcome.stderr
