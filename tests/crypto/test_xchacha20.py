"""XChaCha20-Poly1305 from parts is that of libsodium."""

from __future__ import annotations

import nacl.bindings as sodium
import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.crypto import xchacha20
from untrusted_s3.errors import DecryptionFailed
from untrusted_s3.vectors_check.second_opinion import SecondOpinion

keys = st.binary(min_size=32, max_size=32)
nonces = st.binary(min_size=24, max_size=24)
texts = st.binary(max_size=300)


@given(keys, nonces, texts, texts)
def test_what_we_encrypt_is_what_libsodium_encrypts(key: bytes, nonce: bytes, plaintext: bytes, data: bytes) -> None:
    theirs = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, data, nonce, key)
    assert xchacha20.encrypt(key, nonce, plaintext, data) == theirs
    assert xchacha20.decrypt(key, nonce, theirs, data) == plaintext


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1 << 20, (16 << 20) + 1])
def test_sizes_up_to_more_than_the_largest_block(size: int) -> None:
    key, nonce, plaintext = bytes(range(32)), bytes(range(24)), b"\xa5" * size
    theirs = sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, None, nonce, key)
    assert xchacha20.encrypt(key, nonce, plaintext) == theirs
    assert xchacha20.decrypt(key, nonce, memoryview(theirs)) == plaintext


@given(keys, st.binary(min_size=16, max_size=16))
def test_hchacha20_is_the_rounds_without_the_last_addition(key: bytes, nonce: bytes) -> None:
    assert xchacha20.hchacha20(key, nonce) == SecondOpinion().hchacha20(key, nonce)


def test_a_block_counter_of_all_ones_does_not_matter() -> None:
    key, nonce = bytes(32), b"\xff" * 16
    assert xchacha20.hchacha20(key, nonce) == SecondOpinion().hchacha20(key, nonce)


def test_no_bit_can_be_changed() -> None:
    key, nonce, data = bytes(range(32)), bytes(range(24)), b"data"
    sealed = xchacha20.encrypt(key, nonce, b"plaintext", data)
    for position in range(8 * len(sealed)):
        changed = (int.from_bytes(sealed) ^ 1 << position).to_bytes(len(sealed))
        with pytest.raises(DecryptionFailed):
            xchacha20.decrypt(key, nonce, changed, data)
    for wrong_key, wrong_nonce, wrong_data in [
        (bytes(32), nonce, data),
        (key, bytes(24), data),
        (key, nonce, b""),
        (key, nonce, None),
    ]:
        with pytest.raises(DecryptionFailed):
            xchacha20.decrypt(wrong_key, wrong_nonce, sealed, wrong_data)


@pytest.mark.parametrize("size", [0, 1, 15])
def test_what_is_shorter_than_a_tag(size: int) -> None:
    with pytest.raises(DecryptionFailed):
        xchacha20.decrypt(bytes(32), bytes(24), bytes(size))
