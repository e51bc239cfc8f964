"""A device's identity: the certificate and the private key that make its device ID."""

from __future__ import annotations

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
from untrusted_s3.errors import UsageError

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
