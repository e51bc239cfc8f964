"""Estimates follow the table, and a table that is wrong is refused with what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from untrusted_s3.errors import UsageError
from untrusted_s3.stats.amounts import Amount
from untrusted_s3.stats.prices import read_prices
from untrusted_s3.store.usage import RECEIVED

SOUND = """
[[price]]
name = "own"
currency = "EUR"
gigabyte = 1000
storage = 2
base = 5
included = 3
least = 4
least_object = 10
egress = 0.25
included_egress = 7
[price.million]
put = 4.0
get = 1.0
[price.storage_classes]
COLD = 0.5
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("amount", "storage"),
    [
        (Amount(1, 10_000), 5 + 2 * 7),  # 3 of 10 are included
        (Amount(1, 100), 5 + 2 * 1),  # at least 4 are billed
        (Amount(1000, 100), 5 + 2 * 7),  # each object counts as 10 bytes
    ],
)
def test_an_estimate(tmp_path: Path, amount: Amount, storage: float) -> None:
    (price,) = read_prices(written(tmp_path, SOUND))
    stored = {"STANDARD": amount, "COLD": Amount(7, 3000)}
    estimate = price.estimate(stored, {"put": 500_000, "get": 2e6, "list": 1e9, RECEIVED: 9000})
    assert (estimate.storage, estimate.requests, estimate.egress) == (storage + 1.5, 2.0 + 2.0, 2 * 0.25)
    assert estimate.to_json()["total"] == storage + 1.5 + 4.0 + 0.5


def test_the_prices_that_come_with_the_program() -> None:
    prices = read_prices()
    assert [one.name for one in prices] == ["aws-s3", "cloudflare-r2", "backblaze-b2", "wasabi", "hetzner"]
    assert all(one.as_of and one.source and one.title for one in prices)
    terabyte = Amount(10**6, 10**12)
    by_name = {
        one.name: one.estimate({"STANDARD": terabyte}, {"put": 1e6, "get": 1e6, RECEIVED: 1e12}) for one in prices
    }
    assert by_name["cloudflare-r2"].storage == pytest.approx(15)
    assert by_name["cloudflare-r2"].requests == pytest.approx(4.86)
    assert by_name["aws-s3"].requests == pytest.approx(5.4)
    assert by_name["wasabi"].storage == pytest.approx(7.99, abs=0.01)
    assert by_name["hetzner"].storage == 5.0
    assert {name: one.egress for name, one in by_name.items()} == pytest.approx(
        {"aws-s3": 83.8, "cloudflare-r2": 0, "backblaze-b2": 10, "wasabi": 0, "hetzner": 0}, abs=0.1
    )
    cold = {one.name: one.estimate({"STANDARD_IA": terabyte}, {}).storage for one in prices}
    assert cold["aws-s3"] == pytest.approx(11.6, abs=0.1)
    assert cold["cloudflare-r2"] == by_name["cloudflare-r2"].storage, "as much as the usual one"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("price = 1", r"there is no \[\[price\]\]"),
        ("[[price]\n", "cannot be read as TOML"),
        (SOUND.replace("gigabyte = 1000", ""), "'gigabyte' is missing"),
        (SOUND.replace("gigabyte = 1000", "gigabyte = 0"), "'gigabyte' is zero"),
        (SOUND.replace("storage = 2", "storage = -2"), "'storage' is not a number of at least 0"),
        (SOUND.replace("storage = 2", "storage = nan"), "'storage' is not a number of at least 0"),
        (SOUND.replace("put = 4.0", "puts = 4.0"), "'million' has prices for put, copy"),
        (SOUND.replace("put = 4.0", "put = 'much'"), "'put' is not a number"),
        (SOUND.replace("base =", "basis ="), "'basis' is not known"),
        (SOUND.replace('"EUR"', "3"), "'currency' is not a text"),
        (SOUND.replace("COLD = 0.5", "COLD = -1"), "'COLD' is not a number of at least 0"),
        (SOUND.replace("[price.million]", "storage_classes = 3").split("put")[0], "'storage_classes' is not a table"),
    ],
)
def test_a_wrong_table(tmp_path: Path, text: str, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError, match=said) as raised:
        read_prices(path)
    assert str(path) in str(raised.value)
