"""An identity as two texts, for example of environment variables."""

from __future__ import annotations

from untrusted_s3.identity.certificate import Identity, parse


def from_texts(certificate: str, key: str, names: tuple[str, str]) -> Identity:
    r"""Return the identity of a certificate and a private key in PEM form.

    Some platforms replace each line break of a text by a backslash and an n; that is undone. Raises UsageError, whose
    message has the one of `names` (certificate, key) that is wrong.
    """
    return parse(_pem(certificate), _pem(key), names, "set both from one identity")


def _pem(text: str) -> bytes:
    return text.replace("\\n", "\n").encode(errors="surrogateescape")
