"""A gateway put together without the command line, for rules of the bucket format that are no settings.

`python -m tests.peers.gateway_from_parts OPTION... serve OPTION...`. With `--age-factor` everything in the bucket looks
that many times as old; with `--max-parts` large objects have that many parts at most.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
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


class AgingBucket(S3Bucket):
    """A bucket whose contents grow old faster."""

    age_factor = 1.0

    async def list(self, prefix: str, start_after: str = "") -> AsyncIterator[ObjectSummary]:
        async for item in super().list(prefix, start_after):
            yield ObjectSummary(item.key, item.size, item.age * self.age_factor)

    async def list_multipart_uploads(self, prefix: str) -> AsyncIterator[MultipartUpload]:
        async for upload in super().list_multipart_uploads(prefix):
            yield MultipartUpload(upload.key, upload.upload_id, upload.age * self.age_factor)


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--age-factor", type=float, default=1.0)
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
    bucket = await AgingBucket.open(options.store, options.endpoint_url)
    bucket.age_factor = options.age_factor
    settings = GatewaySettings(
        listen=(options.listen,),
        http=options.http,
        name="gateway",
        state_directory=options.state,
        history=1 * DAY,
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
