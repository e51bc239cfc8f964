"""Writes down how many requests this gateway sends to the store, so that `untrusted_s3.stats` can add them up."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, StoreError
from untrusted_s3.gateway.troubles import Troubles
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.records import read_record, write_record
from untrusted_s3.store.usage import RECEIVED, UsageRecord, by_kind

_logger = structlog.get_logger()


class CountingBucket(Bucket, Protocol):
    """A bucket that counts its requests."""

    @property
    def requests(self) -> Mapping[str, int]:
        """The number of requests sent, by HTTP method or S3 operation."""
        ...

    @property
    def received(self) -> int:
        """How many bytes of objects the store has sent."""
        ...


class Usage:
    """The record of one gateway's requests. Only this gateway writes it."""

    def __init__(
        self,
        bucket: CountingBucket,
        device_id: DeviceID,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        troubles: Troubles | None = None,
    ) -> None:
        """What fails is noted in `troubles`."""
        self._troubles = troubles or Troubles()
        self._bucket = bucket
        self._device_id = device_id
        self._sleep = sleep
        self._key = layout.usage_key(device_id)
        # What is in the record of the requests of this process, and what would be if the last attempt succeeded.
        self._written: Mapping[str, int] = {}
        self._attempted: Mapping[str, int] = {}
        self._write_id = ""
        self._since = int(bucket.now())

    async def run(self, interval: float) -> None:
        """Write the record every `interval` seconds, until cancelled."""
        while True:
            await self._sleep(interval)
            await self.save()

    async def save(self) -> None:
        """Add what was sent since the last time to the record. What fails is logged, and left to the next time."""
        trouble: Exception | None = None
        try:
            await self._save()
        except StoreError as error:
            trouble = error
            _logger.warning("requests not written down", error=str(error))
        self._troubles.note("requests not written down", trouble)

    async def _save(self) -> None:
        try:
            before = await read_record(self._bucket, self._key, UsageRecord.from_json)
        except DataError as error:
            _logger.warning("record of requests not readable", error=str(error))
            before = None
        if before is not None and before.write_id == self._write_id:
            self._written = self._attempted  # also if the answer was lost
        now = self._bucket.now()
        sent = by_kind(self._bucket.requests) | {RECEIVED: self._bucket.received}
        fresh = {kind: count - self._written.get(kind, 0) for kind, count in sent.items()}
        self._attempted, self._write_id = sent, secrets.token_hex(16)
        record = (before or UsageRecord(self._device_id, self._since)).plus(fresh, now, self._write_id)
        await write_record(self._bucket, self._key, record.to_json())
        self._written = sent
