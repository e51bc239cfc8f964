"""A directory of the local disk below which everything is written.

Names come from the bucket, and other programs may work in the directory at the same time; still nothing is read,
written or changed outside of it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from untrusted_s3.errors import UsageError
from untrusted_s3.restore.descriptors import (
    make_below,
    open_below,
    path_components,
    put_in_place,
    refusals,
    remove,
    temporary_name,
)
from untrusted_s3.restore.metadata import Metadata
from untrusted_s3.restore.new_file import NewFile


class Target:
    """A directory into which files are restored.

    Paths are relative to it, with slashes, as Syncthing's names. Methods raise NotRestored if a path is not a harmless
    relative one, or if the system refuses. They may be called in several threads at once.
    """

    def __init__(self, root: Path) -> None:
        """Open the directory; make it if it is missing. The root itself may be reached by symlinks.

        Raises UsageError if it cannot be used.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"nothing can be restored to {root}: {error.strerror}") from error

    def close(self) -> None:
        """Close the directory."""
        os.close(self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def free_bytes(self) -> int | None:
        """Return how much this user may still write; None if the file system does not say."""
        try:
            found = os.fstatvfs(self._root)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize if found.f_blocks else None

    def status(self, path: str) -> os.stat_result | None:
        """Return the status of a path (of a symlink: of the link itself), or None if nothing is there."""
        with refusals():
            try:
                with self._parent(path) as (directory, name):
                    return os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def link_target(self, path: str) -> bytes:
        """Return where the symlink at `path` points."""
        with refusals(), self._parent(path) as (directory, name):
            return os.readlink(name, dir_fd=directory)

    def read(self, path: str, size: int, offset: int = 0) -> bytes | None:
        """Return at most `size` bytes of a regular file from `offset`, or None if nothing is there."""
        with refusals():
            try:
                with self._parent(path) as (directory, name):
                    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
                    descriptor = os.open(name, flags, dir_fd=directory)
            except FileNotFoundError:
                return None
            try:
                return os.pread(descriptor, size, offset)
            finally:
                os.close(descriptor)

    def is_empty(self) -> bool:
        """Return whether nothing is in the directory."""
        with refusals(), os.scandir(self._root) as found:
            return next(found, None) is None

    def walk_up(self) -> Iterator[tuple[str, bool]]:
        """Yield all paths, each with whether it is a directory; a directory comes after what is in it."""
        for parent, directories, files, _ in os.fwalk(".", topdown=False, dir_fd=self._root):
            prefix = "" if parent == "." else parent.removeprefix("./") + "/"
            yield from ((prefix + name, False) for name in files)
            yield from ((prefix + name, True) for name in directories)

    def remove_file(self, path: str) -> None:
        """Remove what is no directory, if it is there."""
        with refusals(), self._parent(path) as (directory, name):
            remove(directory, name)

    def remove_empty_directory(self, path: str) -> None:
        """Remove a directory; one with something in it stays."""
        with refusals(), self._parent(path) as (directory, name):
            try:
                os.rmdir(name, dir_fd=directory)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise

    def make_directory(self, path: str, mode: int = 0o777) -> None:
        """Make a directory with these permissions (less the umask), and those above it if they are missing.

        An existing one is kept; if this user owns it, the owner's permissions are added, so that files can be written.
        """
        with refusals():
            *above, name = path_components(path)
            directory = self._open_directory(above, make=True)
            try:
                made = make_below(directory, name, mode)
            finally:
                os.close(directory)
            try:
                status = os.fstat(made)
                if status.st_mode & stat.S_IRWXU != stat.S_IRWXU and status.st_uid == os.geteuid():
                    os.fchmod(made, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
            finally:
                os.close(made)

    def new_file(self, path: str, metadata: Metadata, *, overwrite: bool = False) -> NewFile:
        """Begin a file, and make the directories above it. The path does not exist before `NewFile.finish`."""
        with refusals():
            *above, name = path_components(path)
            directory = self._open_directory(above, make=True)
            try:
                return NewFile(directory, name, metadata, overwrite=overwrite)
            except BaseException:
                os.close(directory)
                raise

    def make_symlink(self, path: str, link_target: bytes, metadata: Metadata, *, overwrite: bool = False) -> list[str]:
        """Make a symlink, wherever it points, and return which metadata could not be set, and why.

        Raises PathTaken if something is there that may not be overwritten, and NotRestored if it is a directory.
        """
        with refusals():
            *above, name = path_components(path)
            directory = self._open_directory(above, make=True)
            temporary = temporary_name()
            try:
                os.symlink(link_target, temporary, dir_fd=directory)
                try:
                    refused = metadata.apply_to_symlink(temporary, directory)
                    put_in_place(directory, temporary, name, overwrite=overwrite)
                except BaseException:
                    remove(directory, temporary)
                    raise
            finally:
                os.close(directory)
        return refused

    def set_metadata(self, path: str, metadata: Metadata) -> list[str]:
        """Set the metadata of an existing file or directory, and return what could not be set, and why."""
        with refusals(), self._parent(path) as (directory, name):
            # O_NONBLOCK: a named pipe that has taken the path must not keep this waiting for a writer.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            try:
                return metadata.apply(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, bytes]]:
        """Open the directory that holds `path`, and give its descriptor and the name in it."""
        *above, name = path_components(path)
        directory = self._open_directory(above)
        try:
            yield directory, name
        finally:
            os.close(directory)

    def _open_directory(self, components: list[bytes], *, make: bool = False) -> int:
        """Return a new descriptor of a directory, which the caller closes."""
        descriptor = os.dup(self._root)
        for component in components:
            try:
                below = make_below(descriptor, component, 0o777) if make else open_below(descriptor, component)
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor
