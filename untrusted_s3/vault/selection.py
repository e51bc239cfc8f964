"""A part of a folder, chosen by paths and globs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from untrusted_s3.errors import UsageError
from untrusted_s3.progress import Progress
from untrusted_s3.vault.entry import DamagedEntry, Entry, Kind
from untrusted_s3.vault.folder import Folder
from untrusted_s3.vault.globs import compile_glob


class Selection:
    """What matches one of several paths or globs, or lies below such a path; everything if none is given.

    A path whose name has special characters of globs also matches literally.
    """

    def __init__(self, globs: Sequence[str] = ()) -> None:
        """Choose by globs. Raises UsageError for one that is wrong."""
        self._literal = {glob.strip("/") for glob in globs}
        self._patterns = [compile_glob(glob) for glob in self._literal]

    @property
    def is_everything(self) -> bool:
        """Whether nothing is left out."""
        return not self._patterns

    def includes(self, path: str) -> bool:
        """Return whether a path is selected."""
        return self.is_everything or any(
            above in self._literal or any(pattern.fullmatch(above) for pattern in self._patterns)
            for above in (path, *_above(path))
        )

    def of(self, folder: Folder, *, conflicts: bool = False, versions: bool = False) -> Iterator[Entry | DamagedEntry]:
        """Yield the selected entries of a folder and the directories that they lie in.

        A directory comes before what is in it. Entries without a known path are included, because they could match.
        For `conflicts` and `versions` see `Folder.entries`.
        """
        given: set[str] = set()
        for entry in folder.entries(matching=self.includes, conflicts=conflicts, versions=versions):
            if not self.is_everything and isinstance(entry, Entry):
                for above in _above(entry.path):
                    if above not in given and not self.includes(above):
                        given.add(above)
                        directory = folder.entry(above)
                        if isinstance(directory, DamagedEntry) or (directory is not None and not directory.deleted):
                            yield directory
            yield entry

    def progress(self, folder: Folder, *, conflicts: bool = False, versions: bool = False) -> Progress:
        """Return the work on the selected files of a folder, with nothing done.

        Raises UsageError if the folder has nothing that is selected.
        """
        progress, found = Progress(), self.is_everything
        if self.is_everything:
            progress.total_files, progress.total_bytes = folder.totals.files, folder.totals.bytes
            if conflicts or versions:
                others = folder.conflicts() if conflicts else folder.other_versions()
                _count(progress, others)
        else:
            for entry in folder.entries(matching=self.includes, conflicts=conflicts, versions=versions):
                found = found or entry.path is not None
                _count(progress, [entry])
        if not found:
            raise UsageError("the folder has nothing under that path")
        return progress


def _count(progress: Progress, entries: Iterable[Entry | DamagedEntry]) -> None:
    for entry in entries:
        if isinstance(entry, Entry) and entry.kind is Kind.FILE:
            progress.total_files += 1
            progress.total_bytes += entry.encrypted.message.size


def _above(path: str) -> list[str]:
    """Return the paths of the directories that a path lies in, from the top."""
    return [path[:end] for end, character in enumerate(path) if character == "/"]
