"""Sizes on the command line, such as 100GiB."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

import click

from untrusted_s3.cli.output import size_text

_FORM = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,6})?) ?([KMGTP]i?)?B?", re.IGNORECASE)
_PREFIXES = "KMGTP"
_MAX_SIZE = 2**62
NO_QUOTA: Final = "none"


@dataclass(frozen=True, slots=True)
class Quota:
    """A quota to set. `size` is in bytes, or None for no quota."""

    size: int | None


def parse_size(text: str) -> int | None:
    """Return the bytes of a size: GiB is 2**30, GB is 10**9, and a number alone is bytes. None if it is no size."""
    match = _FORM.fullmatch(text.strip())
    if match is None:
        return None
    unit = (match[2] or "").upper()
    base = 1024 if unit.endswith("I") else 1000
    size = int(Decimal(match[1]) * base ** (_PREFIXES.index(unit[0]) + 1 if unit else 0))
    return size if size <= _MAX_SIZE else None


class SizeType(click.ParamType[int]):
    """A size in bytes."""

    name = "size"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> int:
        """Parse the value of an option."""
        size = parse_size(str(value))
        if size is None:
            self.fail(f"{value!r} is no size: give a number and a unit, such as 100GiB", parameter, context)
        return size


class QuotaType(click.ParamType[Quota]):
    """A size in bytes, or none."""

    name = "quota"

    def convert(self, value: Any, parameter: click.Parameter | None, context: click.Context | None) -> Quota:
        """Parse the value of an option."""
        if isinstance(value, Quota):
            return value
        if str(value).lower() == NO_QUOTA:
            return Quota(None)
        size = parse_size(str(value))
        if size is None:
            self.fail(f"{value!r} is no quota: give a size such as 100GiB, or {NO_QUOTA}", parameter, context)
        return Quota(size)


def quota_text(size: int | None) -> str:
    """Return a quota for a table."""
    return size_text(size) if size is not None else ""
