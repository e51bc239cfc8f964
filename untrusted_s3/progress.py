"""How far a long piece of work on files has come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """What is done, and how much work there is.

    Attributes:
        files: Files that are done.
        bytes: Bytes that are done, of encrypted data.
        total_files: All files.
        total_bytes: All bytes.
    """

    files: int = 0
    bytes: int = 0
    total_files: int = 0
    total_bytes: int = 0

    def begin(self, size: int) -> FileProgress:
        """Begin a file of `size` bytes."""
        return FileProgress(self, size)


class FileProgress:
    """The share of one file in a Progress."""

    def __init__(self, progress: Progress, size: int) -> None:
        self._progress = progress
        self._left = size

    def add(self, size: int) -> None:
        """Count `size` more bytes as done."""
        size = min(size, self._left)
        self._left -= size
        self._progress.bytes += size

    def end(self) -> None:
        """Count the file as done, with all of its bytes; also if it was given up."""
        self.add(self._left)
        self._progress.files += 1
