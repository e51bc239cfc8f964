"""What the logs of folders have lost for good, as the store's records say (store/losses.py).

Any gateway on the store writes such records, and the operator has them deleted. So they are read when a folder is
opened, when its log was renewed, and now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Sequence

import structlog

from untrusted_s3.errors import StoreError
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import LossReader, LossRecord

_logger = structlog.get_logger()
_SHOWN_PROBLEMS = 3
_LOGGED_PROBLEMS = 20


class _FolderLosses:
    """Those of one folder.

    Attributes:
        reader: Reads the records.
        texts: What is lost in words, by what identifies it.
        error: Why the records could not be read at the last try, or None.
        due: When to read them again.
        logged: The keys of unreadable records that the log has named.
    """

    def __init__(self, reader: LossReader) -> None:
        self.reader = reader
        self.texts: dict[Hashable, str] = {}
        self.error: str | None = None
        self.due = float("-inf")
        self.logged: set[str] = set()

    @property
    def problem(self) -> str | None:
        """What is wrong with the records, or None."""
        unreadable = self.reader.unreadable
        if unreadable:
            shown = [f"{problem.path}: {problem.reason}" for problem in unreadable[:_SHOWN_PROBLEMS]]
            return "; ".join([*shown, *(["…"] if len(unreadable) > len(shown) else [])])
        return self.error


class Losses:
    """The losses of all folders, by folder ID.

    Where something is lost or not readable, that is read again after `interval` seconds; elsewhere after
    `long_interval`.
    """

    def __init__(self, bucket: Bucket, interval: float, long_interval: float) -> None:
        self._bucket = bucket
        self._interval = interval
        self._long_interval = long_interval
        self._folders: dict[str, _FolderLosses] = {}

    def texts(self, folder_id: str) -> Sequence[str]:
        """Return what the log of a folder has lost, in words, the newest last."""
        losses = self._folders.get(folder_id)
        return list(losses.texts.values()) if losses is not None else []

    def problems(self) -> dict[str, str]:
        """Return which folders' losses are not readable and why, by their names for /readyz."""
        found = ((folder_id, losses.problem) for folder_id, losses in sorted(self._folders.items()))
        return {f"folder {folder_id}: losses not readable": problem for folder_id, problem in found if problem}

    def found(self, folder_id: str, records: Iterable[LossRecord]) -> Sequence[str]:
        """Take what a healing here has found. Return it in words."""
        losses = self._of(folder_id)
        found: dict[Hashable, str] = {}
        for record in records:
            found |= record.texts(losses.reader.keys)
        losses.texts |= {what: text for what, text in found.items() if what not in losses.texts}
        losses.due = float("-inf")
        return list(found.values())

    def renewed(self, folder_id: str) -> None:
        """Note that the log of a folder was renewed, perhaps by a healing of another gateway."""
        self._of(folder_id).due = float("-inf")

    def forget(self, folder_id: str) -> None:
        """Forget what a folder has lost that the store does not have any more."""
        self._folders.pop(folder_id, None)

    async def read(self, folder_ids: Iterable[str], *, timeout: float | None = None) -> None:
        """Read the losses of those folders for which that is due, each for `timeout` seconds at most.

        Trouble is shown among the problems.
        """
        for folder_id in folder_ids:
            losses = self._of(folder_id)
            if _now() < losses.due:
                continue
            losses.due = _now() + self._interval
            try:
                async with asyncio.timeout(timeout):
                    await losses.reader.read()
            except (StoreError, TimeoutError) as error:
                text = str(error) or "the store does not answer in time"
                if losses.error is None:
                    _logger.warning("losses of a folder not read", folder=folder_id, error=text)
                losses.error = text
                losses.texts |= losses.reader.texts()
                continue
            losses.error = None
            losses.texts = losses.reader.texts()
            self._log_unreadable(losses)
            if not losses.texts and losses.problem is None:
                losses.due = _now() + self._long_interval

    def _of(self, folder_id: str) -> _FolderLosses:
        if folder_id not in self._folders:
            self._folders[folder_id] = _FolderLosses(LossReader(self._bucket, FolderKeys.of(folder_id)))
        return self._folders[folder_id]

    @staticmethod
    def _log_unreadable(losses: _FolderLosses) -> None:
        unreadable = losses.reader.unreadable[:_LOGGED_PROBLEMS]
        for problem in unreadable:
            if problem.path not in losses.logged:
                _logger.error("record of losses not readable", key=problem.path, reason=problem.reason)
        losses.logged = {problem.path for problem in unreadable}


def _now() -> float:
    return asyncio.get_running_loop().time()
