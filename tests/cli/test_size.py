"""Sizes on the command line."""

from __future__ import annotations

import pytest

from untrusted_s3.cli.size import parse_size


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("100", 100),
        ("7B", 7),
        ("1KiB", 1024),
        ("100GiB", 100 * 2**30),
        ("100 gib", 100 * 2**30),
        ("1.5TiB", 3 * 2**39),
        ("2TB", 2 * 10**12),
        ("3k", 3000),
        ("1PiB", 2**50),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1EiB", "1 2", "1e3", "none", "999999999999999PiB", "1GiBB"])
def test_what_is_no_size(text: str) -> None:
    assert parse_size(text) is None
