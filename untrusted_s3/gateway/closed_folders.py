"""The folders of the store that are not open, and why."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import structlog

from untrusted_s3.bep.cluster_config import FolderOffer
from untrusted_s3.errors import FolderRemovalUnfinished, FolderUnavailable
from untrusted_s3.problem import Problem
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord

_logger = structlog.get_logger()
# Said to peers.
NOT_OPEN = "the gateway cannot open the folder now; its status says why"


@dataclass(slots=True)
class ClosedFolder:
    """A folder of the store that is not open.

    Attributes:
        folder_id: Its ID, or the key of its record if that cannot be read.
        label: Its label.
        error: Why it is not open, for the operator.
        damaged: Whether it should be open. It is tried again, and peers that offer it are refused until then.
        offered: Whether a peer was refused because of that.
    """

    folder_id: str
    label: str
    error: str
    damaged: bool = True
    offered: bool = False


class ClosedFolders:
    """The folders that are not open. Iterating gives those whose IDs are known, then those whose records are not
    readable.
    """

    def __init__(self) -> None:
        self._folders: dict[str, ClosedFolder] = {}
        self._unreadable: dict[str, ClosedFolder] = {}  # by the keys of the records

    def __iter__(self) -> Iterator[ClosedFolder]:
        return iter([closed for folders in (self._folders, self._unreadable) for _, closed in sorted(folders.items())])

    @property
    def has_unreadable(self) -> bool:
        """Whether the record of any folder is not readable."""
        return bool(self._unreadable)

    def is_unreadable(self, folder_id: str) -> bool:
        """Return whether the record of this folder was not readable at the last look."""
        return _record_key(folder_id) in self._unreadable

    def get(self, folder_id: str) -> ClosedFolder | None:
        """Return a folder whose ID is known."""
        return self._folders.get(folder_id)

    def add(self, record: FolderRecord, error: str, *, damaged: bool = True, offered: bool = False) -> ClosedFolder:
        """Note that a folder is not open, whose record is readable. Return what is noted."""
        unreadable = self._unreadable.pop(_record_key(record.folder_id), None)
        offered = offered or (unreadable is not None and unreadable.offered)
        closed = ClosedFolder(record.folder_id, record.label, error, damaged, offered)
        self._folders[record.folder_id] = closed
        return closed

    def add_removed(self, record: FolderRecord) -> None:
        """Note that a folder is being removed."""
        reason = str(FolderRemovalUnfinished(record.folder_id))
        _logger.warning("folder not opened", folder=record.folder_id, reason=reason)
        self.add(record, reason, damaged=False)

    def add_unreadable(self, problem: Problem, *, offered: bool = False) -> None:
        """Note that the record of a folder is not readable."""
        key, reason = problem.path, problem.reason
        if key in self._unreadable:
            self._unreadable[key].offered |= offered
            return
        _logger.error("folder not readable", key=key, reason=reason)
        error = f"the record of the folder cannot be read: {reason}"
        self._unreadable[key] = ClosedFolder(key, "", error, offered=offered)

    def keep_unreadable(self, keys: Collection[str]) -> None:
        """Forget those whose records are not among these, which the store has."""
        self._unreadable = {key: closed for key, closed in self._unreadable.items() if key in keys}

    def discard(self, folder_id: str) -> bool:
        """Forget a folder: it is open, or the store does not have it. Return whether a peer was refused meanwhile."""
        found = (self._folders.pop(folder_id, None), self._unreadable.pop(_record_key(folder_id), None))
        return any(closed is not None and closed.offered for closed in found)

    def refuse(self, offer: FolderOffer) -> None:
        """Raise FolderUnavailable if the folder that a peer offers should be open and is not."""
        for closed in (self._folders.get(offer.folder_id), self._unreadable.get(_record_key(offer.folder_id))):
            if closed is not None and closed.damaged:
                closed.offered = True
                raise FolderUnavailable(NOT_OPEN)

    def problems(self) -> dict[str, str]:
        """Return why folders that should be open are not, by their names for /readyz."""
        return {f"folder {closed.folder_id}: not open": closed.error for closed in self if closed.damaged}


def _record_key(folder_id: str) -> str:
    return FolderKeys.of(folder_id).record
