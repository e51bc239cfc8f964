"""`keep`, on a real store."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import RunCLI
from tests.loops import RunAsync
from tests.peers.s3_server import S3Server, on_each_s3_server
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.records import FolderRecord, StoreRecord, write_record
from untrusted_s3.store.s3 import S3Bucket


@on_each_s3_server
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
    assert (store["history_days"], photos["history_days"]) == (None, None)
    run_cli("keep", "--history", "60", *store_arguments)
    run_cli("keep", "--history", "7", "--folder", "photos", *store_arguments)
    outcome = run_cli("keep", *store_arguments)
    assert ["60 days" in line for line in outcome.stdout.splitlines()] == [False, True, False]
    outcome = run_cli("keep", "--json", *store_arguments)
    store, photos = json.loads(outcome.stdout)
    assert (store["history_days"], photos["history_days"], photos["own_history"]) == (60, 7, True)
    assert store["rules"]["daily"] == 7, "one does not change the other"
    outcome = run_cli("gc", "--delete", "--history", "30", *store_arguments)
    assert (outcome.exit_code, "the store keeps 7 days" in outcome.stderr) == (2, True)
    assert run_cli("gc", "--history", "30", *store_arguments).exit_code == 0, "what if"
    assert run_cli("gc", "--delete", *store_arguments).exit_code == 0
    for wrong in (["daily"], ["nothing", "--folder", "other"], ["--history", "0"]):
        assert run_cli("keep", *wrong, *store_arguments).exit_code == 2
