"""`gc`, on a real store."""

from __future__ import annotations

import functools
import json

import pytest

from tests.cli.commands.conftest import in_store
from tests.cli.conftest import RunCLI
from tests.loops import RunAsync
from tests.peers.s3_server import S3Server, on_each_s3_server
from untrusted_s3.cli.commands import gc as command
from untrusted_s3.objects.uploads import abort_old_uploads
from untrusted_s3.store import probe
from untrusted_s3.store.garbage import GarbageRules
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.records import FolderRecord, write_record
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.upkeep.garbage import GarbageCollector

KEYS = FolderKeys.of("photos")


@on_each_s3_server
@pytest.mark.store
def test_garbage_is_found_and_deleted(
    run_cli: RunCLI,
    store_arguments: list[str],
    s3_server: S3Server,
    bucket_prefix: str,
    monkeypatch: pytest.MonkeyPatch,
    run_async: RunAsync,
) -> None:
    rules = GarbageRules(grace=0.0)
    monkeypatch.setattr(command, "GarbageCollector", functools.partial(GarbageCollector, rules=rules))
    location = StoreLocation(s3_server.bucket, f"{bucket_prefix}/")
    garbage = [KEYS.object(name, "a" * 32) for name in ("one", "two")]

    async def fill() -> None:
        bucket = await S3Bucket.open(location, s3_server.endpoint_url)
        await write_record(bucket, KEYS.record, FolderRecord("photos", "Fotos", b"token").to_json())
        for key in garbage:
            await bucket.put(key, [b"data"])
        await bucket.close()

    async def listed() -> set[str]:
        bucket = await S3Bucket.open(location, s3_server.endpoint_url)
        found = {item.key async for item in bucket.list(KEYS.objects)}
        await bucket.close()
        return found

    run_async(fill())
    outcome = run_cli("gc", *store_arguments)
    assert outcome.exit_code == 0
    assert "photos" in outcome.stdout and "2 objects (8 B) would be written down" in outcome.stderr
    outcome = run_cli("gc", "photos", "--delete", *store_arguments)
    assert "2 objects (8 B) written down" in outcome.stderr
    outcome = run_cli("gc", "--json", *store_arguments)
    (folder,) = json.loads(outcome.stdout)["folders"]
    assert (folder["folder"], folder["due"]["objects"], folder["objects"]["objects"]) == ("photos", 2, 2)
    assert run_async(listed()) == set(garbage)
    outcome = run_cli("gc", "--delete", *store_arguments)
    assert (outcome.exit_code, "2 objects (8 B) deleted" in outcome.stderr) == (0, True)
    assert run_async(listed()) == set()
    outcome = run_cli("gc", "other", *store_arguments)
    assert (outcome.exit_code, "no folder 'other'" in outcome.stderr) == (2, True)


@pytest.mark.store
def test_a_folder_with_a_damaged_log_is_named(
    run_cli: RunCLI, store_arguments: list[str], s3_server: S3Server, bucket_prefix: str, run_async: RunAsync
) -> None:
    async def fill() -> None:
        bucket = await S3Bucket.open(StoreLocation(s3_server.bucket, f"{bucket_prefix}/"), s3_server.endpoint_url)
        await write_record(bucket, KEYS.record, FolderRecord("photos", "Fotos", b"token").to_json())
        await bucket.put(KEYS.segment(1), [b"no segment"])
        await bucket.close()

    run_async(fill())
    outcome = run_cli("gc", *store_arguments)
    assert (outcome.exit_code, "photos: " in outcome.stderr) == (1, True)


@pytest.mark.store
def test_who_may_not_delete_is_told_so_and_changes_nothing(run_cli: RunCLI, undeletable: list[str]) -> None:
    async def fill(bucket: S3Bucket) -> None:
        await write_record(bucket, KEYS.record, FolderRecord("photos", "Fotos", b"token").to_json())
        await bucket.put(KEYS.object("one", "a" * 32), [b"data"])

    listed: list[str] = []

    async def look(bucket: S3Bucket) -> None:
        listed[:] = [item.key async for item in bucket.list("")]

    in_store(undeletable, fill)
    assert run_cli("gc", *undeletable).exit_code == 0, "to look at it needs no such right"
    outcome = run_cli("gc", "--delete", *undeletable)
    assert outcome.exit_code == 3 and outcome.stdout == ""
    assert "the credentials may not do that" in outcome.stderr and "s3:DeleteObject" in outcome.stderr
    in_store(undeletable, look)
    assert sorted(listed) == [KEYS.record, KEYS.object("one", "a" * 32)]


@pytest.mark.store
def test_who_may_delete_cleans_up_beside_gateways_that_may_not(
    run_cli: RunCLI, undeletable: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What gateways have left: probes, unfinished uploads and what no history needs."""
    rules = GarbageRules(grace=0.0)
    monkeypatch.setattr(command, "GarbageCollector", functools.partial(GarbageCollector, rules=rules))
    monkeypatch.setattr(command, "remove_old_probes", functools.partial(probe.remove_old_probes, lifetime=-1.0))
    monkeypatch.setattr(command, "abort_old_uploads", functools.partial(abort_old_uploads, retention=-1.0))
    left: list[str] = []

    async def leave(bucket: S3Bucket) -> None:
        await write_record(bucket, KEYS.record, FolderRecord("photos", "Fotos", b"token").to_json())
        await bucket.put(KEYS.object("one", "a" * 32), [b"data"])
        await bucket.create_multipart_upload(KEYS.object("two", "a" * 32))
        await probe.probe_conditional_writes(bucket)
        left[:] = [item.key async for item in bucket.list("probe/")]
        await bucket.call("delete_bucket_policy")  # from now on as the operator

    async def look(bucket: S3Bucket) -> None:
        left[:] = [item.key async for item in bucket.list("") if not item.key.startswith(KEYS.garbage)]
        left.extend([upload.key async for upload in bucket.list_multipart_uploads("")])

    in_store(undeletable, leave)
    assert len(left) == 2
    outcome = run_cli("gc", "--delete", *undeletable)
    assert (outcome.exit_code, "1 unfinished upload ended" in outcome.stderr) == (0, True)
    assert run_cli("gc", "--delete", *undeletable).exit_code == 0
    in_store(undeletable, look)
    assert left == [KEYS.record]
