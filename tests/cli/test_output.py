"""What commands print."""

from __future__ import annotations

import pytest

from untrusted_s3.cli.output import print_json, print_json_with_list, size_text


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


@pytest.mark.parametrize("items", [[], [{"a": 1}], [{"a": {"b": "é"}}, 2, None]])
def test_a_long_list_is_printed_as_print_json_does(items: list[object], capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"x": "ü", "names": items})
    whole = capsys.readouterr().out
    print_json_with_list({"x": "ü"}, "names", iter(items))
    assert capsys.readouterr().out == whole
