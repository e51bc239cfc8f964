"""What is restored of a file beside its content: permission bits, modification time, ownership, extended attributes.

The fields of a file info: Syncthing v2.1.3 proto/bep/bep.proto. A device sends them according to its folder's settings
("Send Ownership", "Send Extended Attributes", "Ignore Permissions").
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from google.protobuf.message import DecodeError

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.vault.entry import Entry, Kind


@dataclass(frozen=True, slots=True)
class Metadata:
    """Metadata to be set; None for what the file info does not state, or what is not to be restored.

    Attributes:
        mode: The permission bits.
        modified_ns: The modification time in nanoseconds since 1970 UTC.
        owner: User and group ID.
        xattrs: Names and values of extended attributes.
        left_out: Names of extended attributes that are not to be restored.
    """

    mode: int | None = None
    modified_ns: int | None = None
    owner: tuple[int, int] | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()
    left_out: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, entry: Entry, *, owner: bool = False, xattrs: bool = False, privileged_xattrs: bool = False
    ) -> Metadata:
        """Return the metadata of an entry; with `owner` its ownership, with `xattrs` its extended attributes.

        Attributes outside the namespace `user` give rights (`security.capability`, ACLs) or mean something to programs
        of root (`trusted`). They are left out without `privileged_xattrs`.
        """
        platform = _platform(entry.real)
        attributes = _xattrs(platform) if xattrs or privileged_xattrs else ()
        left_out = () if privileged_xattrs else tuple(name for name, _ in attributes if not name.startswith("user."))
        # Syncthing does not send the time of a symlink.
        has_time = entry.kind is not Kind.SYMLINK or entry.modified_ns != 0
        return cls(
            entry.mode,
            entry.modified_ns if has_time else None,
            _owner(platform.unix) if owner and platform.HasField("unix") else None,
            tuple((name, value) for name, value in attributes if name not in left_out),
            left_out,
        )

    def apply(self, descriptor: int) -> list[str]:
        """Set the metadata of an open file or directory, and return what could not be set, and why."""
        refused: list[str] = []
        if self.owner is not None:
            with _noting("ownership", refused):
                os.fchown(descriptor, *self.owner)
        for name, value in self.xattrs:
            with _noting(f"extended attribute {name}", refused):
                os.setxattr(descriptor, name, value)
        refused += (f"extended attribute {name}: its namespace is not user" for name in self.left_out)
        if self.mode is not None:
            with _noting("permissions", refused):
                os.fchmod(descriptor, self.mode)
        if self.modified_ns is not None:
            with _noting("modification time", refused):
                os.utime(descriptor, ns=(self.modified_ns, self.modified_ns))
        return refused

    def apply_to_symlink(self, name: bytes, directory: int) -> list[str]:
        """Set owner and time of a symlink in an open directory, and return what could not be set, and why."""
        refused: list[str] = []
        if self.owner is not None:
            with _noting("ownership", refused):
                os.chown(name, *self.owner, dir_fd=directory, follow_symlinks=False)
        if self.modified_ns is not None:
            times = (self.modified_ns, self.modified_ns)
            with _noting("modification time", refused):
                os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
        return refused


@contextmanager
def _noting(what: str, refused: list[str]) -> Iterator[None]:
    """Note in `refused` what could not be set: the system refuses, or the value is not a possible one."""
    try:
        yield
    except OSError as error:
        refused.append(f"{what}: {error.strerror}")
    except (OverflowError, ValueError) as error:
        refused.append(f"{what}: {error}")


def _platform(real: pb.FileInfo) -> pb.PlatformData:
    """Return the platform data of a file info; nothing if it cannot be parsed."""
    try:
        return pb.PlatformData.FromString(real.platform)
    except DecodeError:
        return pb.PlatformData()


def _owner(unix: pb.UnixData) -> tuple[int, int]:
    """Return the IDs that the names have on this machine, or the IDs of the file info for unknown names."""
    return _user_id(os.fsdecode(unix.owner_name), unix.uid), _group_id(os.fsdecode(unix.group_name), unix.gid)


@lru_cache
def _user_id(name: str, number: int) -> int:
    try:
        return pwd.getpwnam(name).pw_uid if name else number
    except (KeyError, ValueError):
        return number


@lru_cache
def _group_id(name: str, number: int) -> int:
    try:
        return grp.getgrnam(name).gr_gid if name else number
    except (KeyError, ValueError):
        return number


def _xattrs(platform: pb.PlatformData) -> tuple[tuple[str, bytes], ...]:
    """Return the extended attributes read on Linux, the only system on which Python can set any."""
    return tuple((os.fsdecode(xattr.name), xattr.value) for xattr in platform.linux.xattrs)
