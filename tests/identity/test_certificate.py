"""Our certificate and key: as Syncthing makes them, and a pair."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from untrusted_s3.errors import UsageError
from untrusted_s3.identity.certificate import generate, parse

NAMES = ("the certificate", "the key")


def test_a_new_identity_is_what_syncthing_makes() -> None:
    certificate = generate().certificate
    assert isinstance(key := certificate.public_key(), ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP384R1)
    assert isinstance(certificate.signature_hash_algorithm, hashes.SHA256)
    assert certificate.subject == certificate.issuer
    assert certificate.subject.rfc4514_string() == "CN=syncthing"
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["syncthing"]
    purposes = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    assert certificate.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert certificate.not_valid_before_utc < datetime.now(UTC)
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(days=7300)
    certificate.verify_directly_issued_by(certificate)


def test_the_private_key_is_not_shown() -> None:
    assert "rivate" not in repr(generate())


def test_parsing_what_was_generated() -> None:
    identity = generate()
    parsed = parse(identity.certificate_pem, identity.private_key_pem, NAMES, "remedy")
    assert parsed.device_id == identity.device_id
    assert parsed.private_key_pem == identity.private_key_pem


def test_what_cannot_be_parsed_is_named_with_the_remedy() -> None:
    one, other = generate(), generate()
    for certificate, key, message in (
        (b"", one.private_key_pem, "the certificate is not a certificate in PEM form: do this"),
        (one.certificate_pem, b"", "the key is not a private key in PEM form: do this"),
        (one.certificate_pem, other.private_key_pem, "the key does not belong to the certificate: do this"),
    ):
        with pytest.raises(UsageError) as caught:
            parse(certificate, key, NAMES, "do this")
        assert str(caught.value) == message
