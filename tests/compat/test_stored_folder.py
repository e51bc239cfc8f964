"""The checks of what Syncthing encrypted: each accepts right data and names what is wrong."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.compat.awkward_tree import random_file
from untrusted_s3.compat.stored_folder import (
    StoredFolder,
    check_block_tokens,
    check_file_infos,
    check_names,
    check_token,
    fail_with,
)
from untrusted_s3.compat.trees import manifest
from untrusted_s3.crypto.file_info import encrypt_file_info
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import CheckFailed
from untrusted_s3.index.entry import Entry

BLOCK_SIZE = 128 << 10
KEY = FolderKey(bytes(range(32)), "folder")
OTHER_KEY = FolderKey(bytes(32), "folder")
LARGE, SMALL, EMPTY, LINK, DIRECTORY = "large", "directory/small", "empty", "link", "directory"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    random_file(root / LARGE, 2 * BLOCK_SIZE + 7, seed=1)
    random_file(root / SMALL, 100, seed=2)
    (root / EMPTY).touch(mode=0o600)
    (root / LINK).symlink_to("large")
    os.utime(root / LARGE, ns=(1, 1_234_567_890_123_456_789))
    return root


def real_file_info(root: Path, path: str) -> pb.FileInfo:
    """What a trusted device says of an item on its disk."""
    file = root / path
    status = file.lstat()
    real = pb.FileInfo(
        name=path,
        permissions=stat.S_IMODE(status.st_mode),
        modified_s=status.st_mtime_ns // 10**9,
        modified_ns=status.st_mtime_ns % 10**9,
        version=pb.Vector(counters=[pb.Counter(id=1, value=1)]),
    )
    if file.is_symlink():
        real.type = pb.SYMLINK
        real.symlink_target = os.fsencode(file.readlink())
    elif file.is_dir():
        real.type = pb.DIRECTORY
    else:
        data = file.read_bytes()
        real.size, real.block_size = len(data), BLOCK_SIZE
        for offset in range(0, len(data), BLOCK_SIZE) or [0]:
            block = data[offset : offset + BLOCK_SIZE]
            real.blocks.add(offset=offset, size=len(block), hash=hashlib.sha256(block).digest())
    return real


def entry_of(real: pb.FileInfo, change: Callable[[pb.FileInfo], None] = lambda fake: None) -> Entry:
    fake = encrypt_file_info(KEY, real)
    change(fake)
    return Entry(FileInfo(fake.SerializeToString(), fake), None)


def stored_folder(root: Path) -> StoredFolder:
    entries = [entry_of(real_file_info(root, path)) for path in manifest(root)]
    return StoredFolder(KEY.token(), {entry.file_info.name: entry for entry in entries})


def with_entry(stored: StoredFolder, entry: Entry) -> StoredFolder:
    return replace(stored, entries={**stored.entries, entry.file_info.name: entry})


def test_all_is_well(root: Path) -> None:
    stored = stored_folder(root)
    assert check_token(stored, KEY) == f"{len(KEY.token())} bytes, equal to ours"
    assert check_names(stored, KEY, manifest(root)) == "5 names of 4 to 15 bytes"
    assert check_block_tokens(stored, KEY, root) == "5 blocks with the offset"
    assert check_file_infos(stored, KEY, root) == "3 files, 1 directories, 1 symlinks"


def test_a_token_of_another_key(root: Path) -> None:
    with pytest.raises(CheckFailed, match=OTHER_KEY.token().hex()):
        check_token(StoredFolder(OTHER_KEY.token(), {}), KEY)


def test_a_name_that_is_missing(root: Path) -> None:
    stored = stored_folder(root)
    less = {name: entry for name, entry in stored.entries.items() if name != KEY.encrypt_name(SMALL)}
    with pytest.raises(CheckFailed, match=f"'{SMALL}' should be {KEY.encrypt_name(SMALL)}"):
        check_names(replace(stored, entries=less), KEY, manifest(root))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (KEY.encrypt_name("more"), "'more', which is not in the folder"),
        (OTHER_KEY.encrypt_name("more"), "the authentication tag does not fit"),
        ("plain", "not in the form of an encrypted name"),
    ],
)
def test_a_name_that_is_left_over(root: Path, name: str, said: str) -> None:
    stored = stored_folder(root)
    more = {**stored.entries, name: entry_of(real_file_info(root, EMPTY))}
    with pytest.raises(CheckFailed, match=said):
        check_names(replace(stored, entries=more), KEY, manifest(root))


def test_tokens_that_do_not_depend_on_the_offset(root: Path) -> None:
    real = real_file_info(root, LARGE)
    key = KEY.file_key(LARGE)

    def make_old(fake: pb.FileInfo) -> None:
        for block, plain in zip(fake.blocks, real.blocks, strict=True):
            block.hash = key.block_token(plain.hash, None)

    stored = with_entry(stored_folder(root), entry_of(real, make_old))
    assert check_block_tokens(stored, KEY, root) == "2 blocks with the offset, 3 blocks without the offset"


def test_block_tokens_of_other_data(root: Path) -> None:
    stored = stored_folder(root)
    data = bytearray((root / LARGE).read_bytes())
    data[BLOCK_SIZE] ^= 1
    (root / LARGE).write_bytes(data)
    with pytest.raises(CheckFailed, match="block 1 of 'large'"):
        check_block_tokens(stored, KEY, root)
    (root / LARGE).write_bytes(data[:BLOCK_SIZE])
    with pytest.raises(CheckFailed, match="'large' has 3 blocks, we make 1 of it"):
        check_block_tokens(stored, KEY, root)


@pytest.mark.parametrize("offset", [0, BLOCK_SIZE + 40])
def test_block_tokens_at_another_offset(root: Path, offset: int) -> None:
    real = real_file_info(root, LARGE)

    def alter(fake: pb.FileInfo) -> None:
        fake.blocks[1].hash = KEY.file_key(LARGE).block_token(real.blocks[1].hash, offset)

    with pytest.raises(CheckFailed, match="block 1 of 'large'"):
        check_block_tokens(with_entry(stored_folder(root), entry_of(real, alter)), KEY, root)


def test_a_file_that_is_missing_or_has_no_block_size(root: Path) -> None:
    with pytest.raises(CheckFailed, match="is not in the bucket"):
        check_block_tokens(StoredFolder(b"", {}), KEY, root)
    entry = entry_of(real_file_info(root, SMALL), lambda fake: fake.ClearField("block_size"))
    with pytest.raises(CheckFailed, match="has 1 blocks, we make 0 of it"):
        check_block_tokens(with_entry(stored_folder(root), entry), KEY, root)


@pytest.mark.parametrize(
    ("path", "change"),
    [
        (LARGE, lambda real: setattr(real, "modified_ns", real.modified_ns + 1)),
        (LARGE, lambda real: setattr(real, "modified_s", real.modified_s + 1)),
        (SMALL, lambda real: setattr(real, "permissions", 0o777)),
        (DIRECTORY, lambda real: setattr(real, "permissions", 0o700)),
        (LINK, lambda real: setattr(real, "symlink_target", b"elsewhere")),
        (LINK, lambda real: setattr(real, "type", pb.DIRECTORY)),
    ],
    ids=["nanosecond", "second", "mode of a file", "mode of a directory", "target", "type"],
)
def test_a_real_file_info_that_is_not_so_on_the_disk(
    root: Path, path: str, change: Callable[[pb.FileInfo], None]
) -> None:
    real = real_file_info(root, path)
    change(real)
    with pytest.raises(CheckFailed, match=f"different: '{path}'"):
        check_file_infos(with_entry(stored_folder(root), entry_of(real)), KEY, root)


def test_a_real_file_info_that_cannot_be_decrypted(root: Path) -> None:
    def alter(fake: pb.FileInfo) -> None:
        fake.encrypted = fake.encrypted[:-1] + bytes([fake.encrypted[-1] ^ 1])

    with pytest.raises(CheckFailed, match="cannot be decrypted"):
        check_file_infos(with_entry(stored_folder(root), entry_of(real_file_info(root, LARGE), alter)), KEY, root)


def test_a_file_info_whose_outside_does_not_fit(root: Path) -> None:
    def alter(fake: pb.FileInfo) -> None:
        fake.version.counters[0].value += 1

    with pytest.raises(CheckFailed, match="another version"):
        check_file_infos(with_entry(stored_folder(root), entry_of(real_file_info(root, LARGE), alter)), KEY, root)


def test_many_problems_are_counted() -> None:
    fail_with([])
    with pytest.raises(CheckFailed) as failure:
        fail_with([f"problem {number}" for number in range(8)])
    assert str(failure.value).splitlines() == [*(f"problem {number}" for number in range(5)), "and 3 more"]
