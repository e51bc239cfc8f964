"""A second implementation: miscreant, PyNaCl (libsodium) and Python's standard library.

Written from the specifications, for clarity instead of speed. It shares no code with `untrusted_s3.crypto`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence

import nacl.bindings as sodium
import nacl.exceptions
from google.protobuf.message import DecodeError
from miscreant.aes.siv import SIV
from miscreant.exceptions import IntegrityError

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.errors import DataError, DecryptionFailed, InconsistentFileInfo, WrongPassword
from untrusted_s3.vectors_check.implementation import Implementation

_LIBRARIES = {
    "scrypt": "PyNaCl",
    "hkdf_sha256": "hmac",
    "aes_siv": "miscreant",
    "hchacha20": "plain Python",
    "xchacha20_poly1305": "PyNaCl",
    "password_token": "PyNaCl and miscreant",
    "encrypted_name": "miscreant",
    "file_key": "hmac",
    "block_token": "miscreant",
    "encrypted_block": "PyNaCl",
    "file_info": "PyNaCl and miscreant",
}
_SCRYPT_MEMORY = 256 << 20
_EMPTY_NONCE = b""


class SecondOpinion(Implementation):
    """An implementation on other libraries than ours."""

    def libraries(self, operation: str) -> str:
        return _LIBRARIES[operation]

    # Primitives

    def scrypt(self, password: bytes, salt: bytes, n: int, r: int, p: int, length: int) -> bytes:
        return bytes(sodium.crypto_pwhash_scryptsalsa208sha256_ll(password, salt, n, r, p, length, _SCRYPT_MEMORY))

    def hkdf_sha256(self, input_key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
        # RFC 5869, sections 2.2 and 2.3
        extracted = hmac.digest(salt, input_key, "sha256")
        output = block = b""
        for number in range(1, 256):
            if len(output) >= length:
                break
            block = hmac.digest(extracted, block + info + bytes([number]), "sha256")
            output += block
        return output[:length]

    def aes_siv_seal(self, key: bytes, associated_data: Sequence[bytes], plaintext: bytes) -> bytes:
        return bytes(SIV(key).seal(plaintext, list(associated_data)))

    def aes_siv_open(self, key: bytes, associated_data: Sequence[bytes], ciphertext: bytes) -> bytes:
        if len(ciphertext) < 16:
            raise DecryptionFailed("shorter than a tag")
        try:
            return bytes(SIV(key).open(ciphertext, list(associated_data)))
        except IntegrityError as error:
            raise DecryptionFailed(str(error)) from error

    def hchacha20(self, key: bytes, nonce: bytes) -> bytes:
        # RFC 8439, section 2.3, without the last addition: draft-irtf-cfrg-xchacha, section 2.2
        start = b"expand 32-byte k" + key + nonce
        state = [int.from_bytes(start[place : place + 4], "little") for place in range(0, 64, 4)]
        for _ in range(10):
            for column in range(4):
                _quarter_round(state, column, column + 4, column + 8, column + 12)
            for column in range(4):
                _quarter_round(state, column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4)
        return b"".join(word.to_bytes(4, "little") for word in state[:4] + state[12:])

    def xchacha20_poly1305_seal(self, key: bytes, nonce: bytes, associated_data: bytes, plaintext: bytes) -> bytes:
        return bytes(sodium.crypto_aead_xchacha20poly1305_ietf_encrypt(plaintext, associated_data, nonce, key))

    def xchacha20_poly1305_open(self, key: bytes, nonce: bytes, associated_data: bytes, ciphertext: bytes) -> bytes:
        if len(ciphertext) < 16:
            raise DecryptionFailed("shorter than a tag")
        try:
            return bytes(sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(ciphertext, associated_data, nonce, key))
        except nacl.exceptions.CryptoError as error:
            raise DecryptionFailed(str(error)) from error

    # Syncthing's folder encryption

    def folder_key(self, folder_id: str, password: str) -> bytes:
        return self.scrypt(password.encode(), b"syncthing" + folder_id.encode(), 32768, 8, 1, 32)

    def password_token(self, folder_key: bytes, folder_id: str) -> bytes:
        return self.aes_siv_seal(folder_key, [_EMPTY_NONCE], b"syncthing" + folder_id.encode())

    def check_password(self, folder_id: str, password: str, token: bytes) -> bytes:
        folder_key = self.folder_key(folder_id, password)
        try:
            known = self.aes_siv_open(folder_key, [_EMPTY_NONCE], token)
        except DecryptionFailed as error:
            raise WrongPassword("the token does not open") from error
        if known != b"syncthing" + folder_id.encode():
            raise WrongPassword("the token is of another folder")
        return folder_key

    def encrypt_name(self, folder_key: bytes, name: str) -> str:
        digits = base64.b32hexencode(self.aes_siv_seal(folder_key, [_EMPTY_NONCE], name.encode())).decode().strip("=")
        return f"{digits[0]}.syncthing-enc/{digits[1:3]}/{'/'.join(re.findall('.{1,200}', digits[3:]))}"

    def decrypt_name(self, folder_key: bytes, encrypted_name: str) -> str:
        if encrypted_name[1:15] != ".syncthing-enc":
            raise DecryptionFailed("not an encrypted name")
        digits = (encrypted_name[:1] + encrypted_name[15:]).replace("/", "")
        try:
            ciphertext = base64.b32hexdecode(digits + "=" * (-len(digits) % 8))
            name = self.aes_siv_open(folder_key, [_EMPTY_NONCE], ciphertext).decode()
        except (binascii.Error, ValueError) as error:
            raise DecryptionFailed(str(error)) from error
        if self.encrypt_name(folder_key, name) != encrypted_name:
            raise DecryptionFailed("another spelling of an encrypted name")
        return name

    def file_key(self, folder_key: bytes, name: str) -> bytes:
        return self.hkdf_sha256(folder_key + name.encode(), b"syncthing", b"", 32)

    def block_token(self, file_key: bytes, block_hash: bytes, offset: int | None) -> bytes:
        return self.aes_siv_seal(file_key, _token_data(offset), block_hash)

    def block_hash(self, file_key: bytes, token: bytes, offset: int | None) -> bytes:
        try:
            return self.aes_siv_open(file_key, _token_data(None), token)
        except DecryptionFailed:
            return self.aes_siv_open(file_key, _token_data(offset), token)

    def decrypt_block(self, file_key: bytes, encrypted: bytes, size: int, block_hash: bytes) -> bytes:
        plaintext = self._open(file_key, encrypted)
        if len(plaintext) != max(size, 1024) or hashlib.sha256(plaintext[:size]).digest() != block_hash:
            raise DecryptionFailed("another block")
        return plaintext[:size]

    def encrypt_file_info(self, folder_key: bytes, real: pb.FileInfo) -> pb.FileInfo:
        file_key = self.file_key(folder_key, real.name)
        fake = pb.FileInfo(name=self.encrypt_name(folder_key, real.name), permissions=0o644, modified_s=1234567890)
        fake.deleted, fake.invalid, fake.sequence = real.deleted, real.invalid, real.sequence
        fake.version.counters.add(id=1, value=sum(counter.value for counter in real.version.counters) % 2**64)
        if real.type != pb.FILE:
            fake.type = pb.DIRECTORY
            return fake
        fake.block_size = max(real.block_size, 131072) + 40
        for block in real.blocks:
            token = self.block_token(file_key, block.hash, block.offset)
            fake.blocks.add(offset=fake.size, size=max(block.size, 1024) + 40, hash=token)
            fake.size += fake.blocks[-1].size
        return fake

    def decrypt_file_info(self, folder_key: bytes, fake: pb.FileInfo) -> pb.FileInfo:
        name = self.decrypt_name(folder_key, fake.name)
        file_key = self.file_key(folder_key, name)
        try:
            real = pb.FileInfo.FromString(self._open(file_key, fake.encrypted))
        except DecodeError as error:
            raise DecryptionFailed(str(error)) from error
        if real.name != name:
            raise InconsistentFileInfo("it has another name")
        expected = self.encrypt_file_info(folder_key, real)
        if (expected.type, expected.deleted, expected.version) != (fake.type, fake.deleted, fake.version):
            raise InconsistentFileInfo("it has another type or version")
        if not real.invalid and not fake.invalid:
            self._check_blocks(file_key, expected, fake, real)
        return real

    def _check_blocks(self, file_key: bytes, expected: pb.FileInfo, fake: pb.FileInfo, real: pb.FileInfo) -> None:
        sizes = [(block.offset, block.size) for block in fake.blocks]
        if fake.size != expected.size or sizes != [(block.offset, block.size) for block in expected.blocks]:
            raise InconsistentFileInfo("its blocks have other sizes")
        offset = 0
        for outer, inner in zip(fake.blocks, real.blocks, strict=True):
            try:
                hashed = self.block_hash(file_key, outer.hash, offset)
            except DataError as error:
                raise InconsistentFileInfo("a token of another block") from error
            if hashed != inner.hash or inner.offset != offset:
                raise InconsistentFileInfo("another block")
            offset += inner.size
        if real.type == pb.FILE and real.size != offset:
            raise InconsistentFileInfo("the blocks do not add up to its size")

    def _open(self, file_key: bytes, data: bytes) -> bytes:
        if len(data) < 40:
            raise DecryptionFailed("shorter than a nonce and a tag")
        return self.xchacha20_poly1305_open(file_key, data[:24], b"", data[24:])


def _token_data(offset: int | None) -> list[bytes]:
    return [_EMPTY_NONCE] if offset is None else [offset.to_bytes(8, "big"), _EMPTY_NONCE]


def _quarter_round(state: list[int], a: int, b: int, c: int, d: int) -> None:
    for target, addend, turned, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        state[target] = (state[target] + state[addend]) & 0xFFFFFFFF
        mixed = state[turned] ^ state[target]
        state[turned] = (mixed << by | mixed >> (32 - by)) & 0xFFFFFFFF
