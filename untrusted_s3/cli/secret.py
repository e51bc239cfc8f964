"""Secrets in files."""

from __future__ import annotations

from pathlib import Path

from untrusted_s3.errors import UsageError


def read_secret(file: Path, what: str) -> str:
    """Return the text of a file without its last line break. `what` names the secret in errors. Raises UsageError."""
    try:
        # An editor or `echo` ends a file with a line break.
        return file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read the {what} from {file}: {reason}") from None
