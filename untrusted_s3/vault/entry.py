"""What a folder holds under one path: the real file info, and where its data lies."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo, check_name
from untrusted_s3.crypto.file_info import decrypt_file_info
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import DataError, RemoteProtocolError
from untrusted_s3.index.entry import Entry as LogEntry
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.objects.naming import is_object_name
from untrusted_s3.store.layout import FolderKeys

_PERMISSIONS = 0o777
_NANOSECONDS = 1_000_000_000


class Kind(enum.StrEnum):
    """What kind of thing lies under a path."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


_KINDS = {pb.FILE: Kind.FILE, pb.DIRECTORY: Kind.DIRECTORY}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symlink.

    `path` is relative to the folder, has slashes between its components, and is harmless: no component is empty, `.` or
    `..`. `real` is the decrypted file info, `encrypted` the one around it, whose block list says where in the object
    each block lies. `stored` and `key` are the object with the data, for a file that is not deleted.
    """

    path: str
    kind: Kind
    real: pb.FileInfo
    encrypted: FileInfo
    stored: StoredObject | None
    key: str

    @property
    def deleted(self) -> bool:
        """Whether the folder has it no more: deleted, or ignored on the device that knew of it."""
        return self.real.deleted or self.real.invalid

    @property
    def size(self) -> int:
        """Bytes of a file's data or of a symlink's target; 0 for a directory."""
        if self.kind is Kind.SYMLINK:
            return len(self.real.symlink_target)
        return self.real.size if self.kind is Kind.FILE and not self.deleted else 0

    @property
    def mode(self) -> int | None:
        """The permission bits; None where there are none: of symlinks, and from systems without them."""
        if self.real.no_permissions or self.kind is Kind.SYMLINK:
            return None
        return self.real.permissions & _PERMISSIONS

    @property
    def modified_ns(self) -> int:
        """When it was modified, in nanoseconds since 1970 UTC. When it was deleted is not known."""
        return self.real.modified_s * _NANOSECONDS + self.real.modified_ns

    @property
    def target(self) -> str:
        """Where a symlink points, as stored. Bytes that are no UTF-8 are kept as surrogates, as in `os.fsdecode`."""
        return self.real.symlink_target.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class DamagedEntry:
    """Something in the folder that cannot be used, and why. `path` is the plain name where that is known; it need not
    be harmless. `deleted` is what the outside of the file info says."""

    path: str | None
    encrypted_name: str
    reason: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Version:
    """What a path was from a time on, by the clock of the gateway that wrote it; None: since before the history."""

    since: datetime | None
    entry: Entry | DamagedEntry


def open_entry(entry: LogEntry, folder_key: FolderKey, keys: FolderKeys) -> Entry | DamagedEntry:
    """Decrypts what the log says of one name."""
    encrypted = entry.file_info
    path, reason = None, ""
    try:
        path = folder_key.decrypt_name(encrypted.name)
        check_name(path)
        real = decrypt_file_info(folder_key, encrypted)
        return Entry(path, _KINDS.get(real.type, Kind.SYMLINK), real, encrypted, entry.stored, _object_key(entry, keys))
    except RemoteProtocolError:
        reason = "its name is not a harmless path"
    except DataError as error:
        reason = str(error) if path is not None else f"its name cannot be decrypted: {error}"
    return DamagedEntry(path, encrypted.name, reason, is_gone(encrypted.message))


def is_gone(message: pb.FileInfo) -> bool:
    """Whether a file info, real or fake, says that there is nothing any more."""
    return message.deleted or message.invalid


def _object_key(entry: LogEntry, keys: FolderKeys) -> str:
    stored = entry.stored
    if not entry.file_info.has_data:
        return ""
    if stored is None:
        raise DataError("the log names no object with its data")
    # Whoever writes to the store can write this too; it must stay below the folder's objects.
    if not is_object_name(stored.content_hash) or stored.size <= entry.file_info.message.size:
        raise DataError("the log names an object that cannot be its data")
    return keys.object(entry.file_info.name, stored.content_hash)
