"""Secrets in files."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import fast_directory
from untrusted_s3.cli.secret import read_secret


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"secret", "secret"),
        (b"secret\n", "secret"),
        (b"secret\r\n", "secret"),
        (b"secret\n\n", "secret\n"),
        (b"secret\r\r\n", "secret\r"),
        (b"secret\r", "secret\r"),
        (b"two\r\nlines\n", "two\r\nlines"),
        (b"\n", ""),
        (b"", ""),
    ],
)
def test_one_line_break_at_the_end_is_left_out(tmp_path: Path, content: bytes, secret: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert read_secret(file, "secret") == secret


@given(st.text(st.sampled_from("x\r\n ä"), max_size=6))
def test_every_secret_can_be_given_by_a_file(secret: str) -> None:
    with fast_directory() as directory:
        file = directory / "secret"
        file.write_bytes(secret.encode() + b"\r\n")
        assert read_secret(file, "secret") == secret
