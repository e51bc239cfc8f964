"""Reading the records of the accepted devices again and again, each only where it may have changed."""

from __future__ import annotations

import asyncio
from typing import Final

from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket, ObjectSummary
from untrusted_s3.store.records import PeerRecord, Records, read_peers

# How far the ages in a listing may be off: stores give them in whole seconds, and have more than one clock.
_MARGIN: Final = 10.0


class PeerReader:
    """Reads the records of one store.

    What a list says was last written before it was last read here is not read again, for `lifetime` seconds: a store
    that was put back to an earlier time has older records.
    """

    def __init__(self, bucket: Bucket, lifetime: float) -> None:
        self._bucket = bucket
        self._lifetime = lifetime
        # By key: the record, and when reading it began at the latest.
        self._known: dict[str, tuple[PeerRecord, float]] = {}

    async def read(self) -> Records[PeerRecord]:
        """Return all accepted devices, in any order. Raises StoreError if the store cannot be listed or reached."""
        begun = _now()
        kept: dict[str, tuple[PeerRecord, float]] = {}

        def known(item: ObjectSummary) -> PeerRecord | None:
            record, read = self._known.get(item.key, (None, begun))
            since = _now() - read
            if record is None or since > self._lifetime or item.age <= since + _MARGIN:
                return None
            kept[item.key] = record, read
            return record

        found = await read_peers(self._bucket, known)
        fresh = {layout.peer_key(record.device_id): (record, begun) for record in found}
        self._known = fresh | kept
        return found


def _now() -> float:
    return asyncio.get_running_loop().time()
