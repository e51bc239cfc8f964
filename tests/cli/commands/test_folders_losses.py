"""`folders losses`: what the log of a folder has lost, until the operator has taken note."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import DEVICE, python_m
from tests.loops import one_loop
from tests.peers.s3_server import S3Server
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.losses import Forgotten, LossNotes, LostSegments
from untrusted_s3.store.records import FolderRecord, write_record
from untrusted_s3.store.s3 import S3Bucket

KEYS = FolderKeys.of("photos")


@pytest.mark.store
@one_loop  # the commands are child processes
async def test_losses_are_listed_and_cleared(
    store_arguments: list[str], s3_server: S3Server, bucket_prefix: str
) -> None:
    bucket = await S3Bucket.open(StoreLocation(s3_server.bucket, f"{bucket_prefix}/"), s3_server.endpoint_url)
    await write_record(bucket, KEYS.record, FolderRecord("photos", "Fotos", b"token").to_json())
    outcome = python_m("folders", "losses", "photos", *store_arguments)
    assert (outcome.returncode, outcome.stdout) == (0, "FOUND  LOST\n")
    outcome = python_m("folders", "losses", "other", *store_arguments)
    assert (outcome.returncode, "no folder 'other'" in outcome.stderr) == (2, True)

    kept, damaged, foreign = KEYS.damaged_segment(2, b"x"), KEYS.loss(9, "a" * 32), KEYS.losses + "notes.txt"
    notes = LossNotes(bucket, KEYS, DEVICE)
    await notes.write(3, 5, segments=[LostSegments(2, 3, 1, 4)], damaged=[kept])
    await notes.write(7, 5, forgotten=Forgotten(5, 12, 6))
    for key in (kept, foreign):
        await bucket.put(key, [b"something else"])
    outcome = python_m("folders", "losses", "photos", *store_arguments)
    assert (outcome.returncode, "notes.txt: it is not a key of this program" in outcome.stderr) == (1, True)
    assert [text in outcome.stdout for text in ("segments 2 to 3 with 4", kept, f"6 entries that the gateway {DEVICE}")]
    await bucket.delete(foreign)
    outcome = python_m("folders", "losses", "photos", "--json", *store_arguments)
    first, second = json.loads(outcome.stdout)
    assert outcome.returncode == 0
    assert first["key"].startswith(f"{bucket_prefix}/{KEYS.losses}") and first["segments"][0]["entries"] == 4
    assert (second["position"], second["forgotten"]["entries"], second["writer"]) == (8, 6, str(DEVICE))

    for key in (damaged, foreign):
        await bucket.put(key, [b"something else"])
    outcome = python_m("folders", "losses", "photos", "--clear", *store_arguments)
    assert (outcome.returncode, "noted: 3 records deleted" in outcome.stderr) == (1, True)
    assert "segments 2 to 3" in outcome.stdout and damaged not in outcome.stderr and foreign in outcome.stderr
    left = {item.key async for item in bucket.list(KEYS.base)}
    assert left == {KEYS.record, kept, foreign}
    await bucket.close()
