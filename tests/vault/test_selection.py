"""Paths and globs that select a part of a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.simulated import SimulatedBucket
from tests.vault.stored_folder import FOLDER_ID, PASSWORD, stored_folder
from untrusted_s3.errors import UsageError
from untrusted_s3.vault.folder import open_folder
from untrusted_s3.vault.selection import Selection


@pytest.mark.parametrize(
    ("glob", "included", "left_out"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["ab", "b", "b/a"]),
        ("/a/b/", ["a/b", "a/b/c"], ["a", "a/c"]),
        ("*.txt", ["x.txt", ".txt", "x.txt/below"], ["a/x.txt", "x.txt2"]),
        ("a/*/c", ["a/b/c"], ["a/c", "a/b/b/c"]),
        ("**/c", ["c", "a/c", "a/b/c", "a/c/d"], ["ac", "a/bc"]),
        ("a/**", ["a/b", "a/b/c"], ["a", "b"]),
        ("a/**/d", ["a/d", "a/b/c/d"], ["d"]),
        ("file ?", ["file 1", "file \n"], ["file ", "file 12", "file /"]),
        ("[a-c][!0-9]", ["ax", "c-"], ["a1", "dx", "a/"]),
        ("[]x]", ["]", "x"], ["[", "[]x"]),
        ("[[]a", ["[a"], ["a"]),
        ("(a|b)+.$^\\d", ["(a|b)+.$^\\d"], ["a", "b"]),
        ("[1] report", ["[1] report", "1 report"], ["2 report"]),
        ("[", ["["], ["a"]),
        ("", [], ["a"]),
    ],
)
def test_globs(glob: str, included: list[str], left_out: list[str]) -> None:
    selection = Selection([glob])
    assert [path for path in included if not selection.includes(path)] == []
    assert [path for path in left_out if selection.includes(path)] == []


def test_no_glob_selects_everything_and_several_add_up() -> None:
    assert Selection().includes("anything/at all")
    assert [path for path in ("a", "b", "c") if Selection(["a", "c"]).includes(path)] == ["a", "c"]


def test_a_reversed_range_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no glob"):
        Selection(["[z-a]"])


async def test_directories_come_with_what_lies_in_them(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    folder = await stored_folder(bucket, tmp_path)
    directories = [folder.directory(path) for path in ("a", "a/b", "a/b/c", "d", "d/e")]
    files = [await folder.file(path) for path in ("a/b/file", "a/other", "d/e/file", "top")]
    lost = await folder.file("lost", change_fake=lambda fake: setattr(fake, "encrypted", b"x" * 50))
    await folder.append(*directories, *files, lost)
    async with open_folder(bucket, FOLDER_ID, PASSWORD) as opened:
        selected = [entry.path for entry in Selection(["*/b/f*", "top", "l*"]).of(opened)]
    assert sorted(map(str, selected)) == ["a", "a/b", "a/b/file", "lost", "top"]
    assert selected.index("a") < selected.index("a/b") < selected.index("a/b/file")
