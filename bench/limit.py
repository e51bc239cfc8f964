"""`python -m bench.limit`: small objects to a store and back, with 16 requests at once and with the limit that follows.

One program, one bucket, in turn: the machine's speed and the store's cost are the same for both.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import uvloop

from bench.far_store import Distance
from bench.machine import describe
from bench.receivers import new_store
from untrusted_s3.settings import ObjectSettings
from untrusted_s3.store.adaptive_limit import AdaptiveLimit
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket

_SIZE = 4136  # a block of 4 KiB, encrypted
_SHOWN = 10


@click.command()
@click.option("--round-trip", default=40.0, show_default=True, type=click.FloatRange(min=0), help="In milliseconds.")
@click.option("--files", default=1500, show_default=True, type=click.IntRange(min=_SHOWN), help="Objects of 4 KiB.")
@click.option("--repeat", default=2, show_default=True, type=click.IntRange(min=1), help="Runs of both, in turn.")
def main(round_trip: float, files: int, repeat: int) -> None:
    """Show what a limit of requests that follows the store is worth."""
    distance = Distance(round_trip / 1000)
    click.echo(f"{describe()}; {distance if distance else 'store near'}")
    with tempfile.TemporaryDirectory(prefix="bench-") as root, new_store(Path(root), distance) as (store, url):
        uvloop.run(_measure(store, url, files, repeat))


async def _measure(store: EmbeddedStore, url: str, files: int, repeat: int) -> None:
    credentials = S3Credentials(store.access_key, store.secret_key)
    bucket = await S3Bucket.open(StoreLocation(store.bucket, "limit/"), url, credentials)
    body = bytes(_SIZE)
    settings = ObjectSettings()
    try:
        for number in range(repeat):
            for most in (settings.concurrent_uploads, settings.most_uploads):
                keys = [f"{number}/{most}/{file}" for file in range(files)]
                await _all("PUT", keys, most, lambda key: bucket.put(key, [body]))
                await _all("GET", keys, most, lambda key: bucket.get(key, 0, _SIZE))
    finally:
        await bucket.close()


async def _all(method: str, keys: list[str], most: int, ask: Callable[[str], Awaitable[object]]) -> None:
    limit = AdaptiveLimit(ObjectSettings().concurrent_uploads, most)
    places = limit.of(method)
    limits: list[int] = []

    async def one(number: int, key: str) -> None:
        async with places:
            await ask(key)
        if number % (len(keys) // _SHOWN) == 0:
            limits.append(limit.limit)

    began, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(one(number, key) for number, key in enumerate(keys)))
    seconds, cpu = time.monotonic() - began, time.process_time() - cpu
    course = " ".join(map(str, limits))
    click.echo(
        f"{method}, {limit.least} to {limit.most} at once: {len(keys) / seconds:,.0f}/s, {cpu:.2f} CPU s, "
        f"load {os.getloadavg()[0]:.0f}; limits on the way: {course}"
    )


if __name__ == "__main__":
    main()
