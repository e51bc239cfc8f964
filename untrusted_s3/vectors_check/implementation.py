"""The interface of an implementation of the encryption, so that known answers can be compared with its own.

Methods that open something raise DataError or WrongPassword for input that they refuse. Any other exception is an
error of the implementation.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from untrusted_s3.bep import bep_pb2 as pb


class Implementation(ABC):
    """One implementation. Keys, hashes and ciphertexts are bytes; names are plain or encrypted paths."""

    @abstractmethod
    def libraries(self, operation: str) -> str:
        """Return the names of the libraries that do an operation."""

    # Primitives

    @abstractmethod
    def scrypt(self, password: bytes, salt: bytes, n: int, r: int, p: int, length: int) -> bytes: ...

    @abstractmethod
    def hkdf_sha256(self, input_key: bytes, salt: bytes, info: bytes, length: int) -> bytes: ...

    @abstractmethod
    def aes_siv_seal(self, key: bytes, associated_data: Sequence[bytes], plaintext: bytes) -> bytes: ...

    @abstractmethod
    def aes_siv_open(self, key: bytes, associated_data: Sequence[bytes], ciphertext: bytes) -> bytes: ...

    @abstractmethod
    def hchacha20(self, key: bytes, nonce: bytes) -> bytes: ...

    @abstractmethod
    def xchacha20_poly1305_seal(self, key: bytes, nonce: bytes, associated_data: bytes, plaintext: bytes) -> bytes: ...

    @abstractmethod
    def xchacha20_poly1305_open(self, key: bytes, nonce: bytes, associated_data: bytes, ciphertext: bytes) -> bytes: ...

    # Syncthing's folder encryption

    @abstractmethod
    def folder_key(self, folder_id: str, password: str) -> bytes: ...

    @abstractmethod
    def password_token(self, folder_key: bytes, folder_id: str) -> bytes: ...

    @abstractmethod
    def check_password(self, folder_id: str, password: str, token: bytes) -> bytes:
        """Return the folder key if the token is that of the password."""

    @abstractmethod
    def encrypt_name(self, folder_key: bytes, name: str) -> str: ...

    @abstractmethod
    def decrypt_name(self, folder_key: bytes, encrypted_name: str) -> str: ...

    @abstractmethod
    def file_key(self, folder_key: bytes, name: str) -> bytes: ...

    @abstractmethod
    def block_token(self, file_key: bytes, block_hash: bytes, offset: int | None) -> bytes:
        """Return the token of a block; with None, the token that does not depend on the offset."""

    @abstractmethod
    def block_hash(self, file_key: bytes, token: bytes, offset: int | None) -> bytes:
        """Return the hash in a token. With an offset, tokens that do not depend on the offset are accepted too."""

    @abstractmethod
    def decrypt_block(self, file_key: bytes, encrypted: bytes, size: int, block_hash: bytes) -> bytes: ...

    @abstractmethod
    def encrypt_file_info(self, folder_key: bytes, real: pb.FileInfo) -> pb.FileInfo:
        """Return the encrypted file info; its field `encrypted` is not compared."""

    @abstractmethod
    def decrypt_file_info(self, folder_key: bytes, fake: pb.FileInfo) -> pb.FileInfo:
        """Return the real file info if the unencrypted fields are consistent with it."""
