"""What is restored of a file beside its content: permission bits, modification time, ownership, extended attributes.

Where each stands in a file info: Syncthing's proto/bep/bep.proto. Which of them a device sends is a matter of its
folder's settings ("Send Ownership", "Send Extended Attributes", "Ignore Permissions").
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
    """`mode` are permission bits, `modified_ns` nanoseconds since 1970 UTC, `owner` user and group ID, `xattrs` names
    and values. What is None is not in the file info, or not asked for."""

    mode: int | None = None
    modified_ns: int | None = None
    owner: tuple[int, int] | None = None
    xattrs: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def of(cls, entry: Entry, *, owner: bool = False, xattrs: bool = False) -> Metadata:
        """That of an entry of a folder; ownership and extended attributes only where asked for."""
        platform = _platform(entry.real)
        # Syncthing does not send the time of a symlink.
        has_time = entry.kind is not Kind.SYMLINK or entry.modified_ns != 0
        return cls(
            entry.mode,
            entry.modified_ns if has_time else None,
            _owner(platform.unix) if owner and platform.HasField("unix") else None,
            _xattrs(platform) if xattrs else (),
        )

    def apply(self, descriptor: int) -> list[str]:
        """Sets them on an open file or directory. Gives what could not be set, and why, in words."""
        refused: list[str] = []
        if self.owner is not None:
            with _noting("ownership", refused):
                os.fchown(descriptor, *self.owner)
        for name, value in self.xattrs:
            with _noting(f"extended attribute {name}", refused):
                os.setxattr(descriptor, name, value)
        if self.mode is not None:
            with _noting("permissions", refused):
                os.fchmod(descriptor, self.mode)
        if self.modified_ns is not None:
            with _noting("modification time", refused):
                os.utime(descriptor, ns=(self.modified_ns, self.modified_ns))
        return refused

    def apply_to_symlink(self, name: bytes, directory: int) -> list[str]:
        """Sets owner and time of the symlink of that name in an open directory. Gives what could not be set."""
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
    """Notes that something could not be set: the system refuses, or the value is none that it could take."""
    try:
        yield
    except OSError as error:
        refused.append(f"{what}: {error.strerror}")
    except (OverflowError, ValueError) as error:
        refused.append(f"{what}: {error}")


def _platform(real: pb.FileInfo) -> pb.PlatformData:
    """The platform data of a file info; none where it is no such message."""
    try:
        return pb.PlatformData.FromString(real.platform)
    except DecodeError:
        return pb.PlatformData()


def _owner(unix: pb.UnixData) -> tuple[int, int]:
    """The IDs that the names have on this machine, or those that they had on the other."""
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
    """Those that were read on Linux, the only system on which Python sets any."""
    return tuple((os.fsdecode(xattr.name), xattr.value) for xattr in platform.linux.xattrs)
