"""Opens folders, and heals those whose log the store has lost or damaged a part of (sync/healing.py), but not too
often."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from untrusted_s3.errors import (
    DataError,
    HealingDelayed,
    IndexClaimed,
    LogWentBack,
    SegmentDamaged,
    SegmentsMissing,
)
from untrusted_s3.gateway.pauses import Pauses
from untrusted_s3.sync.folder import Folder

_logger = structlog.get_logger()
_LOST_SHOWN = 20


class Healer:
    """`heal_pauses` are between the healings of one folder, `claim_pauses` between those that a device's word causes.

    All is by folder ID: the objects of a folder change when it is opened again.
    """

    def __init__(self, heal_pauses: Pauses, claim_pauses: Pauses) -> None:
        self._heal_pauses = heal_pauses
        self._claim_pauses = claim_pauses
        # Why the log has to be healed before the folder is opened, and what healing has found lost.
        self._wanted: dict[str, DataError] = {}
        self._lost: dict[str, list[str]] = {}

    def want(self, folder_id: str, reason: DataError) -> None:
        """Have the log of a folder healed when it is opened next."""
        self._wanted[folder_id] = reason

    def heeds_claims(self, folder_id: str) -> bool:
        """Return whether a device is believed now that says that it knows more of the folder's index than there is."""
        return not self._claim_pauses.left(folder_id)

    def lost(self, folder_id: str) -> Sequence[str]:
        """Return what healing the folder's log has found lost, as texts."""
        return self._lost.get(folder_id, [])

    async def open(self, folder: Folder) -> None:
        """Open a folder, after its log is healed where it has to be.

        Raises HealingDelayed, or what keeps the folder from being healed or opened.
        """
        folder_id = folder.record.folder_id
        if folder_id not in self._wanted:
            try:
                await folder.open()
            except (LogWentBack, SegmentDamaged, SegmentsMissing) as error:
                self._wanted[folder_id] = error
        if folder_id in self._wanted:
            await self._heal(folder, self._wanted[folder_id])
            await folder.open()
            del self._wanted[folder_id]

    async def _heal(self, folder: Folder, reason: DataError) -> None:
        folder_id = folder.record.folder_id
        left = self._heal_pauses.left(folder_id)
        if left:
            raise HealingDelayed(f"{reason}. It is healed in {left:.0f} s, for it was healed a short time ago")
        _logger.error("log has lost segments, healing it", folder=folder_id, error=str(reason))
        healed = await folder.heal()
        self._heal_pauses.note(folder_id)
        if isinstance(reason, IndexClaimed):
            self._claim_pauses.note(folder_id)
        lost = [f"the log has lost {loss}: what was in it and no device has is lost" for loss in healed.losses]
        lost += [f"a segment of the log was damaged: it is kept as {key}" for key in healed.kept]
        if healed.forgotten:
            lost.append(f"{healed.forgotten} entries that this gateway knew are not in the log any more")
        if not lost and isinstance(reason, IndexClaimed):
            lost.append(f"{reason}: what was in it and no device has is lost")
        self._lost[folder_id] = [*self._lost.get(folder_id, []), *lost][-_LOST_SHOWN:]
        for text in lost:
            _logger.error("log segments lost", folder=folder_id, reason=text)
        _logger.warning("log healed", folder=folder_id, restored=healed.restored, missing=healed.missing)
