"""Files that are written with holes where the data are zeros."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.restore.metadata import Metadata
from untrusted_s3.restore.new_file import runs_of_data
from untrusted_s3.restore.target import Target


@given(st.lists(st.sampled_from([b"0" * 4096, bytes(4096), bytes(4095) + b"1"]), max_size=8), st.binary(max_size=100))
def test_runs_of_data_leave_out_zeros_alone(pages: list[bytes], rest: bytes) -> None:
    data = b"".join(pages) + rest
    rebuilt = bytearray(len(data))
    runs = list(runs_of_data(data))
    for start, end in runs:
        rebuilt[start:end] = data[start:end]
    assert rebuilt == data
    assert sum(end - start for start, end in runs) == 4096 * sum(any(page) for page in pages) + len(rest)


def test_zeros_take_no_space(tmp_path: Path) -> None:
    size = 64 << 20
    root = tmp_path / "target"
    with Target(root) as target, target.new_file("sparse", Metadata()) as file:
        for offset in range(0, size, 1 << 20):
            file.write(offset, b"data".ljust(1 << 20, b"\0") if offset == 32 << 20 else bytes(1 << 20))
        file.finish(size)
    status = (root / "sparse").stat()
    assert status.st_size == size
    assert status.st_blocks * 512 <= 64 << 10
    with (root / "sparse").open("rb") as opened:
        assert opened.seek(32 << 20) and opened.read(5) == b"data\0"
