"""What a store costs in a month, about, by a table of prices (prices.toml, or a file of the user's)."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Final

from untrusted_s3.errors import UsageError
from untrusted_s3.stats.amounts import Amount
from untrusted_s3.store.usage import KINDS, RECEIVED

_MILLION: Final = 1e6
_TEXTS: Final = ("name", "title", "as_of", "source", "currency")
_NUMBERS: Final = ("gigabyte", "storage", "base", "included", "least", "least_object", "egress", "included_egress")
_TABLES: Final = ("million", "storage_classes")
_REQUIRED: Final = ("name", "currency", "gigabyte", "storage")


@dataclass(frozen=True, slots=True)
class Price:
    """The prices of one provider, without tax.

    Attributes:
        name: A short name.
        title: What is meant.
        as_of: When somebody has looked.
        source: Where.
        currency: The currency.
        gigabyte: The bytes of a gigabyte.
        storage: For a gigabyte and month.
        base: For a month, whatever is stored.
        included: Gigabytes that this includes.
        least: Gigabytes that are billed at least.
        least_object: Bytes that each object is billed as at least.
        egress: For a gigabyte that leaves the provider.
        included_egress: Gigabytes of that which the base price includes, in a month.
        million: For a million requests, by kind.
        storage_classes: For a gigabyte and month in other storage classes than the usual one.
    """

    name: str
    title: str
    as_of: str
    source: str
    currency: str
    gigabyte: float
    storage: float
    base: float
    included: float
    least: float
    least_object: float
    egress: float
    included_egress: float
    million: Mapping[str, float]
    storage_classes: Mapping[str, float]

    def estimate(self, stored: Mapping[str, Amount], requests: Mapping[str, float]) -> Estimate:
        """Return about what a month costs.

        `stored` is what is there all the time, by storage class. `requests` are their numbers by kind, and the bytes
        that the store sends (RECEIVED).
        """
        usual, others = Amount(), 0.0
        for storage_class, amount in stored.items():
            if storage_class in self.storage_classes:
                others += amount.bytes / self.gigabyte * self.storage_classes[storage_class]
            else:
                usual.add_all(amount)
        size = max(usual.bytes, usual.objects * self.least_object) / self.gigabyte
        storage = self.base + max(max(size, self.least) - self.included, 0.0) * self.storage
        sent = sum(self.million.get(kind, 0.0) * requests.get(kind, 0.0) for kind in KINDS) / _MILLION
        egress = max(requests.get(RECEIVED, 0.0) / self.gigabyte - self.included_egress, 0.0) * self.egress
        return Estimate(self, storage + others, sent, egress)


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a month costs, about.

    Attributes:
        price: The prices.
        storage: What is stored.
        requests: The requests.
        egress: What leaves the provider.
    """

    price: Price
    storage: float
    requests: float
    egress: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.storage + self.requests + self.egress

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "name": self.price.name,
            "title": self.price.title,
            "as_of": self.price.as_of,
            "source": self.price.source,
            "currency": self.price.currency,
            "storage": round(self.storage, 4),
            "requests": round(self.requests, 4),
            "egress": round(self.egress, 4),
            "total": round(self.total, 4),
            "egress_of_a_gigabyte": self.price.egress,
        }


def read_prices(path: Path | None = None) -> list[Price]:
    """Return the prices of a file, by default of the one that comes with the program.

    Raises UsageError, which names what is wrong, if it cannot be read.
    """
    try:
        text = path.read_text("utf-8") if path is not None else _shipped()
        value = tomllib.loads(text)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read as TOML: {error}") from error
    where = f"{path}: " if path is not None else ""
    tables = value.get("price")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise UsageError(f"{where}there is no [[price]]")
    return [_price(table, f"{where}[[price]] {number}: ") for number, table in enumerate(tables, 1)]


def _shipped() -> str:
    return resources.files(__package__).joinpath("prices.toml").read_text("utf-8")


def _price(table: Mapping[str, Any], where: str) -> Price:
    unknown = table.keys() - {*_TEXTS, *_NUMBERS, *_TABLES}
    if unknown:
        raise UsageError(f"{where}{sorted(unknown)[0]!r} is not known")
    for key in _REQUIRED:
        if key not in table:
            raise UsageError(f"{where}{key!r} is missing")
    million = table.get("million", {})
    if not isinstance(million, dict) or million.keys() - set(KINDS):
        raise UsageError(f"{where}'million' has prices for {', '.join(KINDS)} only")
    classes = table.get("storage_classes", {})
    if not isinstance(classes, dict):
        raise UsageError(f"{where}'storage_classes' is not a table")
    numbers = {key: _number(table.get(key, 0), f"{where}{key!r}") for key in _NUMBERS}
    if not numbers["gigabyte"]:
        raise UsageError(f"{where}'gigabyte' is zero")
    texts = {key: _text(table.get(key, ""), f"{where}{key!r}") for key in _TEXTS}
    prices, storage_classes = (
        {name: _number(price, f"{where}{name!r}") for name, price in one.items()} for one in (million, classes)
    )
    return Price(
        name=texts["name"],
        title=texts["title"],
        as_of=texts["as_of"],
        source=texts["source"],
        currency=texts["currency"],
        gigabyte=numbers["gigabyte"],
        storage=numbers["storage"],
        base=numbers["base"],
        included=numbers["included"],
        least=numbers["least"],
        least_object=numbers["least_object"],
        egress=numbers["egress"],
        included_egress=numbers["included_egress"],
        million=prices,
        storage_classes=storage_classes,
    )


def _text(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise UsageError(f"{what} is not a text")
    return value


def _number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UsageError(f"{what} is not a number of at least 0")
    return float(value)
