"""This program's own implementation: `untrusted_s3.crypto`, on the library `cryptography`."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.crypto import file_info, xchacha20
from untrusted_s3.crypto.file_key import FileKey
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import DecryptionFailed, InconsistentFileInfo, ProtocolError
from untrusted_s3.vectors_check.implementation import Implementation

_BARE = {"scrypt", "hkdf_sha256", "aes_siv"}


class Ours(Implementation):
    """The code that untrusted_s3 decrypts with."""

    def libraries(self, operation: str) -> str:
        return "cryptography" if operation in _BARE else "untrusted_s3"

    def scrypt(self, password: bytes, salt: bytes, n: int, r: int, p: int, length: int) -> bytes:
        return Scrypt(salt, length, n, r, p).derive(password)

    def hkdf_sha256(self, input_key: bytes, salt: bytes, info: bytes, length: int) -> bytes:
        return HKDF(SHA256(), length, salt, info).derive(input_key)

    def aes_siv_seal(self, key: bytes, associated_data: Sequence[bytes], plaintext: bytes) -> bytes:
        return AESSIV(key).encrypt(plaintext, list(associated_data))

    def aes_siv_open(self, key: bytes, associated_data: Sequence[bytes], ciphertext: bytes) -> bytes:
        try:
            return AESSIV(key).decrypt(ciphertext, list(associated_data))
        except InvalidTag as error:
            raise DecryptionFailed("the tag does not match") from error

    def hchacha20(self, key: bytes, nonce: bytes) -> bytes:
        return xchacha20.hchacha20(key, nonce)

    def xchacha20_poly1305_seal(self, key: bytes, nonce: bytes, associated_data: bytes, plaintext: bytes) -> bytes:
        return xchacha20.encrypt(key, nonce, plaintext, associated_data)

    def xchacha20_poly1305_open(self, key: bytes, nonce: bytes, associated_data: bytes, ciphertext: bytes) -> bytes:
        return xchacha20.decrypt(key, nonce, ciphertext, associated_data)

    def folder_key(self, folder_id: str, password: str) -> bytes:
        return FolderKey.derive(password, folder_id).raw

    def password_token(self, folder_key: bytes, folder_id: str) -> bytes:
        return FolderKey(folder_key, folder_id).token()

    def check_password(self, folder_id: str, password: str, token: bytes) -> bytes:
        key = FolderKey.derive(password, folder_id)
        key.check_token(token)
        return key.raw

    def encrypt_name(self, folder_key: bytes, name: str) -> str:
        return FolderKey(folder_key, "").encrypt_name(name)

    def decrypt_name(self, folder_key: bytes, encrypted_name: str) -> str:
        return FolderKey(folder_key, "").decrypt_name(encrypted_name)

    def file_key(self, folder_key: bytes, name: str) -> bytes:
        return FileKey.derive(folder_key, name).raw

    def block_token(self, file_key: bytes, block_hash: bytes, offset: int | None) -> bytes:
        return FileKey(file_key).block_token(block_hash, offset)

    def block_hash(self, file_key: bytes, token: bytes, offset: int | None) -> bytes:
        return FileKey(file_key).block_hash(token, offset or 0)

    def decrypt_block(self, file_key: bytes, encrypted: bytes, size: int, block_hash: bytes) -> bytes:
        return FileKey(file_key).decrypt_block(encrypted, size, block_hash)

    def encrypt_file_info(self, folder_key: bytes, real: pb.FileInfo) -> pb.FileInfo:
        return file_info.encrypt_file_info(FolderKey(folder_key, ""), real)

    def decrypt_file_info(self, folder_key: bytes, fake: pb.FileInfo) -> pb.FileInfo:
        try:
            checked = parse_file_info(fake.SerializeToString())
        except ProtocolError as error:
            raise InconsistentFileInfo(str(error)) from error
        return file_info.decrypt_file_info(FolderKey(folder_key, ""), checked)
