"""A gateway put together without the command line, for rules of the bucket format that are no settings.

`python -m tests.peers.gateway_from_parts OPTION... serve OPTION...`. With `--days-old` everything that is in the bucket
when the gateway starts looks that many days older; with `--max-parts` large objects have that many parts at most.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import uvloop

from untrusted_s3.gateway.gateway import Gateway
from untrusted_s3.gateway.settings import GatewaySettings
from untrusted_s3.identity.files import load_or_create
from untrusted_s3.settings import Settings, UpkeepSettings
from untrusted_s3.store.bucket import MultipartUpload, ObjectSummary
from untrusted_s3.store.format import PART_GRID, PartGrid
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.structured_logging import configure_logging
from untrusted_s3.units import DAY


class AgedBucket(S3Bucket):
    """A bucket in which the present objects and uploads look older. What is written later has its true age."""

    _aged: frozenset[str] = frozenset()
    _added_age = 0.0

    async def make_older(self, seconds: float) -> None:
        """Add so much to the age of every object and every upload that is there now."""
        keys = [item.key async for item in super().list("")]
        uploads = [upload.upload_id async for upload in super().list_multipart_uploads("")]
        self._aged, self._added_age = frozenset(keys + uploads), seconds

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectSummary]:
        async for item in super().list(prefix, start_after):
            yield replace(item, age=item.age + self._added_age) if item.key in self._aged else item

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        async for upload in super().list_multipart_uploads(prefix):
            yield replace(upload, age=upload.age + self._added_age) if upload.upload_id in self._aged else upload


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--days-old", type=float, default=0.0)
    parser.add_argument("--max-parts", type=int, default=PART_GRID.max_parts)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("--store", required=True, type=StoreLocation.parse)
    parser.add_argument("--endpoint-url", required=True)
    parser.add_argument("--identity", required=True, type=Path)
    parser.add_argument("--state", required=True, type=Path)
    parser.add_argument("--listen", required=True)
    parser.add_argument("--http", required=True)
    return parser.parse_args(arguments)


async def serve(options: argparse.Namespace) -> None:
    """Run the gateway until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    bucket = await AgedBucket.open(options.store, options.endpoint_url)
    await bucket.make_older(options.days_old * DAY)
    settings = GatewaySettings(
        listen=(options.listen,),
        http=options.http,
        name="gateway",
        state_directory=options.state,
        history_days=1,
        tuning=Settings(upkeep=UpkeepSettings(first_delay=0.5, interval=0.5)),
    )
    gateway = Gateway(bucket, load_or_create(options.identity), settings, PartGrid(max_parts=options.max_parts))
    try:
        await gateway.start()
        await stop.wait()
    finally:
        await gateway.stop()
        await bucket.close()


if __name__ == "__main__":
    configure_logging(output_format="json")
    uvloop.run(serve(parse()))
