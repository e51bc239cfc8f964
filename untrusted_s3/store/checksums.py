"""The checksum of a write, which some stores want: Amazon S3 does where objects are locked by default."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence

from untrusted_s3.store.bucket import Buffer


def content_md5(body: Sequence[Buffer]) -> str:
    """Return the value of the header Content-MD5 for a body in pieces. It guards against nobody but chance."""
    digest = hashlib.md5(usedforsecurity=False)
    for piece in body:
        digest.update(piece)
    return base64.b64encode(digest.digest()).decode()


def md5_header(body: Sequence[Buffer]) -> dict[str, str]:
    """Return the header as a dictionary."""
    return {"Content-MD5": content_md5(body)}
