"""A file in the making: it has a temporary name until it is complete."""

from __future__ import annotations

import os
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from untrusted_s3.restore.descriptors import put_in_place, refusals, remove, temporary_name
from untrusted_s3.restore.metadata import Metadata

_PAGE = 4096
_ZEROS = bytes(_PAGE)


class NewFile:
    """A file in the making. Leaving the context removes it unless it is finished.

    Methods may be called in any thread, one at a time.
    """

    def __init__(self, directory: int, name: bytes, metadata: Metadata, *, overwrite: bool) -> None:
        """Begin a file. It owns the descriptor of the directory from now on. Raises OSError, and then it does not."""
        self._directory = directory
        self._name = name
        self._metadata = metadata
        self._overwrite = overwrite
        self._finished = False
        self._temporary = temporary_name()
        # Nobody else may read the file before it has its own permissions.
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
                remove(self._directory, self._temporary)
        finally:
            os.close(self._directory)

    def write(self, offset: int, data: bytes) -> None:
        """Write at an offset. Pages of zeros are left out, so that they take no space. Raises NotRestored."""
        with refusals():
            view = memoryview(data)
            for start, end in runs_of_data(data):
                written = start
                while written < end:
                    written += os.pwrite(self._descriptor, view[written:end], offset + written)

    def finish(self, size: int) -> list[str]:
        """Put the file in its place, with `size` bytes, and return which metadata could not be set, and why.

        Raises PathTaken if something is there that may not be overwritten, and NotRestored if it is a directory or if
        the system refuses.
        """
        with refusals():
            os.ftruncate(self._descriptor, size)
            refused = self._metadata.apply(self._descriptor)
            put_in_place(self._directory, self._temporary, self._name, overwrite=self._overwrite)
            self._finished = True
        return refused


def runs_of_data(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield begin and end of each run that is more than whole pages (4,096 bytes) of zeros."""
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
