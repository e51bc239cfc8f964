"""The lifecycle rule for unfinished uploads, on a real store and against made-up sets of rules."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests.peers.s3_server import on_each_s3_server
from tests.store.http_server import Answer, http_server
from untrusted_s3.errors import LifecycleRuleMissing, StoreError, StoreRefused
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.lifecycle import Rule, probe_lifecycle, set_lifecycle
from untrusted_s3.store.s3 import S3Bucket

PREFIX = "our/prefix/"
ABORT = {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 400}}


class RuledBucket:
    """The part of S3Bucket that keeps lifecycle rules."""

    def __init__(self, *rules: Rule, keeps: bool = True) -> None:
        self.location = StoreLocation("bucket", PREFIX)
        self.rules = list(rules)
        self.puts = 0
        self._keeps = keeps

    async def call(self, operation: str, **parameters: Any) -> Any:
        if operation == "put_bucket_lifecycle_configuration":
            self.puts += 1
            if self._keeps:
                self.rules = parameters["LifecycleConfiguration"]["Rules"]
            return {}
        assert operation == "get_bucket_lifecycle_configuration"
        return {"Rules": self.rules}


def ruled(*rules: Rule, keeps: bool = True) -> Any:
    return RuledBucket(*rules, keeps=keeps)


@pytest.mark.parametrize(
    "rule",
    [
        {"Status": "Enabled", "Filter": {"Prefix": ""}, **ABORT},
        {"Status": "Enabled", "Filter": {}, **ABORT},
        {"Status": "Enabled", "Filter": {"Prefix": "our/"}, **ABORT},
        {"Status": "Enabled", "Filter": {"Prefix": PREFIX}, **ABORT},
        {"Status": "Enabled", "Prefix": "our", **ABORT},  # the form before 2016
    ],
)
async def test_a_rule_that_does_it(rule: Rule) -> None:
    bucket = ruled(rule)
    assert await probe_lifecycle(bucket) == "unfinished uploads end after 400 days"
    assert "that was there" in await set_lifecycle(bucket)
    assert bucket.puts == 0


@pytest.mark.parametrize(
    "rule",
    [
        {"Status": "Disabled", "Filter": {"Prefix": ""}, **ABORT},
        {"Status": "Enabled", "Filter": {"Prefix": "other/"}, **ABORT},
        {"Status": "Enabled", "Filter": {"Prefix": PREFIX + "folders/"}, **ABORT},
        {"Status": "Enabled", "Filter": {"ObjectSizeGreaterThan": 5}, **ABORT},
        {"Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 9}},
    ],
)
async def test_a_rule_that_does_not(rule: Rule) -> None:
    bucket = ruled(rule)
    with pytest.raises(LifecycleRuleMissing):
        await probe_lifecycle(bucket)
    assert "365 days, by a rule that was added to 1 others" in await set_lifecycle(bucket)
    assert bucket.rules[0] == rule
    assert await probe_lifecycle(bucket) == "unfinished uploads end after 365 days"


async def test_our_own_rule_is_replaced_where_it_was_disabled() -> None:
    bucket = ruled()
    await set_lifecycle(bucket)
    bucket.rules[0]["Status"] = "Disabled"
    await set_lifecycle(bucket)
    assert [rule["Status"] for rule in bucket.rules] == ["Enabled"]


async def test_rules_that_end_uploads_in_use_are_named_and_only_our_own_is_replaced() -> None:
    bucket = ruled()
    await set_lifecycle(bucket)
    bucket.rules[0]["AbortIncompleteMultipartUpload"] = {"DaysAfterInitiation": 7}
    with pytest.raises(LifecycleRuleMissing, match="also those that are in use"):
        await probe_lifecycle(bucket)
    await set_lifecycle(bucket)
    assert await probe_lifecycle(bucket) == "unfinished uploads end after 365 days"
    assert len(bucket.rules) == 1
    foreign = {"Status": "Enabled", "Filter": {}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}
    bucket.rules.append(foreign)
    with pytest.raises(LifecycleRuleMissing, match="not ours"):
        await set_lifecycle(bucket)
    assert foreign in bucket.rules


async def test_a_store_that_forgets_the_rule() -> None:
    with pytest.raises(StoreRefused, match="does not show it"):
        await set_lifecycle(ruled(keeps=False))


async def test_a_store_without_lifecycle_rules() -> None:
    with http_server(lambda request: Answer(501, b"<Error><Code>NotImplemented</Code></Error>")) as url:
        bucket = S3Bucket(StoreLocation("bucket", ""), connect(url, S3Credentials("a", "s")))
        try:
            with pytest.raises(StoreError, match="does not implement"):
                await probe_lifecycle(bucket)
        finally:
            await bucket.close()


@pytest.mark.store
@on_each_s3_server
async def test_on_a_real_store_all_other_rules_stay(bucket: S3Bucket) -> None:
    name = bucket.location.bucket
    other: Any = {"ID": "other", "Status": "Enabled", "Filter": {"Prefix": "elsewhere/"}, "Expiration": {"Days": 5}}
    try:
        with pytest.raises(LifecycleRuleMissing) as missing:
            await probe_lifecycle(bucket)
        offered = json.loads(re.findall(r"\{.*\}", str(missing.value))[0])
        bucket.client.put_bucket_lifecycle_configuration(
            Bucket=name, LifecycleConfiguration={"Rules": [other, *offered["Rules"]]}
        )
        assert await probe_lifecycle(bucket) == "unfinished uploads end after 365 days"

        bucket.client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [other]})
        assert "by a rule that was added to 1 others" in await set_lifecycle(bucket)
        rules = bucket.client.get_bucket_lifecycle_configuration(Bucket=name)["Rules"]
        assert [rule.get("Expiration", {}).get("Days") for rule in rules if rule["ID"] == "other"] == [5]
        assert await probe_lifecycle(bucket) == "unfinished uploads end after 365 days"
    finally:
        bucket.client.delete_bucket_lifecycle(Bucket=name)
