"""An identity in files.

In a directory the two files have the names and the form that they have in a Syncthing home, so that an identity can be
moved either way.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

from untrusted_s3.errors import IdentityFolderUnusable, UsageError
from untrusted_s3.identity.certificate import Identity, generate, parse

CERTIFICATE_FILE: Final = "cert.pem"
KEY_FILE: Final = "key.pem"


def load_files(certificate: Path, key: Path, remedy: str = "give both files of one identity") -> Identity:
    """Read an identity from two files of any names. Raises UsageError if they are missing or not a pair."""
    return parse(_read(certificate), _read(key), (str(certificate), str(key)), remedy)


def load(directory: Path) -> Identity:
    """Read the identity in a directory. Raises UsageError if the files are missing or not a pair."""
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


def is_present(directory: Path) -> bool:
    """Return whether a directory has an identity, or half of one."""
    return any(os.path.lexists(directory / name) for name in (CERTIFICATE_FILE, KEY_FILE))


def load_or_create(directory: Path, make: Callable[[], Identity] = generate) -> Identity:
    """Read the identity in a directory; if neither file exists, make one. An existing file is never overwritten.

    Raises UsageError as `load` does, and IdentityFolderUnusable if the files cannot be written.
    """
    if is_present(directory):
        return load(directory)
    identity = make()
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
