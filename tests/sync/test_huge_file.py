"""One file of a hundred times the memory for blocks, in as many parts as S3 allows in proportion."""

from __future__ import annotations

from pathlib import Path

from tests.simulated import inline_threads
from tests.sync.huge_file import play
from tests.virtual_time import virtual_time
from untrusted_s3.store.format import PartGrid

pytestmark = virtual_time

BLOCKS, BLOCK, MEMORY = 600, 1064, 16 * 1064


async def test_a_huge_file_keeps_the_promises(tmp_path: Path) -> None:
    """A crash at 90 % loses what was under way, and a file that goes back to what it was moves nothing."""
    grid = PartGrid(single_put_size=4000, min_part_size=BLOCK, max_parts=300)  # parts of two blocks
    with inline_threads():
        course = await play(tmp_path / "state", BLOCKS, BLOCK, MEMORY, grid, 0.9)
    for step in (course.before, course.after, course.change, course.back):
        assert step.held <= MEMORY // 2
    assert course.before.given + course.after.given <= course.size + MEMORY // 2 + BLOCK
    assert course.after.read <= course.before.sent, "only the checksums of the parts from before"
    assert course.change.given == BLOCK, "the rest is copied"
    assert course.change.sent <= 4 * BLOCK + course.trailer, "the first part, and the end"
    assert (course.back.given, course.back.sent, course.back.read) == (0, 0, 0)
