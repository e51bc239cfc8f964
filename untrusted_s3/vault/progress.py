"""How far a long piece of work has come."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Progress:
    """Files and bytes (of encrypted data) that are done, and how many there are in all."""

    files: int = 0
    bytes: int = 0
    total_files: int = 0
    total_bytes: int = 0

    def begin(self, size: int) -> FileProgress:
        """One more file is begun, of that many bytes."""
        return FileProgress(self, size)


class FileProgress:
    """One file's share of a progress."""

    def __init__(self, progress: Progress, size: int) -> None:
        self._progress = progress
        self._left = size

    def add(self, size: int) -> None:
        """More of its bytes are done."""
        size = min(size, self._left)
        self._left -= size
        self._progress.bytes += size

    def end(self) -> None:
        """It is done, or given up: what is left of it needs no more time."""
        self.add(self._left)
        self._progress.files += 1
