"""File keys: block tokens and blocks."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.bep.constants import MAX_BLOCK_SIZE, MAX_ENCRYPTED_BLOCK_SIZE, MIN_ENCRYPTED_BLOCK_SIZE
from untrusted_s3.crypto.file_key import FileKey, encrypted_block_size
from untrusted_s3.errors import DecryptionFailed
from untrusted_s3.units import KIB
from untrusted_s3.vectors_check.second_opinion import SecondOpinion

KEY = FileKey(bytes(range(32)))
OTHER = FileKey(bytes(range(1, 33)))

blocks = st.integers(0, 3000).flatmap(lambda size: st.binary(min_size=size, max_size=size))
hashes = st.binary(min_size=32, max_size=32)
offsets = st.integers(0, 2**63 - 1)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@given(blocks)
def test_blocks_come_back(block: bytes) -> None:
    encrypted = KEY.encrypt_block(block)
    assert len(encrypted) == encrypted_block_size(len(block))
    assert KEY.decrypt_block(encrypted, len(block), sha256(block)) == block
    assert KEY.decrypt_block(memoryview(encrypted), len(block), sha256(block)) == block
    assert SecondOpinion().decrypt_block(KEY.raw, encrypted, len(block), sha256(block)) == block


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1025, 128 * KIB, MAX_BLOCK_SIZE])
def test_sizes(size: int) -> None:
    block = bytes(size)
    encrypted = KEY.encrypt_block(block)
    assert len(encrypted) == max(size, 1024) + 40
    assert MIN_ENCRYPTED_BLOCK_SIZE <= len(encrypted) <= MAX_ENCRYPTED_BLOCK_SIZE
    assert KEY.decrypt_block(encrypted, size, sha256(block)) == block


def test_one_block_never_looks_the_same() -> None:
    assert len({KEY.encrypt_block(b"block") for _ in range(100)}) == 100
    padding = {KEY.decrypt(KEY.encrypt_block(b"block"))[5:] for _ in range(100)}
    assert len(padding) == 100


def test_no_bit_of_a_block_can_be_changed() -> None:
    encrypted = KEY.encrypt_block(b"block")
    for position in range(0, 8 * len(encrypted), 7):
        changed = (int.from_bytes(encrypted) ^ 1 << position).to_bytes(len(encrypted))
        with pytest.raises(DecryptionFailed):
            KEY.decrypt_block(changed, 5, sha256(b"block"))


@pytest.mark.parametrize("size", [0, 39, 40, 41, 1063])
def test_a_truncated_block(size: int) -> None:
    encrypted = KEY.encrypt_block(b"block")
    with pytest.raises(DecryptionFailed):
        KEY.decrypt_block(encrypted[:size], 5, sha256(b"block"))
    with pytest.raises(DecryptionFailed):
        KEY.decrypt(encrypted[:size])


def test_a_genuine_block_in_the_place_of_another() -> None:
    encrypted = KEY.encrypt_block(b"old contents")
    with pytest.raises(DecryptionFailed, match="another one"):
        KEY.decrypt_block(encrypted, 12, sha256(b"new contents"))
    with pytest.raises(DecryptionFailed):
        KEY.decrypt_block(encrypted, 11, sha256(b"old content"[:10]))
    with pytest.raises(DecryptionFailed):
        OTHER.decrypt_block(encrypted, 12, sha256(b"old contents"))
    with pytest.raises(DecryptionFailed, match="cannot be"):
        KEY.decrypt_block(encrypted, 1025, sha256(b"old contents"))


@given(hashes, offsets)
def test_tokens_give_the_hash_back(block_hash: bytes, offset: int) -> None:
    token = KEY.block_token(block_hash, offset)
    assert len(token) == 48
    assert KEY.block_hash(token, offset) == block_hash
    assert token == KEY.block_token(block_hash, offset)
    assert token == SecondOpinion().block_token(KEY.raw, block_hash, offset)
    old = KEY.block_token(block_hash, None)
    assert old != token
    assert old == SecondOpinion().block_token(KEY.raw, block_hash, None)
    assert KEY.block_hash(old, offset) == block_hash


@given(hashes, offsets, offsets)
def test_a_token_belongs_to_its_offset(block_hash: bytes, offset: int, other: int) -> None:
    token = KEY.block_token(block_hash, offset)
    if offset != other:
        with pytest.raises(DecryptionFailed):
            KEY.block_hash(token, other)
    with pytest.raises(DecryptionFailed):
        OTHER.block_hash(token, offset)


def test_no_bit_of_a_token_can_be_changed() -> None:
    token = KEY.block_token(bytes(32), 1 << 40)
    for position in range(8 * len(token)):
        with pytest.raises(DecryptionFailed):
            KEY.block_hash((int.from_bytes(token) ^ 1 << position).to_bytes(48), 1 << 40)
    for size in range(48):
        with pytest.raises(DecryptionFailed):
            KEY.block_hash(token[:size], 1 << 40)


@given(st.binary(max_size=1200), st.integers(0, 2000), offsets)
def test_anything_else_is_refused(data: bytes, size: int, offset: int) -> None:
    with pytest.raises(DecryptionFailed):
        KEY.decrypt(data)
    with pytest.raises(DecryptionFailed):
        KEY.decrypt_block(data, size, bytes(32))
    with pytest.raises(DecryptionFailed):
        KEY.block_hash(data, offset)
