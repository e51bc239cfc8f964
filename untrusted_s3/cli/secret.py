"""Secrets in files."""

from __future__ import annotations

from pathlib import Path

from untrusted_s3.errors import UsageError


def read_secret(file: Path, what: str) -> str:
    """Return the text of a file without its last line break: one LF, or one CR and LF.

    `what` names the secret in errors. Raises UsageError.
    """
    try:
        text = file.read_bytes().decode()  # not `read_text`, which changes line breaks
        # An editor or `echo` ends a file with a line break. Any other may be the end of the secret.
        return text.removesuffix("\r\n") if text.endswith("\r\n") else text.removesuffix("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read the {what} from {file}: {reason}") from None
