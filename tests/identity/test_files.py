"""An identity in files: made once, never overwritten, and interchangeable with a Syncthing home."""

from __future__ import annotations

import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import NameOID

from tests.peers.debian import SYNCTHING_VERSIONS, SyncthingVersion, syncthing_binary
from tests.waiting import PATIENCE
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import IdentityFolderUnusable, UsageError
from untrusted_s3.identity.certificate import Identity, PrivateKey, generate
from untrusted_s3.identity.files import is_present, load, load_files, load_or_create


def write(directory: Path, identity: Identity) -> None:
    (directory / "cert.pem").write_bytes(identity.certificate_pem)
    (directory / "key.pem").write_bytes(identity.private_key_pem)


def self_signed(key: PrivateKey | dsa.DSAPrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "syncthing")])
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + timedelta(days=1))
    ).sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())


def test_it_is_made_once_and_kept(tmp_path: Path) -> None:
    home = tmp_path / "a" / "home"
    first = load_or_create(home)
    files = {path.name: path.read_bytes() for path in home.iterdir()}
    assert set(files) == {"cert.pem", "key.pem"}  # no temporary file stays behind
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "key.pem").stat().st_mode) == 0o600
    again = load_or_create(home)
    assert again.device_id == first.device_id == load(home).device_id
    assert {path.name: path.read_bytes() for path in home.iterdir()} == files
    assert first.device_id != generate().device_id


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "P-256", "Ed25519", "RSA"],
)
def test_every_kind_of_key_that_syncthing_has_used_is_read(tmp_path: Path, key: PrivateKey) -> None:
    certificate = self_signed(key)
    write(tmp_path, Identity(certificate, key))
    device_id = DeviceID.from_certificate(certificate.public_bytes(Encoding.DER))
    assert load_or_create(tmp_path).device_id == device_id
    if not isinstance(key, ed25519.Ed25519PrivateKey):  # the older form: "EC PRIVATE KEY", "RSA PRIVATE KEY"
        older = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        (tmp_path / "key.pem").write_bytes(older)
        assert load_or_create(tmp_path).device_id == device_id


@pytest.mark.parametrize("missing", ["cert.pem", "key.pem"])
def test_half_an_identity_is_left_alone(tmp_path: Path, missing: str) -> None:
    write(tmp_path, generate())
    (tmp_path / missing).unlink()
    with pytest.raises(UsageError, match=rf"restore {missing}, or move .* away"):
        load_or_create(tmp_path)
    assert not (tmp_path / missing).exists()


def test_load_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no identity"):
        load(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "garbage", [b"", b"garbage", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
def test_garbage_is_named_and_left_alone(tmp_path: Path, name: str, garbage: bytes) -> None:
    write(tmp_path, generate())
    (tmp_path / name).write_bytes(garbage)
    with pytest.raises(UsageError, match=rf"{name} is not a .* in PEM form: restore"):
        load_or_create(tmp_path)
    assert (tmp_path / name).read_bytes() == garbage


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    write(tmp_path, generate())
    (tmp_path / "key.pem").write_bytes(generate().private_key_pem)
    with pytest.raises(UsageError, match=r"key\.pem does not belong to cert\.pem"):
        load_or_create(tmp_path)


def test_an_encrypted_key_is_refused(tmp_path: Path) -> None:
    identity = generate()
    write(tmp_path, identity)
    encryption = BestAvailableEncryption(b"password")
    encrypted = identity.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)
    (tmp_path / "key.pem").write_bytes(encrypted)
    with pytest.raises(UsageError, match="is encrypted; decrypt it first"):
        load_or_create(tmp_path)


def test_a_kind_of_key_that_tls_cannot_use_is_refused(tmp_path: Path) -> None:
    key = dsa.generate_private_key(1024)
    (tmp_path / "cert.pem").write_bytes(self_signed(key).public_bytes(Encoding.PEM))
    (tmp_path / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(UsageError, match="ECDSA, Ed25519 and RSA"):
        load_or_create(tmp_path)


@pytest.mark.parametrize("name", ["cert.pem", "key.pem"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, generate())
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(UsageError, match=rf"cannot read .*{name}"):
        load_or_create(tmp_path)


def test_a_link_to_nowhere_is_not_replaced(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).symlink_to(tmp_path / "unmounted" / name)
    with pytest.raises(UsageError, match=r"cannot read .*cert\.pem"):
        load_or_create(tmp_path)
    assert (tmp_path / "cert.pem").is_symlink()


def test_a_file_in_the_place_of_the_directory_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(UsageError, match="cannot keep an identity in"):
        load_or_create(tmp_path / "home")
    with pytest.raises(UsageError, match="cannot keep an identity in"):
        load_or_create(tmp_path / "home" / "below")
    assert (tmp_path / "home").read_text() == "a file"


def test_an_identity_made_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    other = generate()

    def generate_late() -> Identity:
        write(tmp_path, other)
        return generate()

    with pytest.raises(UsageError, match="try again"):
        load_or_create(tmp_path, generate_late)
    assert {path.name for path in tmp_path.iterdir()} == {"cert.pem", "key.pem"}
    assert load_or_create(tmp_path).device_id == other.device_id


@pytest.mark.interop
@pytest.mark.parametrize("version", SYNCTHING_VERSIONS)
def test_syncthing_and_we_agree_on_device_ids(tmp_path: Path, version: SyncthingVersion) -> None:
    syncthing = syncthing_binary(version)

    def device_id_by_syncthing(home: Path) -> DeviceID:
        command = [str(syncthing), "--device-id", f"--home={home}"]
        answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE).stdout.strip()
        device_id = DeviceID.parse(answer)
        assert str(device_id) == answer
        return device_id

    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    subprocess.run([syncthing, "generate", f"--home={theirs}"], check=True, capture_output=True, timeout=PATIENCE)
    assert load(theirs).device_id == device_id_by_syncthing(theirs)
    assert load_or_create(ours).device_id == device_id_by_syncthing(ours)


def test_files_of_any_name(tmp_path: Path) -> None:
    identity = generate()
    certificate, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    certificate.write_bytes(identity.certificate_pem)
    with pytest.raises(UsageError, match=r"cannot read .*tls\.key"):
        load_files(certificate, key)
    key.write_bytes(identity.private_key_pem)
    assert load_files(certificate, key).device_id == identity.device_id


def test_a_directory_that_cannot_be_written(tmp_path: Path) -> None:
    assert not is_present(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(IdentityFolderUnusable, match="cannot keep an identity in"):
        load_or_create(tmp_path / "file" / "below")
    (tmp_path / "key.pem").touch()
    assert is_present(tmp_path)
