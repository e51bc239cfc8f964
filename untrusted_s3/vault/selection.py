"""Which part of a folder is meant: paths and globs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from untrusted_s3.errors import UsageError
from untrusted_s3.vault.entry import DamagedEntry, Entry, Kind
from untrusted_s3.vault.folder import Folder
from untrusted_s3.vault.globs import compile_glob
from untrusted_s3.vault.progress import Progress


class Selection:
    """What lies under one of several paths or globs, or below one of these; everything where there is none.

    A path that has a glob's special characters in its name may be given as it is.
    """

    def __init__(self, globs: Sequence[str] = ()) -> None:
        self._literal = {glob.strip("/") for glob in globs}
        self._patterns = [compile_glob(glob) for glob in self._literal]

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return not self._patterns

    def includes(self, path: str) -> bool:
        """Whether the path is meant."""
        return self.is_everything or any(
            above in self._literal or any(pattern.fullmatch(above) for pattern in self._patterns)
            for above in (path, *_above(path))
        )

    def of(self, folder: Folder) -> Iterator[Entry | DamagedEntry]:
        """What is meant of a folder, with the directories that it lies in; each of these comes before what is in it.

        Also what has no known path: it could be meant.
        """
        given: set[str] = set()
        for entry in folder.entries(matching=self.includes):
            if not self.is_everything and isinstance(entry, Entry):
                for above in _above(entry.path):
                    if above not in given and not self.includes(above):
                        given.add(above)
                        directory = folder.entry(above)
                        if directory is not None and not directory.deleted:
                            yield directory
            yield entry

    def progress(self, folder: Folder) -> Progress:
        """How much work there is on the files that are meant, none of it done.

        Raises UsageError where a folder has nothing of what is meant.
        """
        if self.is_everything:
            return Progress(total_files=folder.totals.files, total_bytes=folder.totals.bytes)
        progress, found = Progress(), False
        for entry in folder.entries(matching=self.includes):
            found = found or entry.path is not None
            if isinstance(entry, Entry) and entry.kind is Kind.FILE:
                progress.total_files += 1
                progress.total_bytes += entry.encrypted.message.size
        if not found:
            raise UsageError("the folder has nothing under that path")
        return progress


def _above(path: str) -> list[str]:
    """The paths of the directories that a path lies in, from the top."""
    return [path[:end] for end, character in enumerate(path) if character == "/"]
