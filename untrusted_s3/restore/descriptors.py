"""Calls of the system relative to the descriptor of an open directory, which follow no symlinks.

Directories on a way are opened one from the other (openat(2), O_NOFOLLOW), so that nothing outside the first one is
touched, whatever is made into a symlink meanwhile.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

from untrusted_s3.errors import DiskFull, NotRestored, PathTaken

# What file systems without hard links answer: vfat, exfat, some network ones.
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_TEMPORARY = re.compile(r"\.untrusted-s3-[0-9a-f]{16}\.tmp")


def path_components(path: str) -> list[bytes]:
    """Return the names that a path consists of. Raises NotRestored unless the path can only lie below a directory."""
    components = path.split("/")
    if "\0" in path or any(component in ("", ".", "..") for component in components):
        raise NotRestored("its name is no path below the target")
    return [component.encode() for component in components]


@contextmanager
def refusals() -> Iterator[None]:
    """Turn an OSError of the context into NotRestored, PathTaken or DiskFull."""
    try:
        yield
    except FileExistsError as error:
        raise PathTaken from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(_reason(error)) from error
        raise NotRestored(_reason(error)) from error


def _reason(error: OSError) -> str:
    match error.errno:
        case errno.ELOOP | errno.ENOTDIR:
            return "a symlink or a file is where a directory should be"
        case errno.EISDIR:
            return "a directory is in its place"
    return error.strerror or str(error)


def open_below(directory: int, name: bytes) -> int:
    """Open a directory in a directory. Raises OSError."""
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def make_below(directory: int, name: bytes, mode: int) -> int:
    """Open a directory in a directory; make it if it is missing. Raises OSError."""
    try:
        return open_below(directory, name)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(name, mode, dir_fd=directory)
    except FileExistsError:
        pass
    return open_below(directory, name)


def temporary_name() -> bytes:
    """Return a name for a file or symlink that is not finished."""
    return b".untrusted-s3-%s.tmp" % secrets.token_hex(8).encode()


def is_temporary(path: str) -> bool:
    """Whether the last name of a path is one of `temporary_name`."""
    return _TEMPORARY.fullmatch(path.rpartition("/")[2]) is not None


def put_in_place(directory: int, temporary: bytes, name: bytes, *, overwrite: bool) -> None:
    """Give a file or symlink its final name.

    Raises FileExistsError if the name is taken and may not be overwritten, or another OSError.
    """
    if not overwrite:
        try:
            # A rename would replace what has appeared meanwhile.
            os.link(temporary, name, src_dir_fd=directory, dst_dir_fd=directory, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            if _exists(directory, name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        else:
            remove(directory, temporary)
            return
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def remove(directory: int, name: bytes) -> None:
    """Remove a file or symlink, if it exists. Raises OSError."""
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
