"""Which directories are those of receive-encrypted folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from untrusted_s3.errors import UsageError
from untrusted_s3.native_disk.token_file import TOKEN_NAME, PasswordToken, find_token

# As Syncthing 1.29.5 writes it
TEXT = '{"FolderID":"from disk","Token":"q83vEjRWeJA="}\n'


def write(root: Path, marker: str, text: str = TEXT) -> None:
    (root / marker).mkdir()
    (root / marker / TOKEN_NAME).write_text(text)


@pytest.mark.parametrize("marker", [".stfolder", "my marker"])
def test_a_token_file(tmp_path: Path, marker: str) -> None:
    write(tmp_path, marker)
    assert find_token(tmp_path) == (marker, PasswordToken("from disk", bytes.fromhex("abcdef1234567890")))


def test_no_token_file_and_several(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"not the directory of a receive-encrypted folder: there is no .stfolder/"):
        find_token(tmp_path)
    write(tmp_path, ".stfolder")
    write(tmp_path, "other")
    with pytest.raises(UsageError, match=r"several token files, in .stfolder and other"):
        find_token(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"FolderID": "a"}',
        '{"FolderID": 1, "Token": "AAAA"}',
        '{"FolderID": "", "Token": "AAAA"}',
        '{"FolderID": "a", "Token": "A"}',
        '{"FolderID": "a", "Token": null}',
        '{"FolderID": "a", "Token": ""}',
        '{"FolderID": "\\ud800", "Token": "AAAA"}',
    ],
)
def test_what_is_no_token_file(tmp_path: Path, text: str) -> None:
    write(tmp_path, ".stfolder", text)
    with pytest.raises(UsageError):
        find_token(tmp_path)
