"""The gateway's record in its store, and how it notices another process with the same device ID."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, DeletionDenied, StoreError
from untrusted_s3.gateway.pauses import is_due
from untrusted_s3.store import layout, records
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.format import HEARTBEAT_LIFETIME
from untrusted_s3.store.records import NodeRecord

_RETRIES = 6  # the first one comes after this part of an interval
_logger = structlog.get_logger()


class Heartbeat:
    """The record of one gateway's process below `nodes/`. `clock` gives seconds since 1970."""

    def __init__(self, bucket: Bucket, device_id: DeviceID, name: str, clock: Callable[[], float] = time.time) -> None:
        self._bucket = bucket
        self._device_id = device_id
        self._name = name
        self._clock = clock
        self._key = layout.node_key(device_id)
        self._instance = secrets.token_hex(16)
        self._has_beaten = False

    async def run(
        self, interval: float, idle_interval: float = 0.0, is_idle: Callable[[], bool] = lambda: False
    ) -> None:
        """Write the record every `interval` seconds, until cancelled; every `idle_interval` while `is_idle`.

        One that could not be written is tried again sooner.
        """
        loop = asyncio.get_running_loop()
        last, retry = float("-inf"), interval
        while True:
            pause = interval
            if not is_idle() or is_due(last, idle_interval, interval):
                try:
                    await self.beat()
                    last, retry = loop.time(), interval
                except StoreError as error:
                    _logger.warning("heartbeat not written", error=str(error))
                    retry = interval / _RETRIES if retry == interval else min(2 * retry, interval)
                    pause = retry
            await asyncio.sleep(pause)

    async def beat(self) -> None:
        """Write the record, and warn if another process has written it. Raises StoreError."""
        try:
            before = await records.read_record(self._bucket, self._key, NodeRecord.from_json)
        except DataError:
            before = None
        if before is not None and before.instance != self._instance:
            self._warn(before)
        now = NodeRecord(self._device_id, self._name, int(self._clock()), self._instance)
        await records.write_record(self._bucket, self._key, now.to_json())
        self._has_beaten = True

    async def end(self) -> None:
        """Remove the record unless another process has written it: it tells that one's life. Raises StoreError.

        Where the credentials may not delete, the record says that the process has ended.
        """
        try:
            record = await records.read_record(self._bucket, self._key, NodeRecord.from_json)
        except DataError:
            return
        if record is None or record.instance != self._instance:
            return
        try:
            await self._bucket.delete(self._key)
        except DeletionDenied:
            # The next process with this device ID must not take the record for that of one that runs.
            ended = NodeRecord(self._device_id, self._name, 0, self._instance)
            await records.write_record(self._bucket, self._key, ended.to_json())

    def _warn(self, other: NodeRecord) -> None:
        advice = "each gateway needs its own identity"
        if self._has_beaten:
            # The other process has replaced the record of this one.
            _logger.warning("another gateway runs with this device ID", name=other.name, advice=advice)
        elif abs(age := self._clock() - other.time) < HEARTBEAT_LIFETIME:
            _logger.warning(
                "another gateway may run with this device ID",
                name=other.name,
                seconds_ago=round(age),
                advice=f"after a crash, ignore this; otherwise, {advice}",
            )
