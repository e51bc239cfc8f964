"""An identity in the store: sealed under a passphrase, made once, bound to its name and its store."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from tests.loops import one_loop
from tests.store.memory_bucket import MemoryBucket
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, UsageError, WrongPassword
from untrusted_s3.identity.certificate import generate
from untrusted_s3.identity.sealed import SealedIdentity, open_or_create
from untrusted_s3.settings import IdentitySettings
from untrusted_s3.store import records

NAME, KEY = "one", "identities/one.json"
PASSPHRASE = "a passphrase of some length"
# Scrypt with less memory and time.
QUICK = IdentitySettings(scrypt_n=16)


@one_loop
async def test_what_is_sealed_can_be_opened_by_the_book() -> None:
    """As docs/format.md says, without the code under test, and with the parameters of the real program."""
    bucket = MemoryBucket()
    own = await open_or_create(bucket, NAME, PASSPHRASE)
    record = json.loads(bucket.objects[KEY])
    store_id = (await records.open_store(bucket)).store_id
    assert set(record) == {"version", "store_id", "name", "device_id", "scrypt", "nonce", "sealed", "sha256"}
    assert (record["version"], record["store_id"], record["name"]) == (1, store_id, NAME)
    assert record["device_id"] == str(own.device_id)
    scrypt = record["scrypt"]
    assert (scrypt["n"], scrypt["r"], scrypt["p"]) == (131072, 8, 1)
    key = Scrypt(base64.b64decode(scrypt["salt"]), 32, 131072, 8, 1).derive(PASSPHRASE.encode())
    bound = f"untrusted_s3 identity 1\n{store_id}\n{NAME}\n{own.device_id}\n131072 8 1".encode()
    plain = AESGCM(key).decrypt(base64.b64decode(record["nonce"]), base64.b64decode(record["sealed"]), bound)
    texts = json.loads(plain)
    assert load_pem_x509_certificate(texts["certificate"].encode()) == own.certificate
    private_key = load_pem_private_key(texts["private_key"].encode(), None)
    assert private_key.public_key() == own.private_key.public_key()
    for secret in (PASSPHRASE, "PRIVATE KEY", base64.b64encode(own.private_key_pem).decode()[:40]):
        assert secret.encode() not in bucket.objects[KEY]


async def test_it_is_made_once() -> None:
    bucket = MemoryBucket()
    first = await open_or_create(bucket, NAME, PASSPHRASE, QUICK)
    before = dict(bucket.objects)
    again = await open_or_create(bucket, NAME, PASSPHRASE, QUICK)
    assert again.certificate_pem == first.certificate_pem and again.private_key_pem == first.private_key_pem
    assert bucket.objects == before
    other = await open_or_create(bucket, "two", PASSPHRASE, QUICK)
    assert other.device_id != first.device_id
    one, two = (json.loads(bucket.objects[f"identities/{name}.json"]) for name in (NAME, "two"))
    assert one["scrypt"]["salt"] != two["scrypt"]["salt"] and one["nonce"] != two["nonce"]


async def test_of_two_that_make_it_at_once_both_get_the_first_one() -> None:
    class Slow(MemoryBucket):
        """Lets another creator be first, after this one has looked."""

        async def put(self, key: str, *args: Any, **parameters: Any) -> None:
            if key == KEY and key not in self.objects:
                store_id = json.loads(self.objects["store.json"])["store_id"]
                rival = SealedIdentity.seal(winner, store_id, NAME, PASSPHRASE, QUICK)
                self.objects[key] = json.dumps(rival.to_json()).encode()
            await super().put(key, *args, **parameters)

    winner = generate()
    assert (await open_or_create(Slow(), NAME, PASSPHRASE, QUICK)).device_id == winner.device_id


async def test_a_wrong_passphrase() -> None:
    bucket = MemoryBucket()
    await open_or_create(bucket, NAME, PASSPHRASE, QUICK)
    before = dict(bucket.objects)
    with pytest.raises(WrongPassword, match="passphrase does not open the identity 'one'") as caught:
        await open_or_create(bucket, NAME, PASSPHRASE + "!", QUICK)
    assert caught.value.exit_code == 4 and PASSPHRASE not in str(caught.value)
    assert bucket.objects == before


@pytest.mark.parametrize("passphrase", ["", "11 letters."])
async def test_a_passphrase_that_is_too_short(passphrase: str) -> None:
    bucket = MemoryBucket()
    with pytest.raises(UsageError, match="at least 12 characters"):
        await open_or_create(bucket, NAME, passphrase, QUICK)
    assert not bucket.objects


@pytest.mark.parametrize("name", ["", "a/b", "..", ".a", "_a", "a b", "ä", "a" * 65, "a\n"])
async def test_a_name_that_cannot_be_a_key(name: str) -> None:
    bucket = MemoryBucket()
    with pytest.raises(UsageError, match="no name for an identity"):
        await open_or_create(bucket, name, PASSPHRASE, QUICK)
    assert not bucket.objects


def _flip(text: str) -> str:
    raw = bytearray(base64.b64decode(text))
    raw[len(raw) // 2] ^= 1
    return base64.b64encode(raw).decode()


@pytest.mark.parametrize("field", ["version", "store_id", "name", "device_id", "scrypt", "nonce", "sealed", "sha256"])
@pytest.mark.parametrize("value", [None, "", 5, [], "AAAA"])
async def test_damage_in_any_field_is_told(field: str, value: object) -> None:
    bucket = MemoryBucket()
    await open_or_create(bucket, NAME, PASSPHRASE, QUICK)
    bucket.objects[KEY] = json.dumps({**json.loads(bucket.objects[KEY]), field: value}).encode()
    before = dict(bucket.objects)
    with pytest.raises(DataError):
        await open_or_create(bucket, NAME, PASSPHRASE, QUICK)
    assert bucket.objects == before


@pytest.mark.parametrize("path", ["scrypt.salt", "nonce", "sealed"])
async def test_one_wrong_bit_is_damage_and_no_wrong_passphrase(path: str) -> None:
    bucket = MemoryBucket()
    await open_or_create(bucket, NAME, PASSPHRASE, QUICK)
    record = json.loads(bucket.objects[KEY])
    *outer, field = path.split(".")
    where = record[outer[0]] if outer else record
    where[field] = _flip(where[field])
    bucket.objects[KEY] = json.dumps(record).encode()
    with pytest.raises(DataError, match="checksum"):
        await open_or_create(bucket, NAME, PASSPHRASE, QUICK)


@pytest.mark.parametrize(
    "parameters", [(1 << 30, 8, 1), (3, 8, 1), (0, 8, 1), (16, 0, 1), (16, 8, 1 << 20), (-16, -8, 1)]
)
async def test_what_scrypt_would_choke_on_is_not_tried(parameters: tuple[int, int, int]) -> None:
    """Anybody who can write to the bucket can make the checksum fit."""
    bucket = MemoryBucket()
    store = await records.open_store(bucket)
    identity = generate()
    sealed = SealedIdentity(store.store_id, NAME, identity.device_id, *parameters, bytes(16), bytes(12), b"sealed")
    bucket.objects[KEY] = json.dumps(sealed.to_json()).encode()
    with pytest.raises(DataError, match="scrypt cannot take"):
        await open_or_create(bucket, NAME, PASSPHRASE, QUICK)


async def test_it_is_bound_to_its_name_and_its_store() -> None:
    bucket, other = MemoryBucket(), MemoryBucket()
    await open_or_create(bucket, NAME, PASSPHRASE, QUICK)
    await records.open_store(other)
    other.objects[KEY] = bucket.objects[KEY]
    bucket.objects["identities/two.json"] = bucket.objects[KEY]
    with pytest.raises(DataError, match="another name or in another store"):
        await open_or_create(bucket, "two", PASSPHRASE, QUICK)
    with pytest.raises(DataError, match="another name or in another store"):
        await open_or_create(other, NAME, PASSPHRASE, QUICK)
    # And not by these fields alone: with them changed, and the checksum made to fit, the seal does not open.
    store_id = json.loads(other.objects["store.json"])["store_id"]
    for bucket_, name, changes in ((bucket, "two", {"name": "two"}), (other, NAME, {"store_id": store_id})):
        key = f"identities/{name}.json"
        forged = {**json.loads(bucket_.objects[key]), **changes}
        raw = {field: base64.b64decode(forged[field]) for field in ("nonce", "sealed")}
        scrypt = forged["scrypt"]
        record = SealedIdentity(
            forged["store_id"],
            forged["name"],
            DeviceID.parse(forged["device_id"]),
            scrypt["n"],
            scrypt["r"],
            scrypt["p"],
            base64.b64decode(scrypt["salt"]),
            **raw,
        )
        bucket_.objects[key] = json.dumps(record.to_json()).encode()
        with pytest.raises(WrongPassword):
            await open_or_create(bucket_, name, PASSPHRASE, QUICK)


@pytest.mark.parametrize("plain", [b"", b"[]", b"{}", b'{"certificate": 5, "private_key": ""}', b"\xff", None])
def test_what_opens_and_is_no_identity(plain: bytes | None) -> None:
    """None: that of another device."""
    own, other = generate(), generate()
    if plain is None:
        texts = {"certificate": other.certificate_pem.decode(), "private_key": other.private_key_pem.decode()}
        plain = json.dumps(texts).encode()
    record = SealedIdentity.seal(own, "0" * 32, NAME, PASSPHRASE, QUICK)
    assert record.open(PASSPHRASE).device_id == own.device_id
    bound = f"untrusted_s3 identity 1\n{'0' * 32}\n{NAME}\n{own.device_id}\n16 8 1".encode()
    key = Scrypt(record.salt, 32, 16, 8, 1).derive(PASSPHRASE.encode())
    with pytest.raises(DataError, match="sealed identity 'one'"):
        replace(record, sealed=AESGCM(key).encrypt(record.nonce, plain, bound)).open(PASSPHRASE)


async def test_a_newer_version_is_left_alone() -> None:
    bucket = MemoryBucket()
    await records.open_store(bucket)
    bucket.objects[KEY] = b'{"version": 2}'
    with pytest.raises(DataError, match="newer untrusted-s3"):
        await open_or_create(bucket, NAME, PASSPHRASE, QUICK)
    assert bucket.objects[KEY] == b'{"version": 2}'
