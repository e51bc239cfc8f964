"""File infos: the real one within the fake, and whether the two fit."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.constants import MAX_BLOCK_SIZE
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.crypto.file_info import decrypt_file_info, encrypt_file_info
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import DataError, DecryptionFailed, InconsistentFileInfo
from untrusted_s3.units import KIB
from untrusted_s3.vectors_check.second_opinion import SecondOpinion

KEY = FolderKey(bytes(range(32)), "folder")
OTHER = FolderKey(bytes(range(1, 33)), "folder")
BLOCK_SIZE = 128 * KIB

Change = Callable[[pb.FileInfo], object]


def blocks_of(size: int) -> list[pb.BlockInfo]:
    """The blocks of a file of that size; an empty file has one empty block."""
    return [
        pb.BlockInfo(
            offset=offset,
            size=min(BLOCK_SIZE, size - offset),
            hash=hashlib.sha256(f"{size} {offset}".encode()).digest(),
        )
        for offset in range(0, max(size, 1), BLOCK_SIZE)
    ]


def real_file(name: str = "directory/file", size: int = 3 * BLOCK_SIZE + 5) -> pb.FileInfo:
    """A regular file as a trusted device knows it."""
    return pb.FileInfo(
        name=name,
        type=pb.FILE,
        size=size,
        permissions=0o640,
        modified_s=1_700_000_000,
        modified_ns=5,
        modified_by=7,
        version=pb.Vector(counters=[pb.Counter(id=7, value=3), pb.Counter(id=8, value=4)]),
        sequence=12,
        block_size=BLOCK_SIZE,
        blocks=blocks_of(size),
    )


def real_item(kind: pb.FileInfoType, name: str = "item", deleted: bool = False) -> pb.FileInfo:
    """A directory or symlink, or something that was deleted."""
    version = pb.Vector(counters=[pb.Counter(id=7, value=3)])
    return pb.FileInfo(name=name, type=kind, version=version, sequence=3, deleted=deleted)


@st.composite
def real_file_infos(draw: st.DrawFn) -> pb.FileInfo:
    """Any file info that Syncthing might have."""
    kind = draw(st.sampled_from([pb.FILE, pb.DIRECTORY, pb.SYMLINK]))
    deleted = draw(st.booleans())
    name = draw(st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=300))
    real = real_item(kind, name, deleted)
    if kind == pb.FILE and not deleted:
        real.size = draw(st.integers(0, 5 * BLOCK_SIZE))
        real.blocks.extend(blocks_of(real.size))
    if kind == pb.SYMLINK:
        real.symlink_target = draw(st.binary(max_size=100))
    real.modified_s = draw(st.integers(-(2**63), 2**63 - 1))
    real.permissions = draw(st.integers(0, 0o7777))
    real.block_size = draw(st.sampled_from([0, BLOCK_SIZE, 2 * BLOCK_SIZE]))
    del real.version.counters[:]
    for number in range(draw(st.integers(0, 3))):
        real.version.counters.add(id=number, value=draw(st.integers(0, 2**64 - 1)))
    if draw(st.booleans()):
        xattrs = [pb.Xattr(name=b"user.a", value=draw(st.binary(max_size=20)))]
        real.platform = pb.PlatformData(linux=pb.XattrData(xattrs=xattrs)).SerializeToString()
    return real


def encrypted(real: pb.FileInfo, change: Change = lambda fake: None) -> FileInfo:
    """The fake of a real file info, changed by somebody without the key, and checked as a gateway does."""
    fake = encrypt_file_info(KEY, real)
    change(fake)
    return parse_file_info(fake.SerializeToString())


@given(real_file_infos())
def test_file_infos_come_back(real: pb.FileInfo) -> None:
    fake = encrypted(real)
    assert decrypt_file_info(KEY, fake) == real
    assert SecondOpinion().decrypt_file_info(KEY.raw, fake.message) == real
    with pytest.raises(DecryptionFailed):
        decrypt_file_info(OTHER, fake)


@given(real_file_infos())
def test_the_fake_is_always_the_same_but_for_the_ciphertext(real: pb.FileInfo) -> None:
    fakes = [encrypt_file_info(KEY, real), encrypt_file_info(KEY, real)]
    assert fakes[0].encrypted != fakes[1].encrypted
    for fake in fakes:
        fake.encrypted = b""
    assert fakes[0] == fakes[1] == SecondOpinion().encrypt_file_info(KEY.raw, real)


def test_a_fake_hides_what_it_is() -> None:
    link = real_item(pb.SYMLINK)
    link.symlink_target = b"secret target"
    link.platform = pb.PlatformData(unix=pb.UnixData(owner_name=b"secret owner")).SerializeToString()
    fake = encrypt_file_info(KEY, link)
    assert fake.type == pb.DIRECTORY
    assert b"secret" not in fake.SerializeToString()
    assert (fake.permissions, fake.modified_s, fake.version.counters[0].id) == (0o644, 1234567890, 1)


def test_fields_that_we_do_not_know_come_back() -> None:
    unknown = b"\xfa\x3f\x03abc"  # field 1023, three bytes
    key = KEY.file_key("item")
    fake = encrypt_file_info(KEY, real_item(pb.DIRECTORY))
    fake.encrypted = key.encrypt(real_item(pb.DIRECTORY).SerializeToString() + unknown)
    real = decrypt_file_info(KEY, parse_file_info(fake.SerializeToString()))
    assert unknown in real.SerializeToString()


def test_tokens_of_old_peers_are_taken() -> None:
    real = real_file()
    key = KEY.file_key(real.name)

    def without_offsets(fake: pb.FileInfo) -> None:
        for outer, inner in zip(fake.blocks, real.blocks, strict=True):
            outer.hash = key.block_token(inner.hash, None)

    assert decrypt_file_info(KEY, encrypted(real, without_offsets)) == real


def test_no_bit_of_the_ciphertext_can_be_changed() -> None:
    fake = encrypt_file_info(KEY, real_item(pb.DIRECTORY))
    sealed = fake.encrypted
    for position in range(8 * len(sealed)):
        fake.encrypted = (int.from_bytes(sealed) ^ 1 << position).to_bytes(len(sealed))
        with pytest.raises(DecryptionFailed, match="cannot be decrypted"):
            decrypt_file_info(KEY, parse_file_info(fake.SerializeToString()))


def test_a_real_file_info_that_is_none() -> None:
    fake = encrypt_file_info(KEY, real_item(pb.DIRECTORY))
    fake.encrypted = KEY.file_key("item").encrypt(b"\xff\xff\xff")
    with pytest.raises(DecryptionFailed, match="cannot be parsed"):
        decrypt_file_info(KEY, parse_file_info(fake.SerializeToString()))


def _exchange_tokens(fake: pb.FileInfo) -> None:
    fake.blocks[0].hash, fake.blocks[1].hash = fake.blocks[1].hash, fake.blocks[0].hash


def _drop_last_block(fake: pb.FileInfo) -> None:
    fake.size -= fake.blocks[-1].size
    del fake.blocks[-1]


def _repeat_last_block(fake: pb.FileInfo) -> None:
    last = fake.blocks[-1]
    fake.blocks.add(offset=last.offset + last.size, size=last.size, hash=last.hash)
    fake.size += last.size


def _enlarge_last_block(fake: pb.FileInfo) -> None:
    fake.blocks[-1].size += 1
    fake.size += 1


def _make_directory(fake: pb.FileInfo) -> None:
    fake.type, fake.size = pb.DIRECTORY, 0
    del fake.blocks[:]


def _make_deleted(fake: pb.FileInfo) -> None:
    fake.deleted, fake.size = True, 0
    del fake.blocks[:]


def _set_version(value: int) -> Change:
    return lambda fake: setattr(fake.version.counters[0], "value", value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_exchange_tokens, "token"),
        (lambda fake: setattr(fake.blocks[0], "hash", bytes(48)), "token"),
        (_drop_last_block, "encrypted blocks"),
        (_repeat_last_block, "encrypted blocks"),
        (_enlarge_last_block, "a block of"),
        (_make_directory, "type"),
        (_make_deleted, "deleted"),
        (_set_version(8), "version"),
        (_set_version(6), "version"),
        (lambda fake: fake.version.counters.add(id=2, value=1), "version"),
    ],
)
def test_an_outside_that_does_not_fit(change: Change, message: str) -> None:
    fake = encrypted(real_file(), change)
    with pytest.raises(InconsistentFileInfo, match=message):
        decrypt_file_info(KEY, fake)
    with pytest.raises(DataError):
        SecondOpinion().decrypt_file_info(KEY.raw, fake.message)


def _move_block(real: pb.FileInfo) -> None:
    real.blocks[1].offset -= 1


def _negative_block(real: pb.FileInfo) -> None:
    real.blocks[-1].size = -5


def _huge_block(real: pb.FileInfo) -> None:
    real.blocks[-1].size = MAX_BLOCK_SIZE + 1


def _short_hash(real: pb.FileInfo) -> None:
    real.blocks[1].hash = real.blocks[1].hash[:31]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda real: setattr(real, "name", "another"), "another"),
        (lambda real: setattr(real, "size", real.size + 1), "for a size of"),
        (_move_block, "impossible"),
        (_negative_block, "impossible"),
        (_huge_block, "impossible"),
        (_short_hash, "impossible"),
    ],
)
def test_an_inside_that_makes_no_sense(change: Change, message: str) -> None:
    real = real_file()
    fake = encrypt_file_info(KEY, real)
    key = KEY.file_key(real.name)
    change(real)
    fake.encrypted = key.encrypt(real.SerializeToString())
    with pytest.raises(InconsistentFileInfo, match=message):
        decrypt_file_info(KEY, parse_file_info(fake.SerializeToString()))


@given(st.binary(max_size=300))
def test_any_other_ciphertext_and_any_plaintext_within_one(data: bytes) -> None:
    fake = encrypt_file_info(KEY, real_item(pb.DIRECTORY))
    for encrypted_field in (data or b"\0", KEY.file_key("item").encrypt(data)):
        fake.encrypted = encrypted_field
        with pytest.raises(DataError):
            decrypt_file_info(KEY, parse_file_info(fake.SerializeToString()))


def test_a_file_info_under_the_name_of_another() -> None:
    file, other = encrypt_file_info(KEY, real_file("a")), encrypt_file_info(KEY, real_file("b"))
    file.encrypted = other.encrypted
    with pytest.raises(DecryptionFailed):
        decrypt_file_info(KEY, parse_file_info(file.SerializeToString()))


@pytest.mark.parametrize("inside", [True, False])
def test_blocks_of_an_invalid_file_do_not_matter(inside: bool) -> None:
    real = real_file()
    real.invalid = inside

    def invalidate(fake: pb.FileInfo) -> None:
        fake.invalid = True
        del fake.blocks[:]
        fake.size = -123

    assert decrypt_file_info(KEY, encrypted(real, invalidate)) == real
