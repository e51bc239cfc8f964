"""Nothing from the store leads out of the state folder, and only what this program makes is deleted."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.simulated import fast_directory
from untrusted_s3.errors import DataError
from untrusted_s3.index.local_files import delete_others, folder_directory, store_directory

OWN = "00000000000000aa"
OTHER = "00000000000000bb"
STORE_ID = "0123456789abcdef" * 2
HOSTILE = [
    "/home/user", "..", ".", "", "../..", "a/b", "a\\b", "\0", "~", "C:\\", STORE_ID + "/", STORE_ID + "\n",
    STORE_ID.upper(), STORE_ID[:-1], STORE_ID + "0", "٣" * 32, "/" + STORE_ID[1:], "ﬁ", "\udc80", "con", " ",
]  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=80),
    st.text("0123456789abcdef", min_size=30, max_size=34),
    st.text("./\\~\0aA-_", max_size=70),
)


@settings(deadline=None, max_examples=400)
@given(TEXTS)
def test_a_store_id_is_one_component_or_refused(store_id: str) -> None:
    base = Path("/state")
    try:
        made = store_directory(base, store_id)
    except DataError:
        assert not re.fullmatch("[0-9a-f]{32}", store_id)
    else:
        assert (made.parent, made.name) == (base, store_id)
        assert re.fullmatch("[0-9a-f]{32}", store_id)


@settings(deadline=None, max_examples=400)
@given(TEXTS.filter(lambda text: "\udc80" not in text), st.integers(1, 2**64 - 1))
def test_a_folder_stays_below_its_store(folder_id: str, index_id: int) -> None:
    base = Path("/state", STORE_ID)
    made = folder_directory(base, folder_id, index_id)
    assert made.parent.parent == base
    assert made.name == f"{index_id:016x}"
    assert re.fullmatch(r"[0-9A-Za-z_-][0-9A-Za-z._-]*", made.parent.name)
    assert Path(os.path.normpath(made)) == made


def test_an_index_id_out_of_range_is_refused() -> None:
    for index_id in (-1, 2**64):
        with pytest.raises(DataError):
            folder_directory(Path("/state"), "folder", index_id)


def filled(directory: Path, *names: str) -> Path:
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")
    return directory


OURS = [
    "state.sqlite", "state.sqlite-wal", "state.sqlite-shm", "state.sqlite-journal", "pending.sqlite",
    "pending.sqlite-wal", "checkpoint-ab12_xyz/state.sqlite", "checkpoint-ab12_xyz/state.sqlite-journal",
]  # fmt: skip
FOREIGN = [
    "photo.jpg", "state.sqlite.bak", "state.sqlite-wal2", "deep/state.sqlite", "checkpoint-ab12_xyz/photo.jpg",
    "checkpoint-/state.sqlite", "checkpoint-ab12_xyz/deep/state.sqlite", ".hidden", "State.sqlite",
]  # fmt: skip


def test_local_files_of_a_removed_folder_are_deleted(tmp_path: Path) -> None:
    own = filled(tmp_path / OWN, *OURS)
    filled(tmp_path / OTHER, *OURS)
    (tmp_path / "00000000000000cc").mkdir()
    delete_others(own)
    assert [path.name for path in tmp_path.iterdir()] == [OWN]
    assert all((own / name).exists() for name in OURS)


def test_a_missing_folder_is_no_error(tmp_path: Path) -> None:
    delete_others(tmp_path / "missing" / OWN)


@pytest.mark.parametrize("foreign", FOREIGN)
def test_a_directory_with_anything_else_stays_whole(foreign: str, tmp_path: Path) -> None:
    other = filled(tmp_path / OTHER, *OURS, foreign)
    delete_others(tmp_path / OWN)
    assert all((other / name).exists() for name in (*OURS, foreign))


@pytest.mark.parametrize(
    "name", ["bb", "00000000000000BB", "00000000000000bbb", "Documents", ".git", "000000000000000g", "checkpoint-abc"]
)
def test_a_directory_of_another_name_stays(name: str, tmp_path: Path) -> None:
    filled(tmp_path / name, *OURS)
    delete_others(tmp_path / OWN)
    assert all((tmp_path / name / ours).exists() for ours in OURS)


def test_links_are_not_followed(tmp_path: Path) -> None:
    elsewhere = filled(tmp_path / "elsewhere", "state.sqlite")
    base = tmp_path / "base"
    filled(base / "00000000000000cc", "pending.sqlite")
    filled(base / "00000000000000dd", "pending.sqlite")
    (base / OTHER).symlink_to(elsewhere)
    (base / "00000000000000cc" / "state.sqlite").symlink_to(elsewhere / "state.sqlite")
    (base / "00000000000000dd" / "checkpoint-aaaaaaaa").symlink_to(elsewhere)
    delete_others(base / OWN)
    assert (elsewhere / "state.sqlite").read_bytes() == b"content"
    assert sorted(path.name for path in base.iterdir()) == [OTHER, "00000000000000cc", "00000000000000dd"]


NAMES = st.sampled_from([*OURS, *FOREIGN]) | st.from_regex(r"[a-z.-]{1,12}(/[a-z.-]{1,12})?", fullmatch=True)
DIRECTORIES = st.sampled_from([OTHER, "0" * 16, "f" * 16, "Documents", "0" * 15, "0" * 17, "F" * 16, ".ssh"])


@settings(deadline=None, max_examples=150)
@given(st.dictionaries(DIRECTORIES, st.sets(NAMES, max_size=4), max_size=4))
def test_only_what_is_wholly_ours_is_deleted(tree: dict[str, set[str]]) -> None:
    with fast_directory() as base:
        made: dict[str, set[str]] = {}
        for directory, names in tree.items():
            (base / directory).mkdir()
            for name in names:
                try:
                    filled(base / directory, name)
                except OSError:
                    continue  # "." and "..", or a file where a directory is to be
                made.setdefault(directory, set()).add(name)
        delete_others(base / OWN)
        for directory in tree:
            ours = re.fullmatch("[0-9a-f]{16}", directory) and made.get(directory, set()) <= set(OURS)
            if ours:
                assert not (base / directory).exists()
            else:
                assert all((base / directory / name).exists() for name in made.get(directory, ()))
        for path in base.iterdir():
            shutil.rmtree(path)
