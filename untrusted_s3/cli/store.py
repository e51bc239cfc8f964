"""The store that a command works on: the one that --store names, or the embedded one."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

from untrusted_s3.cli.options import StoreOptions
from untrusted_s3.errors import EmbeddedStoreAbsent
from untrusted_s3.store import layout, records
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.embedded.disk_sync import DiskSync, EmbeddedBucket
from untrusted_s3.store.embedded.files import has_store
from untrusted_s3.store.embedded.server import EmbeddedStore
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket


@asynccontextmanager
async def open_bucket(
    options: StoreOptions, *, own_server: bool = False, single_writer: bool = False
) -> AsyncIterator[S3Bucket]:
    """Open the bucket for as long as the context lasts.

    Starts the embedded store unless it runs; one that does not exist is an error. With `own_server`, it is made, and
    one that runs already is an error, because it would end with the gateway that started it. With `single_writer`, no
    request is conditional.

    Raises UsageError, StoreRefused or StoreUnreachable.
    """
    with ExitStack() as stack:
        location = options.location
        settings = dataclasses.replace(options.settings.store, conditional_writes=not single_writer)
        bucket: S3Bucket
        if location is None:
            if not own_server and not has_store(options.embedded_directory):
                raise EmbeddedStoreAbsent(f"there is no store in {options.embedded_directory}")
            start = EmbeddedStore.start if own_server else EmbeddedStore.attach_or_start
            server = stack.enter_context(start(options.embedded_directory, options.settings.embedded))
            credentials = S3Credentials(server.access_key, server.secret_key)
            location = StoreLocation(server.bucket, "")
            bucket = await EmbeddedBucket.open(location, server.endpoint_url, credentials, settings=settings)
            bucket.disk, bucket.server = DiskSync(server.directory), server
        else:
            bucket = await S3Bucket.open(
                location, options.endpoint_url, create_bucket=options.create_bucket, settings=settings
            )
        try:
            yield bucket
        finally:
            await bucket.close()


@asynccontextmanager
async def open_store(options: StoreOptions, *, single_writer: bool = False) -> AsyncIterator[S3Bucket]:
    """Like `open_bucket`, for a command that reads records. Raises DataError if the bucket is of another program."""
    async with open_bucket(options, single_writer=single_writer) as bucket:
        await records.read_record(bucket, layout.STORE, records.StoreRecord.from_json)
        yield bucket
