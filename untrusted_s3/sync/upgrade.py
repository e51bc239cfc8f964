"""Logs that were written before claims were noted (index/claims.py).

Gateways of that time noticed from what devices announce that they have something else than the folder, and forgot it:
their cursors say that all of it is handled. So the folder's index is begun again, once, by a renewal that takes nothing
back. Then each device sends its whole index, and what it claims becomes known.

It also keeps gateways of format version 1 from going on: they cannot read the segment.
"""

from __future__ import annotations

import structlog

from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.renewal import Planned
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.index_id import keeps_claims
from untrusted_s3.store.records import FolderRecord

_logger = structlog.get_logger()


class _AlreadyBegunError(Exception):
    """Another gateway was quicker."""


async def begin_claims(record: FolderRecord, log: FolderLog) -> None:
    """Begin the folder's index again if its log, which is loaded, is from before claims. Raises what `renew` raises."""
    try:
        if not _is_from_before(record, log.state):
            return
        await log.renew(lambda state: _nothing(record, state), force=True)
    except _AlreadyBegunError:
        return
    _logger.warning("index of an earlier version begun again", folder=record.folder_id)


def _is_from_before(record: FolderRecord, state: FolderState) -> bool:
    return state.position > 0 and not keeps_claims(state.index_id or record.index_id)


def _nothing(record: FolderRecord, state: FolderState) -> Planned:
    if not _is_from_before(record, state):
        raise _AlreadyBegunError
    return (), ()
