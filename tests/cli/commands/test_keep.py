"""`keep`, on a real store."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import RunCLI
from tests.loops import RunAsync
from tests.peers.s3_server import S3Server
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.records import FolderRecord, StoreRecord, write_record
from untrusted_s3.store.s3 import S3Bucket


@pytest.mark.store
def test_rules_are_shown_and_set(
    run_cli: RunCLI, store_arguments: list[str], s3_server: S3Server, bucket_prefix: str, run_async: RunAsync
) -> None:
    async def fill() -> None:
        bucket = await S3Bucket.open(StoreLocation(s3_server.bucket, f"{bucket_prefix}/"), s3_server.endpoint_url)
        await write_record(bucket, "store.json", StoreRecord("a" * 32).to_json())
        record = FolderRecord("photos", "Fotos", b"token").to_json()
        await write_record(bucket, FolderKeys.of("photos").record, record)
        await bucket.close()

    run_async(fill())
    outcome = run_cli("keep", *store_arguments)
    assert (outcome.exit_code, outcome.stdout.count("nothing")) == (0, 2)
    outcome = run_cli("keep", "daily", "7,", "weekly", "5", *store_arguments)
    assert outcome.stdout.count("daily 7, weekly 5") == 2
    run_cli("keep", "nothing", "--folder", "photos", *store_arguments)
    outcome = run_cli("keep", "--json", *store_arguments)
    store, photos = json.loads(outcome.stdout)
    assert (store["folder"], store["rules"]["daily"], store["rules"]["yearly"]) == (None, 7, 0)
    assert (photos["folder"], photos["rules_text"], photos["own_rules"], photos["states"]) == (
        "photos",
        "nothing",
        True,
        0,
    )
    for wrong in (["daily"], ["nothing", "--folder", "other"]):
        assert run_cli("keep", *wrong, *store_arguments).exit_code == 2
