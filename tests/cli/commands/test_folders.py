"""`folders`: folders are listed and removed."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import DEVICE, python_m
from tests.loops import one_loop
from tests.peers.s3_server import S3Server
from untrusted_s3.store import layout, records
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.s3 import S3Bucket


@pytest.mark.store
@one_loop  # the commands are child processes
async def test_folders(store_arguments: list[str], s3_server: S3Server, bucket_prefix: str) -> None:
    assert json.loads(python_m("folders", "list", "--json", *store_arguments).stdout) == []
    bucket = await S3Bucket.open(StoreLocation(s3_server.bucket, f"{bucket_prefix}/"), s3_server.endpoint_url)
    for folder_id, label in (("photos", "Fotos"), ("my folder", "")):
        record = records.FolderRecord(folder_id, label, b"token")
        await records.write_record(bucket, FolderKeys.of(folder_id).record, record.to_json())
    await bucket.close()
    found = json.loads(python_m("folders", "list", "--json", *store_arguments).stdout)
    assert found == [
        {"id": "my folder", "label": "", "prefix": f"{bucket_prefix}/{FolderKeys.of('my folder').base}", "quota": None},
        {"id": "photos", "label": "Fotos", "prefix": f"{bucket_prefix}/folders/photos/", "quota": None},
    ]
    for size, shown in (("1.5KiB", 1536), ("0", 0), ("none", None)):
        outcome = python_m("folders", "set", "photos", "--quota", size, *store_arguments)
        assert (outcome.returncode, outcome.stdout) == (0, "")
        listed = json.loads(python_m("folders", "list", "--json", *store_arguments).stdout)
        assert [one["quota"] for one in listed] == [None, shown]
    for arguments, why in (
        (("other", "--quota", "1GiB"), "no folder 'other'"),
        (("photos", "--quota", "much"), "100GiB"),
    ):
        outcome = python_m("folders", "set", *arguments, *store_arguments)
        assert (outcome.returncode, why in outcome.stderr) == (2, True), outcome.stderr
    bucket = await S3Bucket.open(StoreLocation(s3_server.bucket, f"{bucket_prefix}/"), s3_server.endpoint_url)
    await bucket.put(layout.QUOTAS, [b"{"])
    await bucket.close()
    listing = python_m("folders", "list", *store_arguments)
    assert "Fotos" in listing.stdout and "quotas.json" in listing.stderr
    assert "replaced" in python_m("folders", "set", "photos", "--quota", "none", *store_arguments).stderr
    assert "Fotos" in python_m("folders", "list", *store_arguments).stdout


@pytest.mark.store
@one_loop  # the commands are child processes
async def test_the_removal_of_a_folder(store_arguments: list[str], s3_server: S3Server, bucket_prefix: str) -> None:
    bucket = await S3Bucket.open(StoreLocation(s3_server.bucket, f"{bucket_prefix}/"), s3_server.endpoint_url)
    for folder_id in ("photos", "photos2"):
        keys = FolderKeys.of(folder_id)
        await records.write_record(bucket, keys.record, records.FolderRecord(folder_id, "", b"token").to_json())
        for key in (keys.segment(1), keys.checkpoint(1), *(keys.object("a" * 32, f"{n:032x}") for n in range(100))):
            await bucket.put(key, [b"data"])
    await bucket.create_multipart_upload(FolderKeys.of("photos").object("b" * 32, "c" * 32))
    node = records.NodeRecord(DEVICE, "gateway", 0, "0")
    await records.write_record(bucket, layout.node_key(DEVICE), node.to_json())
    before = {item.key async for item in bucket.list("")}

    for arguments, why in (
        (["photos"], "add --yes"),
        (["photos", "--yes"], "stop all gateways"),
    ):
        outcome = python_m("folders", "remove", *arguments, *store_arguments)
        assert (outcome.returncode, why in outcome.stderr) == (2, True), outcome.stderr
    await bucket.delete(layout.node_key(DEVICE))
    outcome = python_m("folders", "remove", "other", "--yes", *store_arguments)
    assert (outcome.returncode, "no folder 'other'" in outcome.stderr) == (2, True)
    assert {item.key async for item in bucket.list("")} == before - {layout.node_key(DEVICE)}

    outcome = python_m("folders", "remove", "photos", "--yes", *store_arguments)
    assert (outcome.returncode, outcome.stderr) == (0, "removed photos: 103 objects deleted\n")
    left = {item.key async for item in bucket.list("")}
    assert left == {key for key in before if not key.startswith(("folders/photos/", "nodes/"))}
    assert [upload async for upload in bucket.list_multipart_uploads("")] == []
    await bucket.close()


@pytest.mark.store
@one_loop  # the commands are child processes
async def test_a_stray_object_and_a_damaged_record_do_not_hide_the_others(
    store_arguments: list[str], s3_server: S3Server, bucket_prefix: str
) -> None:
    location = StoreLocation(s3_server.bucket, f"{bucket_prefix}/")
    bucket = await S3Bucket.open(location, s3_server.endpoint_url)
    record = records.FolderRecord("photos", "Fotos", b"token")
    await records.write_record(bucket, FolderKeys.of("photos").record, record.to_json())
    await records.write_record(bucket, layout.peer_key(DEVICE), records.PeerRecord(DEVICE).to_json())
    bad = ["folders/damaged/folder.json", "peers/.DS_Store"]
    for key in bad:
        await bucket.put(key, [b"\0\0"])
    bucket.client.put_object(
        Bucket=location.bucket, Key=f"{location.prefix}folders/My Photos/readme.txt", Body=b"hello"
    )
    await bucket.close()

    folders = python_m("folders", "list", "--json", *store_arguments)
    assert (folders.returncode, [folder["id"] for folder in json.loads(folders.stdout)]) == (1, ["photos"])
    assert "folders/damaged/folder.json" in folders.stderr and "folders/My Photos/" in folders.stderr
    peers = python_m("peers", "list", "--json", *store_arguments)
    assert (peers.returncode, [peer["device_id"] for peer in json.loads(peers.stdout)]) == (1, [str(DEVICE)])
    assert "peers/.DS_Store" in peers.stderr
    report = python_m("doctor", "--json", *store_arguments)
    (check,) = [check for check in json.loads(report.stdout)["checks"] if check["name"] == "records"]
    assert check["result"] == "FAIL" and all(key in check["message"] for key in bad)
