"""What a folder holds under one path: the real file info, and where its data lies."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import datetime

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo, check_name
from untrusted_s3.crypto.file_info import decrypt_file_info
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import DataError, InconsistentFileInfo, RemoteProtocolError
from untrusted_s3.index.entry import Entry as LogEntry
from untrusted_s3.index.entry import StoredObject
from untrusted_s3.store.layout import FolderKeys, is_object_name

_PERMISSIONS = 0o777
_NANOSECONDS = 1_000_000_000


class Kind(enum.StrEnum):
    """The kind of an entry."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


_KINDS = {pb.FILE: Kind.FILE, pb.DIRECTORY: Kind.DIRECTORY}


@dataclass(frozen=True, slots=True)
class Entry:
    """One file, directory or symlink.

    Attributes:
        path: Relative to the folder, with slashes. It is harmless: no component is empty, `.` or `..`. Of a conflict
            copy it is not the name in the file info.
        kind: What it is.
        real: The decrypted file info.
        encrypted: The file info around it; its block list says where each block lies in the object.
        stored: The object with the data, for a file that is not deleted.
        key: The key of that object, or an empty string.
        conflicts: How many other versions of the file are in conflict with this one. Each has a conflict copy.
        is_other: Whether this is another version than the one that the folder holds.
    """

    path: str
    kind: Kind
    real: pb.FileInfo
    encrypted: FileInfo
    stored: StoredObject | None
    key: str
    conflicts: int = 0
    is_other: bool = False

    @property
    def conflict_of(self) -> str | None:
        """The path of the file that this is a conflict copy of, or None."""
        return self.real.name if self.real.name != self.path else None

    @property
    def deleted(self) -> bool:
        """Whether the folder no longer has it: it was deleted, or the device that announced it ignores it."""
        return self.real.deleted or self.real.invalid

    @property
    def size(self) -> int:
        """The bytes of a file's data or of a symlink's target; 0 for a directory."""
        if self.kind is Kind.SYMLINK:
            return len(self.real.symlink_target)
        return self.real.size if self.kind is Kind.FILE and not self.deleted else 0

    @property
    def mode(self) -> int | None:
        """The permission bits; None for symlinks and for what comes from systems without such bits."""
        if self.real.no_permissions or self.kind is Kind.SYMLINK:
            return None
        return self.real.permissions & _PERMISSIONS

    @property
    def modified_ns(self) -> int:
        """The modification time in nanoseconds since 1970 UTC. Of a deletion: when it was noticed."""
        return self.real.modified_s * _NANOSECONDS + self.real.modified_ns

    @property
    def target(self) -> str:
        """Where a symlink points, as stored. Bytes that are not UTF-8 become surrogates, as in `os.fsdecode`."""
        return self.real.symlink_target.decode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class DamagedEntry:
    """An entry of the folder that cannot be used.

    Attributes:
        path: The plain name if it is known; it may be harmful.
        encrypted_name: The encrypted name.
        reason: What is wrong.
        deleted: Whether the unencrypted part of the file info says that it is deleted. Anybody can write that part, so
            the file may exist all the same.
    """

    path: str | None
    encrypted_name: str
    reason: str
    deleted: bool


@dataclass(frozen=True, slots=True)
class Version:
    """What a path was from a time on.

    Attributes:
        since: The time, by the clock of the gateway that wrote it; None if it is older than the history.
        entry: What the path was; perhaps a deletion.
        is_dissent: Whether this is a version that a device had while others had another one.
    """

    since: datetime | None
    entry: Entry | DamagedEntry
    is_dissent: bool = False


def open_entry(entry: LogEntry, folder_key: FolderKey, keys: FolderKeys) -> Entry | DamagedEntry:
    """Decrypt and check what the log says of one name, be it a deletion or not.

    A deletion, or that the entry is ignored, counts only if the encrypted part says so as well.
    """
    encrypted = entry.file_info
    path, reason = None, ""
    try:
        path = folder_key.decrypt_name(encrypted.name)
        check_name(path)
        real = decrypt_file_info(folder_key, encrypted, path)
        if encrypted.message.invalid != real.invalid:
            raise InconsistentFileInfo(f"{path!r}: its outside and its inside differ on whether it is ignored")
        return Entry(path, _KINDS.get(real.type, Kind.SYMLINK), real, encrypted, entry.stored, _object_key(entry, keys))
    except RemoteProtocolError:
        reason = "its name is not a harmless path"
    except DataError as error:
        reason = str(error) if path is not None else f"its name cannot be decrypted: {error}"
    gone = is_gone(encrypted.message)
    if gone:
        reason = f"it is announced as deleted, and that is not authentic: {reason}"
    return DamagedEntry(path, encrypted.name, reason, gone)


def is_gone(message: pb.FileInfo) -> bool:
    """Return whether a file info, encrypted or real, says that the folder no longer has the entry."""
    return message.deleted or message.invalid


def _object_key(entry: LogEntry, keys: FolderKeys) -> str:
    stored = entry.stored
    if not entry.file_info.has_data:
        return ""
    if stored is None:
        raise DataError("the log names no object with its data")
    # The log is not encrypted: the key must stay below the folder's objects whatever it says.
    if not is_object_name(stored.object_name) or stored.size <= entry.file_info.message.size:
        raise DataError("the log names an object that cannot be its data")
    return keys.object(entry.file_info.name, stored.object_name)
