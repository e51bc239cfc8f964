"""A device's identity: the certificate and the private key that make its device ID.

In a folder, the two files have the names and the format that they have in a Syncthing home, so an identity can move
either way. `sealed` keeps an identity in the store.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import IdentityFolderUnusable, UsageError

CERTIFICATE_FILE = "cert.pem"
KEY_FILE = "key.pem"

# Syncthing compares a peer's certificate with this name first (v2.1.3 lib/connections/service.go).
COMMON_NAME = "syncthing"
LIFETIME = timedelta(days=20 * 365)

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Identity:
    """A certificate and its private key."""

    certificate: x509.Certificate
    private_key: PrivateKey = field(repr=False)

    @property
    def device_id(self) -> DeviceID:
        """The device ID of the certificate."""
        return DeviceID.from_certificate(self.certificate.public_bytes(Encoding.DER))

    @property
    def certificate_pem(self) -> bytes:
        """The certificate in PEM form."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def private_key_pem(self) -> bytes:
        """The private key in PEM form (PKCS #8), not encrypted."""
        return self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def generate() -> Identity:
    """Make a new identity: ECDSA on P-384, self-signed, valid for about twenty years."""
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, COMMON_NAME)])
    start = datetime.now(UTC) - timedelta(days=1)  # a peer's clock may be slow
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    purposes = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + LIFETIME)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(COMMON_NAME)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(purposes, critical=False)
        .sign(key, hashes.SHA256())
    )
    return Identity(certificate, key)


def parse(certificate: bytes, key: bytes, names: tuple[str, str], remedy: str) -> Identity:
    """Return the identity of a certificate and a private key in PEM form.

    Raises UsageError; the message has the name of the wrong one, of the two `names`, and the `remedy`.
    """
    certificate_name, key_name = names

    def unusable(name: str, fault: str) -> UsageError:
        return UsageError(f"{name} {fault}: {remedy}")

    try:
        own = x509.load_pem_x509_certificate(certificate)
        public_key = own.public_key()
    except (ValueError, UnsupportedAlgorithm) as error:
        raise unusable(certificate_name, "is not a certificate in PEM form") from error
    try:
        private_key = load_pem_private_key(key, password=None)
    except TypeError as error:
        raise unusable(key_name, "is encrypted; decrypt it first (openssl pkey)") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise unusable(key_name, "is not a private key in PEM form") from error
    if not isinstance(private_key, PrivateKey):
        raise unusable(key_name, "is of a kind that Syncthing does not accept (it accepts ECDSA, Ed25519 and RSA)")
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if private_key.public_key().public_bytes(*spki) != public_key.public_bytes(*spki):
        raise unusable(key_name, f"does not belong to {Path(certificate_name).name}")
    return Identity(own, private_key)


def load_files(certificate: Path, key: Path, remedy: str = "give both files of one identity") -> Identity:
    """Read an identity from two files of any names. Raises UsageError if they are missing or not a pair."""
    return parse(_read(certificate), _read(key), (str(certificate), str(key)), remedy)


def load(directory: Path) -> Identity:
    """Read `cert.pem` and `key.pem`. Raises UsageError if they are missing or not a pair."""
    certificate_path, key_path = directory / CERTIFICATE_FILE, directory / KEY_FILE
    present = [path for path in (certificate_path, key_path) if os.path.lexists(path)]
    if not present:
        raise UsageError(f"there is no identity in {directory}: it needs {CERTIFICATE_FILE} and {KEY_FILE}")
    if len(present) == 1:
        (missing,) = {certificate_path, key_path} - set(present)
        raise UsageError(
            f"{present[0]} has no {missing.name} beside it, and a device ID needs both: restore {missing.name}, or"
            f" move {present[0].name} away to get a new device ID"
        )
    remedy = "restore both files of the identity, or move both away to get a new device ID"
    return load_files(certificate_path, key_path, remedy)


def load_or_create(directory: Path) -> Identity:
    """Read the identity in `directory`; if neither file exists, make one. An existing file is never overwritten.

    Raises UsageError like `load`, and IdentityFolderUnusable if the files cannot be written.
    """
    if any(os.path.lexists(directory / name) for name in (CERTIFICATE_FILE, KEY_FILE)):
        return load(directory)
    identity = generate()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_new(directory / KEY_FILE, identity.private_key_pem, mode=0o600)
        _write_new(directory / CERTIFICATE_FILE, identity.certificate_pem, mode=0o644)
    except FileExistsError as error:
        raise UsageError(
            f"cannot keep an identity in {directory}: {error.filename2 or error.filename} appeared meanwhile or is no"
            " directory; if another process is just making the identity, try again"
        ) from error
    except OSError as error:
        raise IdentityFolderUnusable(f"cannot keep an identity in {directory}: {error.strerror}") from error
    return identity


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Create `path` with all of its content, or not at all. Raises FileExistsError if it exists."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        os.link(temporary, path)  # unlike a rename, this fails when the name is taken
    finally:
        temporary.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
