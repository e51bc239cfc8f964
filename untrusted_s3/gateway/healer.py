"""Opens folders, and heals those whose log the store has lost or damaged a part of (sync/healing.py), but not too
often."""

from __future__ import annotations

import structlog

from untrusted_s3.errors import (
    DataError,
    HealingDelayed,
    IndexClaimed,
    LogWentBack,
    SegmentDamaged,
    SegmentsMissing,
)
from untrusted_s3.gateway.losses import Losses
from untrusted_s3.gateway.pauses import Pauses
from untrusted_s3.sync.folder import Folder

_logger = structlog.get_logger()
_LOST_LOGGED = 20


class Healer:
    """`heal_pauses` are between the healings of one folder, `claim_pauses` between those that a device's word causes.
    `losses` hears what they find lost.

    All is by folder ID: the objects of a folder change when it is opened again.
    """

    def __init__(self, heal_pauses: Pauses, claim_pauses: Pauses, losses: Losses) -> None:
        self._heal_pauses = heal_pauses
        self._claim_pauses = claim_pauses
        self._losses = losses
        # Why the log has to be healed before the folder is opened.
        self._wanted: dict[str, DataError] = {}

    def want(self, folder_id: str, reason: DataError) -> None:
        """Have the log of a folder healed when it is opened next."""
        self._wanted[folder_id] = reason

    def heeds_claims(self, folder_id: str) -> bool:
        """Return whether a device is believed now that says that it knows more of the folder's index than there is."""
        return not self._claim_pauses.left(folder_id)

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
        claim = reason if isinstance(reason, IndexClaimed) else None
        healed = await folder.heal(claim)
        self._heal_pauses.note(folder_id)
        if claim is not None:
            self._claim_pauses.note(folder_id)
        for text in self._losses.found(folder_id, healed.losses)[:_LOST_LOGGED]:
            _logger.error("log segments lost", folder=folder_id, reason=text)
        _logger.warning("log healed", folder=folder_id, restored=healed.restored, missing=healed.missing)
