"""What commands print."""

from __future__ import annotations

import pytest

from untrusted_s3.cli.output import size_text


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (150 << 10, "150 KiB"),
        (5 << 40, "5.0 TiB"),
        (7 << 60, "7,168 PiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert size_text(size) == text
