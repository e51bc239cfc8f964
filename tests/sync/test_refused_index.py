"""What a Close says of our index."""

from __future__ import annotations

import pytest

from tests.file_infos import device
from untrusted_s3.sync.refused_index import Suspect, is_refusal, suspects

A, B, C = device(1), device(2), device(3)


@pytest.mark.parametrize(
    ("reason", "refuses"),
    [
        # As Syncthing 1.19.2 and 1.29.5 say it (tests/interop/test_refused_index.py).
        ("handling index-update for f: siv: authentication failed", True),
        ("handling index for f: chacha20poly1305: message authentication failed", True),
        ("handling index for f: illegal base32 data at input byte 8", True),
        ("handling index for f: data too short", True),
        ('handling index for f: invalid encrypted path: "a/b"', True),
        ("handling index for f: proto: cannot parse invalid wire-format data", True),
        ("handling index for other: siv: authentication failed", False),
        ("handling index for f: database or disk is full", False),
        ("handling cluster-config: siv: authentication failed", False),
        ("siv: authentication failed", False),
        ("handling index for f", False),
        ("", False),
    ],
)
def test_reasons(reason: str, refuses: bool) -> None:
    assert is_refusal(reason, "f") == refuses


def test_a_folder_id_that_looks_like_a_reason() -> None:
    assert not is_refusal("handling index for authentication failed: disk is full", "authentication failed")
    assert is_refusal("handling index for a: b: siv: authentication failed", "a: b")


def test_untrusted_devices_are_suspected_first() -> None:
    sources = [(A, True)] * 5 + [(B, False)] * 2 + [(C, False)] * 3 + [(None, True)] * 9
    assert suspects(sources) == (Suspect(C, 3, False), Suspect(B, 2, False), Suspect(A, 5, True))
