"""Writing below a directory of the local disk, and nowhere else.

Names come from the bucket, and somebody else may work in the directory at the same time. So each directory on the way
is opened from the one above it without following symlinks (openat(2), O_NOFOLLOW), and everything is done relative to
that descriptor: whatever is made into a symlink meanwhile, nothing is read, written or changed outside the target.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Self

from untrusted_s3.errors import NotRestored, UsageError
from untrusted_s3.restore.metadata import Metadata

_PAGE = 4096
_ZEROS = bytes(_PAGE)
# What file systems without hard links say: vfat, exfat, some network ones.
_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


class Target:
    """A directory into which files are restored. Paths are relative to it, with slashes, as Syncthing's names.

    Methods raise NotRestored where a path is no harmless relative one, or where the system refuses. They may be called
    in several threads at once.
    """

    def __init__(self, root: Path) -> None:
        """Makes the directory where it is missing. The root itself may be reached by symlinks: the user named it.

        Raises UsageError where it cannot be used.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise UsageError(f"nothing can be restored to {root}: {error.strerror}") from error

    def close(self) -> None:
        """Closes the directory."""
        os.close(self._root)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def status(self, path: str) -> os.stat_result | None:
        """What is there (of a symlink: the link itself), or None where nothing is."""
        with _refusals():
            try:
                with self._parent(path) as (directory, name):
                    return os.stat(name, dir_fd=directory, follow_symlinks=False)
            except FileNotFoundError:
                return None

    def link_target(self, path: str) -> bytes:
        """Where the symlink at `path` points."""
        with _refusals(), self._parent(path) as (directory, name):
            return os.readlink(name, dir_fd=directory)

    def make_directory(self, path: str, mode: int = 0o777) -> None:
        """Makes a directory with those permissions (less the umask), and those above it where they are missing.

        One that is there is kept; of one that is ours, we get all rights, so that we can write into it.
        """
        with _refusals():
            *above, name = _components(path)
            directory = self._open_directory(above, make=True)
            try:
                made = _make_below(directory, name, mode)
            finally:
                os.close(directory)
            try:
                status = os.fstat(made)
                if status.st_mode & stat.S_IRWXU != stat.S_IRWXU and status.st_uid == os.geteuid():
                    os.fchmod(made, stat.S_IMODE(status.st_mode) | stat.S_IRWXU)
            finally:
                os.close(made)

    def new_file(self, path: str, metadata: Metadata, *, overwrite: bool = False) -> NewFile:
        """Begins a file. Nothing is seen under its name before NewFile.finish. Directories above are made as needed."""
        with _refusals():
            *above, name = _components(path)
            directory = self._open_directory(above, make=True)
            try:
                return NewFile(directory, name, metadata, overwrite=overwrite)
            except BaseException:
                os.close(directory)
                raise

    def make_symlink(self, path: str, link_target: bytes, metadata: Metadata, *, overwrite: bool = False) -> list[str]:
        """Makes a symlink to anything: where it points is data here. Gives what of the metadata could not be set.

        Raises NotRestored where something is there, unless it may be overwritten; a directory never is.
        """
        with _refusals():
            *above, name = _components(path)
            directory = self._open_directory(above, make=True)
            temporary = _temporary_name()
            try:
                os.symlink(link_target, temporary, dir_fd=directory)
                try:
                    refused = metadata.apply_to_symlink(temporary, directory)
                    _put_in_place(directory, temporary, name, overwrite=overwrite)
                except BaseException:
                    _remove(directory, temporary)
                    raise
            finally:
                os.close(directory)
        return refused

    def set_metadata(self, path: str, metadata: Metadata) -> list[str]:
        """Sets those of a file or directory that is there. Gives what could not be set."""
        with _refusals(), self._parent(path) as (directory, name):
            # Not to wait for a writer, should it be a named pipe by now.
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
            try:
                return metadata.apply(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def _parent(self, path: str) -> Iterator[tuple[int, bytes]]:
        """A descriptor of the directory that holds `path`, and the name in it."""
        *above, name = _components(path)
        directory = self._open_directory(above)
        try:
            yield directory, name
        finally:
            os.close(directory)

    def _open_directory(self, components: list[bytes], *, make: bool = False) -> int:
        """A new descriptor of a directory, for the caller to close."""
        descriptor = os.dup(self._root)
        for component in components:
            try:
                below = _make_below(descriptor, component, 0o777) if make else _open_below(descriptor, component)
            finally:
                os.close(descriptor)
            descriptor = below
        return descriptor


class NewFile:
    """A file in the making, under a temporary name beside its own. Leaving the context discards what is not finished.

    Methods may be called in any thread, one at a time.
    """

    def __init__(self, directory: int, name: bytes, metadata: Metadata, *, overwrite: bool) -> None:
        """Takes over the descriptor of the directory, unless it raises."""
        self._directory = directory
        self._name = name
        self._metadata = metadata
        self._overwrite = overwrite
        self._finished = False
        self._temporary = _temporary_name()
        # Nobody shall read it while it lacks the permissions that it is to have.
        mode = 0o666 if metadata.mode is None else 0o600
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._temporary, flags, mode, dir_fd=directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
        try:
            if not self._finished:
                _remove(self._directory, self._temporary)
        finally:
            os.close(self._directory)

    def write(self, offset: int, data: bytes) -> None:
        """Writes at an offset. Pages of zeros are left out, so that they take no space on the disk."""
        with _refusals():
            view = memoryview(data)
            for start, end in runs_of_data(data):
                written = start
                while written < end:
                    written += os.pwrite(self._descriptor, view[written:end], offset + written)

    def finish(self, size: int) -> list[str]:
        """Puts the file in its place, with that size in bytes. Gives what of the metadata could not be set.

        Raises NotRestored where something is there, unless it may be overwritten; a directory never is.
        """
        with _refusals():
            os.ftruncate(self._descriptor, size)
            refused = self._metadata.apply(self._descriptor)
            _put_in_place(self._directory, self._temporary, self._name, overwrite=self._overwrite)
            self._finished = True
        return refused


def check_path(path: str) -> None:
    """Raises NotRestored unless `path` can only lie below a target."""
    _components(path)


def runs_of_data(data: bytes) -> Iterator[tuple[int, int]]:
    """Where `data` holds anything but whole pages (4,096 bytes) of zeros: beginnings and ends, in order."""
    begin: int | None = None
    for offset in range(0, len(data), _PAGE):
        if data.startswith(_ZEROS, offset):
            if begin is not None:
                yield begin, offset
                begin = None
        elif begin is None:
            begin = offset
    if begin is not None:
        yield begin, len(data)


def _components(path: str) -> list[bytes]:
    components = path.split("/")
    if "\0" in path or any(component in ("", ".", "..") for component in components):
        raise NotRestored("its name is no path below the target")
    return [component.encode() for component in components]


@contextmanager
def _refusals() -> Iterator[None]:
    """Makes of what the system refuses an error that speaks to the user."""
    try:
        yield
    except OSError as error:
        raise NotRestored(_words(error)) from error


def _words(error: OSError) -> str:
    match error.errno:
        case errno.EEXIST:
            return "something else is there (--overwrite replaces files and symlinks)"
        case errno.ELOOP | errno.ENOTDIR:
            return "a symlink or a file is where a directory should be"
        case errno.EISDIR:
            return "a directory is in its place"
    return error.strerror or str(error)


def _open_below(directory: int, name: bytes) -> int:
    return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)


def _make_below(directory: int, name: bytes, mode: int) -> int:
    try:
        return _open_below(directory, name)
    except FileNotFoundError:
        pass
    try:
        os.mkdir(name, mode, dir_fd=directory)
    except FileExistsError:
        pass
    return _open_below(directory, name)


def _temporary_name() -> bytes:
    return b".untrusted-s3-%s.tmp" % secrets.token_hex(8).encode()


def _put_in_place(directory: int, temporary: bytes, name: bytes, *, overwrite: bool) -> None:
    """Gives a file or symlink its own name instead of the temporary one. Raises FileExistsError where that is taken,
    unless it may be overwritten."""
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
            _remove(directory, temporary)
            return
    os.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def _exists(directory: int, name: bytes) -> bool:
    try:
        os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _remove(directory: int, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
