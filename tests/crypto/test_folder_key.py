"""Folder keys: the password token, and names."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from untrusted_s3.bep.file_info import is_encrypted_name
from untrusted_s3.crypto import names
from untrusted_s3.crypto.aes_siv import DeterministicCipher
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import DecryptionFailed, WrongPassword
from untrusted_s3.vectors_check.second_opinion import SecondOpinion

KEY = FolderKey(bytes(range(32)), "folder")
OTHER = FolderKey(bytes(range(1, 33)), "folder")
# The cipher of names that KEY has, for names that no key holder would encrypt.
CIPHER = DeterministicCipher(KEY.raw)
DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUV"

keys = st.binary(min_size=32, max_size=32)
paths = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=800)


def test_syncthings_own_known_answer() -> None:
    key = FolderKey.derive("my password", "my folder")
    encrypted = key.encrypt_name("filename.txt")
    assert encrypted == "3.syncthing-enc/T5/957I4IOA20VEIEER6JSQG0PEPIRV862II3K7LOF75Q"
    assert key.decrypt_name(encrypted) == "filename.txt"


def test_the_token_tells_a_wrong_password() -> None:
    key = FolderKey.derive("password", "folder")
    key.check_token(key.token())
    for other in (FolderKey.derive("Password", "folder"), FolderKey.derive("password", "Folder")):
        with pytest.raises(WrongPassword, match=other.folder_id) as refusal:
            other.check_token(key.token())
        assert refusal.value.exit_code == 4
    for token in (b"", key.token()[:-1], key.token() + b"\0"):
        with pytest.raises(WrongPassword):
            key.check_token(token)


def test_a_key_does_not_show_itself() -> None:
    for key in (KEY, KEY.file_key("name")):
        for secret in (key.raw.hex(), repr(key.raw)[2:-1]):
            assert secret not in repr(key) + str(key)


@given(keys, paths)
def test_names_come_back_and_have_the_form(raw: bytes, name: str) -> None:
    key = FolderKey(raw, "")
    encrypted = key.encrypt_name(name)
    assert key.decrypt_name(encrypted) == name
    assert is_encrypted_name(encrypted)
    assert re.fullmatch(r".\.syncthing-enc/../(.{200}/)*.{1,200}", encrypted)
    assert encrypted == SecondOpinion().encrypt_name(raw, name)


@given(paths, paths)
def test_different_names_stay_different(name: str, other: str) -> None:
    assume(name != other)
    assert KEY.encrypt_name(name) != KEY.encrypt_name(other)
    assert KEY.file_key(name).raw != KEY.file_key(other).raw


@pytest.mark.parametrize("name", ["a", "filename.txt", "n" * 300])
def test_no_bit_of_a_name_can_be_changed(name: str) -> None:
    ciphertext = names.from_path(KEY.encrypt_name(name))
    for position in range(8 * len(ciphertext)):
        changed = (int.from_bytes(ciphertext) ^ 1 << position).to_bytes(len(ciphertext))
        with pytest.raises(DecryptionFailed):
            KEY.decrypt_name(names.to_path(changed))


def test_another_key() -> None:
    with pytest.raises(DecryptionFailed):
        OTHER.decrypt_name(KEY.encrypt_name("name"))


@given(st.binary(min_size=17, max_size=1200))
def test_any_ciphertext_has_one_path(ciphertext: bytes) -> None:
    path = names.to_path(ciphertext)
    assert names.from_path(path) == ciphertext


@given(st.text(f"{DIGITS}/.enc-sythig", max_size=300))
def test_any_other_text_is_refused(text: str) -> None:
    try:
        ciphertext = names.from_path(text)
    except DecryptionFailed:
        return
    assert names.to_path(ciphertext) == text


def test_only_one_spelling_is_taken() -> None:
    path = KEY.encrypt_name("n" * 300)
    first, second, third, fourth, *rest = path.split("/")
    spellings = [
        path.lower(),
        path + "/",
        path.replace("/", "//", 1),
        "/".join([first, second, third + fourth, *rest]),
        "/".join([first, second + third[0], third[1:], fourth, *rest]),
        "/".join([first, second, third[:199], third[199] + fourth, *rest]),
        path.replace(".syncthing-enc", ""),
        path + "===",
        path + "\n",
    ]
    # A last digit that says the same with other spare bits
    assert 8 * len(names.from_path(path)) % 5, "the name must leave spare bits"
    spellings.append(path[:-1] + DIGITS[DIGITS.index(path[-1]) + 1])
    for spelling in spellings:
        assert spelling != path
        with pytest.raises(DecryptionFailed):
            KEY.decrypt_name(spelling)


def test_a_name_that_is_not_utf_8() -> None:
    sealed = CIPHER.encrypt(b"\xff\xfe name")
    with pytest.raises(DecryptionFailed, match="UTF-8"):
        KEY.decrypt_name(names.to_path(sealed))


def test_the_shortest_name_is_one_byte() -> None:
    assert KEY.decrypt_name(names.to_path(CIPHER.encrypt(b"a"))) == "a"
    with pytest.raises(DecryptionFailed):
        KEY.decrypt_name(names.to_path(CIPHER.encrypt(b"")))
