"""The file in which a native untrusted device keeps the token of a folder's password.

It lies in the folder's marker, a directory that is `.stfolder` unless the user has chosen another one (v2.1.3
lib/model/util.go, writeEncryptionToken).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from untrusted_s3.bep.constants import MAX_FOLDER_ID_SIZE, MAX_PASSWORD_TOKEN_SIZE
from untrusted_s3.errors import UsageError

MARKER: Final = ".stfolder"
TOKEN_NAME: Final = "syncthing-encryption_password_token"  # noqa: S105
_MAX_SIZE: Final = 16 * (MAX_FOLDER_ID_SIZE + MAX_PASSWORD_TOKEN_SIZE)


@dataclass(frozen=True, slots=True)
class PasswordToken:
    """What the file says.

    Attributes:
        folder_id: The folder's Syncthing ID.
        token: The token of its password.
    """

    folder_id: str
    token: bytes

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object that Syncthing writes."""
        return {"FolderID": self.folder_id, "Token": base64.b64encode(self.token).decode()}


def find_token(directory: Path) -> tuple[str, PasswordToken]:
    """Return the name of the marker of a folder on disk, and what its token file says.

    Raises UsageError if the directory is not that of a receive-encrypted folder.
    """
    try:
        markers = sorted(path.parent.name for path in directory.glob(f"*/{TOKEN_NAME}") if path.is_file())
        if not directory.is_dir():
            raise UsageError(f"{directory} is not a directory")
        if not markers:
            raise UsageError(
                f"{directory} is not the directory of a receive-encrypted folder: there is no {MARKER}/{TOKEN_NAME}"
            )
        if len(markers) > 1:
            raise UsageError(f"{directory} has several token files, in {' and '.join(markers)}: remove the wrong ones")
        with (directory / markers[0] / TOKEN_NAME).open("rb") as file:
            text = file.read(_MAX_SIZE)
    except OSError as error:
        raise UsageError(f"{directory} cannot be read: {error.strerror or error}") from error
    return markers[0], _parse(text, directory / markers[0] / TOKEN_NAME)


def _parse(text: bytes, path: Path) -> PasswordToken:
    try:
        value = json.loads(text)
        folder_id, token = value["FolderID"], base64.b64decode(value["Token"], validate=True)
        size = len(folder_id.encode())
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # binascii.Error is a ValueError
        raise UsageError(f"{path} is not a token file of Syncthing: {error!r}") from error
    if not 0 < size <= MAX_FOLDER_ID_SIZE:
        raise UsageError(f"{path} has a folder ID of {size} bytes")
    if not 0 < len(token) <= MAX_PASSWORD_TOKEN_SIZE:
        raise UsageError(f"{path} has a token of {len(token)} bytes")
    return PasswordToken(folder_id, token)
