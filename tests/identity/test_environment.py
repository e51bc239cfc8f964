"""An identity as two texts."""

from __future__ import annotations

import pytest

from untrusted_s3.errors import UsageError
from untrusted_s3.identity.certificate import generate
from untrusted_s3.identity.environment import from_texts

NAMES = ("CERTIFICATE", "KEY")


@pytest.mark.parametrize("line_break", ["\n", "\\n"])
def test_texts_whose_line_breaks_may_be_escaped(line_break: str) -> None:
    identity = generate()
    texts = [pem.decode().replace("\n", line_break) for pem in (identity.certificate_pem, identity.private_key_pem)]
    assert from_texts(texts[0], texts[1], NAMES).device_id == identity.device_id


def test_a_text_that_is_wrong_is_named() -> None:
    identity = generate()
    certificate, key = identity.certificate_pem.decode(), identity.private_key_pem.decode()
    with pytest.raises(UsageError, match="CERTIFICATE is not a certificate"):
        from_texts("\udcff", key, NAMES)
    with pytest.raises(UsageError, match=r"KEY is not a private key.*set both from one identity"):
        from_texts(certificate, "nonsense", NAMES)
