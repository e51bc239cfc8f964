"""The limit of the S3 server: concurrent PUTs, then GETs, of equal objects on presigned URLs, and nothing else.

Run it as `python -m bench.bare_client ENDPOINT_URL BUCKET OBJECT_SIZE COUNT STORE_PID`; credentials come from the
environment. It prints one JSON object with a measurement of "ingest" and one of "serve".
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
from collections.abc import Awaitable, Callable

import aiohttp
import boto3
import uvloop
from botocore.config import Config
from yarl import URL

from bench.measure import PEER, STORE, Meter
from untrusted_s3.store.embedded.process import REGION

CONCURRENCY = 16


async def main(endpoint_url: str, bucket: str, object_size: int, count: int, store_pid: int) -> None:
    body = os.urandom(object_size)
    config = Config(signature_version="s3v4", s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=endpoint_url, region_name=REGION, config=config)

    def presign(operation: str, prefix: str = "bare", count: int = count) -> list[URL]:
        keys = ({"Bucket": bucket, "Key": f"{prefix}/{number}"} for number in range(count))
        return [URL(client.generate_presigned_url(operation, Params=key), encoded=True) for key in keys]

    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONCURRENCY),
        skip_auto_headers={"Content-Type", "Accept-Encoding", "Accept"},
        raise_for_status=True,
    ) as session:

        async def put(url: URL) -> None:
            async with session.put(url, data=body) as response:
                await response.read()

        async def get(url: URL) -> None:
            received = 0
            async with session.get(url) as response:
                async for chunk in response.content.iter_any():
                    received += len(chunk)
            assert received == object_size, f"{received} bytes instead of {object_size}"

        puts, gets = presign("put_object"), presign("get_object")
        # A fresh SeaweedFS makes its volumes first. With the other receivers it does so while they start.
        await _for_all(put, presign("put_object", "warm-up", CONCURRENCY))
        measurements = {}
        for work, act, urls in (("ingest", put, puts), ("serve", get, gets)):
            os.sync()
            meter = Meter({STORE: store_pid, PEER: os.getpid()})
            await _for_all(act, urls)
            measurements[work] = dataclasses.asdict(meter.stop())
    print(json.dumps(measurements))


async def _for_all(act: Callable[[URL], Awaitable[None]], urls: list[URL]) -> None:
    waiting = iter(urls)

    async def work() -> None:
        for url in waiting:
            await act(url)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(CONCURRENCY):
            tasks.create_task(work())


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])))
