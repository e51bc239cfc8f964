"""What a peer's index may say, beside what the protocol demands."""

from __future__ import annotations

import pytest

from tests.file_infos import file
from untrusted_s3.errors import RemoteProtocolError
from untrusted_s3.sync.index_in import check_size


def test_a_file_must_fit_into_an_object() -> None:
    check_size(file("a", sizes=(5000, 5000)), max_size=10_000)
    with pytest.raises(RemoteProtocolError, match="10001 bytes are more than an object can hold"):
        check_size(file("a", sizes=(5000, 5001)), max_size=10_000)
