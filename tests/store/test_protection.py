"""Whether a thief of the credentials could destroy the store: on a real store, and against made-up answers."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.peers.ceph import CephRGW
from tests.peers.s3_server import S3Server, on_each_s3_server
from untrusted_s3.errors import (
    AccessDenied,
    BucketUnprotected,
    DeletionDenied,
    NoSuchKey,
    OperationUnsupported,
    StoreError,
    StoreRefused,
    StoreUnreachable,
)
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.deletions import Deletions
from untrusted_s3.store.layout import PROBES, StoreLocation
from untrusted_s3.store.probe import probe_conditional_writes, probe_rights
from untrusted_s3.store.protection import Protection, ProtectionProbe
from untrusted_s3.store.s3 import S3Bucket

PREFIX = "our/prefix/"
ON, OFF, SUSPENDED = {"Status": "Enabled"}, dict[str, str](), {"Status": "Suspended"}
NO_LOCK = NoSuchKey("no object lock")


def locked(mode: str = "", **time: int) -> dict[str, Any]:
    rule = {"Rule": {"DefaultRetention": {"Mode": mode, **time}}} if mode else {}
    return {"ObjectLockConfiguration": {"ObjectLockEnabled": "Enabled", **rule}}


class AnsweringBucket:
    """The part of S3Bucket that is asked for settings. `may` says which deletions it lets through."""

    def __init__(
        self,
        versioning: Any = OFF,
        lock: Any = NO_LOCK,
        may: str = "delete versions",
        rules: Any = (),
        version: str = "v1",
    ) -> None:
        self.location = StoreLocation("bucket", PREFIX)
        self.deletions = Deletions()
        self.operations: list[str] = []
        self._answers: dict[str, Any] = {
            "get_bucket_versioning": versioning,
            "get_object_lock_configuration": lock,
            "get_bucket_lifecycle_configuration": rules if isinstance(rules, StoreError) else {"Rules": list(rules)},
            "put_object": {"VersionId": version} if version and versioning == ON else {},
        }
        self._may = may

    async def call(self, operation: str, **parameters: Any) -> Any:
        self.operations.append(operation)
        if operation == "delete_object":
            assert parameters["Key"].startswith(PREFIX + PROBES) and parameters["VersionId"] == "v1"
            if "versions" not in self._may:
                raise AccessDenied("denied")
            return {}
        if operation == "put_object":
            assert parameters["Key"].startswith(PREFIX + PROBES)
        answer = self._answers[operation]
        if isinstance(answer, StoreError):
            raise answer
        return answer

    async def delete(self, key: str) -> None:
        assert key.startswith(PROBES)
        self.operations.append("delete")
        with self.deletions.of_object(key):
            if "delete" not in self._may:
                raise AccessDenied("denied")


async def found_in(bucket: Any) -> tuple[Protection, str]:
    probe = ProtectionProbe()
    try:
        text = await probe.run(bucket)
    except BucketUnprotected as error:
        assert not probe.found.protected
        text = str(error)
    else:
        assert probe.found.protected
    assert json.loads(json.dumps(probe.found.to_json()))["protected"] is probe.found.protected
    return probe.found, text


async def test_versions_that_the_credentials_may_not_delete_protect() -> None:
    found, text = await found_in(AnsweringBucket(ON, may="delete"))
    assert found.protected is True and found.may_delete is True and found.may_delete_versions is False
    assert text.startswith("what they overwrite or delete stays as an earlier version, without an end")
    assert "settings of the bucket was not tried" in text
    found, text = await found_in(AnsweringBucket(ON, may=""))
    assert found.protected is True and found.may_delete is False
    assert text.startswith("what they overwrite stays")


async def test_how_long_versions_stay() -> None:
    rule = {"Status": "Enabled", "Filter": {"Prefix": ""}, "NoncurrentVersionExpiration": {"NoncurrentDays": 30}}
    other = {**rule, "Filter": {"Prefix": "elsewhere/"}, "NoncurrentVersionExpiration": {"NoncurrentDays": 3}}
    disabled = {**other, "Status": "Disabled", "Filter": {}}
    below = {**rule, "Filter": {"Prefix": PREFIX + "folders/"}, "NoncurrentVersionExpiration": {"NoncurrentDays": 20}}
    for rules, days in (([rule, other, disabled], 30), ([rule, below], 20), ([other], 0)):
        found, text = await found_in(AnsweringBucket(ON, may="delete", rules=rules))
        assert found.versions_days == days and (f"for {days} days" if days else "without an end") in text
    found, text = await found_in(AnsweringBucket(ON, may="delete", rules=AccessDenied("denied")))
    assert found.protected and found.versions_days is None and "does not tell: lifecycle (denied)" in text


@pytest.mark.parametrize("versioning", [OFF, SUSPENDED])
@pytest.mark.parametrize("may", ["", "delete", "delete versions"])
async def test_without_versions_nothing_protects(versioning: dict[str, str], may: str) -> None:
    """What may write may overwrite, so denying deletions is not enough."""
    bucket = AnsweringBucket(versioning, may=may)
    found, text = await found_in(bucket)
    assert found.protected is False and found.may_delete is bool(may)
    assert "could destroy the store" in text
    assert f"versioning is {'suspended' if versioning else 'off'}" in text
    assert "delete_object" not in bucket.operations, "there is no version"


async def test_versions_that_the_credentials_may_delete_protect_nothing() -> None:
    bucket = AnsweringBucket(ON)
    found, text = await found_in(bucket)
    assert found.protected is False and "may delete earlier versions" in text
    assert "delete" not in bucket.operations, "nothing of the probe is left"


async def test_a_lock_protects_for_its_time_only() -> None:
    found, text = await found_in(AnsweringBucket(ON, locked("COMPLIANCE", Years=1), may="delete"))
    assert found.protected is None, "the lock hides whether older versions may be deleted"
    assert (found.retention_mode, found.retention_days) == ("COMPLIANCE", 365)
    assert "locked for 365 days" in text and "after their lock" in text
    found, text = await found_in(AnsweringBucket(ON, locked("GOVERNANCE", Days=7)))
    assert found.protected is False and found.retention_days == 7, "the credentials may bypass it"
    found, _ = await found_in(AnsweringBucket(ON, locked(), may="delete"))
    assert found.protected is True and (found.object_lock, found.retention_days) == (True, 0)


@pytest.mark.parametrize("error", [OperationUnsupported("not implemented"), AccessDenied("denied")])
async def test_a_store_that_does_not_say_it(error: StoreRefused) -> None:
    found, text = await found_in(AnsweringBucket(error, error, rules=error))
    assert (found.protected, found.versioning, found.object_lock) == (None, None, None)
    assert "it is not known" in text and f"versioning ({error}), object lock ({error})" in text
    found, text = await found_in(AnsweringBucket(ON, version=""))
    assert found.protected is None and "names none of what it has written" in text


async def test_a_store_that_does_not_answer_is_no_finding() -> None:
    with pytest.raises(StoreUnreachable):
        await ProtectionProbe().run(AnsweringBucket(StoreUnreachable("away")))  # type: ignore[arg-type]


# On a real store


@pytest.fixture
async def own_bucket(s3_server: S3Server) -> AsyncIterator[S3Bucket]:
    """A bucket of its own, with versions."""
    opened = await S3Bucket.open(
        StoreLocation(f"test-{uuid.uuid4().hex}", ""),
        s3_server.endpoint_url,
        S3Credentials(s3_server.access_key, s3_server.secret_key),
        create_bucket=True,
    )
    yield opened
    await opened.close()


@pytest.mark.store
@on_each_s3_server
async def test_a_real_store(own_bucket: S3Bucket) -> None:
    found, _ = await found_in(own_bucket)
    assert (found.versioning, found.object_lock, found.may_delete, found.unknown) == ("off", False, True, [])
    await own_bucket.call("put_bucket_versioning", VersioningConfiguration=ON)
    found, _ = await found_in(own_bucket)
    assert (found.versioning, found.may_delete_versions) == ("enabled", True)
    assert [item.key async for item in own_bucket.list("")] == []
    for actions, may_delete in ((["s3:DeleteObjectVersion"], True), (["s3:DeleteObject"], False)):
        statement = {
            "Effect": "Deny",
            "Principal": "*",
            "Action": ["s3:DeleteObjectVersion", *actions],
            "Resource": f"arn:aws:s3:::{own_bucket.location.bucket}/*",
        }
        policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        await own_bucket.call("put_bucket_policy", Policy=policy)
        found, text = await found_in(own_bucket)
        assert (found.protected, found.may_delete) == (True, may_delete), text
    with pytest.raises(DeletionDenied):
        await own_bucket.delete("any")
    await own_bucket.call("delete_bucket_policy")


@pytest.mark.store
@on_each_s3_server
async def test_a_real_store_with_a_default_retention(s3_server: S3Server) -> None:
    credentials = S3Credentials(s3_server.access_key, s3_server.secret_key)
    location = StoreLocation(f"test-{uuid.uuid4().hex}", "")
    bucket = S3Bucket(location, connect(s3_server.endpoint_url, credentials))
    await bucket.call("create_bucket", ObjectLockEnabledForBucket=True)
    lock = locked("GOVERNANCE", Days=1)["ObjectLockConfiguration"]
    await bucket.call("put_object_lock_configuration", ObjectLockConfiguration=lock)
    found, text = await found_in(bucket)
    assert (found.versioning, found.object_lock, found.may_delete) == ("enabled", True, True)
    assert (found.retention_mode, found.retention_days) == ("GOVERNANCE", 1)
    assert found.may_delete_versions is True, text
    assert await probe_rights(bucket) == "write, read, list, delete"
    if not isinstance(s3_server, CephRGW):  # with versioning, 20.2 sometimes takes several writers for the first
        assert await probe_conditional_writes(bucket)
    assert [item.key async for item in bucket.list("")] == []
    await bucket.close()
