"""An identity in the store, encrypted with a passphrase (docs/format.md), so that a gateway needs no disk for it.

Everybody who can read the bucket can try passphrases, each at the cost of one scrypt; that is why scrypt takes much
memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass, replace
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, UsageError, WrongPassphrase
from untrusted_s3.identity.certificate import Identity, generate, parse
from untrusted_s3.settings import IdentitySettings
from untrusted_s3.store import layout, records
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.json_fields import Fields, InvalidFieldError
from untrusted_s3.threads import in_thread
from untrusted_s3.units import KIB, MIB

VERSION = 1
SALT_SIZE = 16
NONCE_SIZE = 12
KEY_SIZE = 32

SCRYPT_R = 8
SCRYPT_P = 1
MIN_PASSPHRASE_CHARACTERS = 12
# A record that asks for more memory (128 N r p, RFC 7914 section 5) is refused.
MAX_SCRYPT_MEMORY = 256 * MIB

DEFAULTS = IdentitySettings()

_MAX_SEALED_SIZE = 64 * KIB
_MAX_NAME_LENGTH = 64
_SHA256_DIGITS = 64
_MAX_INTEGER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SealedIdentity:
    """The record of an identity in the store.

    Attributes:
        store_id: The store that the identity is bound to.
        name: The identity's name in that store.
        device_id: The device ID.
        n: Scrypt's parameter N.
        r: Scrypt's parameter r.
        p: Scrypt's parameter p.
        salt: Scrypt's salt.
        nonce: The nonce of AES-256-GCM.
        sealed: Certificate and private key, encrypted with AES-256-GCM.
    """

    store_id: str
    name: str
    device_id: DeviceID
    n: int
    r: int
    p: int
    salt: bytes
    nonce: bytes
    sealed: bytes

    @classmethod
    def seal(
        cls, identity: Identity, store_id: str, name: str, passphrase: str, settings: IdentitySettings
    ) -> SealedIdentity:
        """Encrypt an identity for one store and one name. Takes the time and the memory of scrypt."""
        salt, nonce = secrets.token_bytes(SALT_SIZE), secrets.token_bytes(NONCE_SIZE)
        record = cls(store_id, name, identity.device_id, settings.scrypt_n, SCRYPT_R, SCRYPT_P, salt, nonce, b"")
        texts = {"certificate": identity.certificate_pem.decode(), "private_key": identity.private_key_pem.decode()}
        sealed = AESGCM(record._key(passphrase)).encrypt(nonce, json.dumps(texts).encode(), record._bound)
        return replace(record, sealed=sealed)

    def open(self, passphrase: str) -> Identity:
        """Decrypt the identity. Takes the time and the memory of scrypt. Raises WrongPassphrase or DataError."""
        try:
            plain = AESGCM(self._key(passphrase)).decrypt(self.nonce, self.sealed, self._bound)
        except InvalidTag:
            raise WrongPassphrase(f"the passphrase does not open the identity {self.name!r}") from None
        names = (f"the certificate in the identity {self.name!r}", f"the key in the identity {self.name!r}")
        try:
            texts = json.loads(plain)
            identity = parse(texts["certificate"].encode(), texts["private_key"].encode(), names, "choose another name")
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            raise DataError(f"the sealed identity {self.name!r} holds no identity: {error}") from error
        if identity.device_id != self.device_id:
            raise DataError(f"the sealed identity {self.name!r} is of another device than it says")
        return identity

    @property
    def _bound(self) -> bytes:
        parts = [f"untrusted_s3 identity {VERSION}", self.store_id, self.name, str(self.device_id)]
        return "\n".join([*parts, f"{self.n} {self.r} {self.p}"]).encode()

    @property
    def _checksum(self) -> str:
        return hashlib.sha256(self._bound + self.salt + self.nonce + self.sealed).hexdigest()

    def _key(self, passphrase: str) -> bytes:
        return Scrypt(self.salt, KEY_SIZE, self.n, self.r, self.p).derive(passphrase.encode(errors="surrogateescape"))

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "version": VERSION,
            "store_id": self.store_id,
            "name": self.name,
            "device_id": str(self.device_id),
            "scrypt": {"n": self.n, "r": self.r, "p": self.p, "salt": base64.b64encode(self.salt).decode()},
            "nonce": base64.b64encode(self.nonce).decode(),
            "sealed": base64.b64encode(self.sealed).decode(),
            "sha256": self._checksum,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> SealedIdentity:
        """Read the JSON object. Raises DataError for a newer version, InvalidFieldError for damage."""
        fields = Fields(value)
        version = fields.integer("version", minimum=1, maximum=_MAX_INTEGER)
        if version != VERSION:
            raise DataError(f"the sealed identity has version {version}: use a newer untrusted-s3")
        scrypt = fields.object("scrypt")
        n, r, p = (scrypt.integer(name, minimum=-_MAX_INTEGER, maximum=_MAX_INTEGER) for name in "nrp")
        record = cls(
            fields.hexadecimal("store_id", digits=records.STORE_ID_DIGITS),
            fields.text("name", min_length=1, max_length=_MAX_NAME_LENGTH),
            fields.device_id("device_id"),
            n,
            r,
            p,
            scrypt.base64("salt", min_size=SALT_SIZE, max_size=SALT_SIZE),
            fields.base64("nonce", min_size=NONCE_SIZE, max_size=NONCE_SIZE),
            fields.base64("sealed", min_size=0, max_size=_MAX_SEALED_SIZE),
        )
        if fields.hexadecimal("sha256", digits=_SHA256_DIGITS) != record._checksum:
            raise InvalidFieldError("the checksum is wrong")
        if n < 2 or n & (n - 1) or r < 1 or p < 1 or 128 * n * r * p > MAX_SCRYPT_MEMORY:
            raise InvalidFieldError(f"scrypt cannot take n={n} r={r} p={p}")
        return record


async def read(bucket: Bucket, name: str) -> SealedIdentity | None:
    """Return the record of that name, or None. Raises UsageError for an invalid name, DataError or StoreError."""
    return await records.read_record(bucket, layout.identity_key(name), SealedIdentity.from_json)


async def open_or_create(bucket: Bucket, name: str, passphrase: str, settings: IdentitySettings = DEFAULTS) -> Identity:
    """Return the identity of that name in this store; make it at first use.

    If several processes make it at once, all get the same. Raises UsageError for an invalid name or passphrase,
    WrongPassphrase, DataError or StoreError.
    """
    key = layout.identity_key(name)
    if len(passphrase) < MIN_PASSPHRASE_CHARACTERS:
        raise UsageError(f"the identity's passphrase needs at least {MIN_PASSPHRASE_CHARACTERS} characters")
    store = await records.open_store(bucket)
    record = await read(bucket, name)
    if record is None:
        fresh = await in_thread(SealedIdentity.seal, generate(), store.store_id, name, passphrase, settings)
        record = await records.create_or_read(bucket, key, fresh.to_json(), SealedIdentity.from_json)
    if (record.store_id, record.name) != (store.store_id, name):
        raise DataError(
            f"{key} was made as {record.name!r} for the store {record.store_id}: it cannot be used under another name"
            " or in another store"
        )
    return await in_thread(record.open, passphrase)
