"""The trailer of an object, and what is refused as one."""

from __future__ import annotations

import pytest

from tests.file_infos import file
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.errors import DataError
from untrusted_s3.objects.trailer import check_trailer, encode_trailer

UNKNOWN_FIELDS = b"\xfa\x3f\x03abc"


def test_layout() -> None:
    raw = file("file").raw + UNKNOWN_FIELDS
    assert encode_trailer(parse_file_info(raw)) == raw + len(raw).to_bytes(4, "big")


def test_an_older_file_info_of_the_same_content_is_good() -> None:
    older, newer = file("file", 1), file("file", 2)
    found = check_trailer(encode_trailer(older), newer)
    assert (found.raw, found.message.version) == (older.raw, older.message.version)


@pytest.mark.parametrize("size", range(5))
def test_too_short(size: int) -> None:
    with pytest.raises(DataError, match="trailer"):
        check_trailer(bytes(size), file("file"))


@pytest.mark.parametrize(
    ("trailer", "reason"),
    [
        (encode_trailer(file("file"))[1:], "another length"),
        (encode_trailer(file("file")) + b"\0", "another length"),
        (encode_trailer(file("file"))[:-4] + b"\xff\xff\xff\xff", "another length"),
        (b"\xff" * 50 + (50).to_bytes(4, "big"), "damaged"),
        (encode_trailer(file("other")), "another content"),
        (encode_trailer(file("file", content=7)), "another content"),
    ],
)
def test_trailers_of_something_else(trailer: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        check_trailer(trailer, file("file"))
