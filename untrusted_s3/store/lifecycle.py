"""The bucket's lifecycle rule that ends unfinished multipart uploads: they cost money, and no listing of objects shows
them. A gateway ends its own old ones; the rule does it where no gateway runs any more."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from untrusted_s3 import limits
from untrusted_s3.errors import StoreRefused
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.store.s3_errors import translate

Rule = dict[str, Any]

_ID = "untrusted-s3-unfinished-uploads"
_DAY = 86_400


async def probe_lifecycle(bucket: S3Bucket) -> str:
    """The bucket has a rule that ends unfinished uploads below our prefix. Raises StoreRefused with one that would."""
    days = _shortest(await _rules(bucket), bucket.location.prefix)
    if days is None:
        rule = json.dumps({"Rules": [_our_rule(bucket)]})
        raise StoreRefused(
            f"no rule of the bucket ends unfinished uploads; set one with doctor --set-lifecycle, or this one: {rule}"
        )
    return _found(days)


async def set_lifecycle(bucket: S3Bucket) -> str:
    """Adds such a rule to those that the bucket has, unless one of them does it already. Raises StoreError."""
    rules, rule = await _rules(bucket), _our_rule(bucket)
    days = _shortest(rules, bucket.location.prefix)
    if days is not None:
        return f"{_found(days)}, by a rule that was there"
    rules = [other for other in rules if other.get("ID") != rule["ID"]] + [rule]
    await _put(bucket, rules)
    days = _shortest(await _rules(bucket), bucket.location.prefix)
    if days is None:
        raise StoreRefused("the store has taken the rule that ends unfinished uploads, and does not show it")
    return f"{_found(days)}, by a rule that was added to {len(rules) - 1} others"


def _found(days: int) -> str:
    return f"unfinished uploads end after {days} days"


def _our_rule(bucket: S3Bucket) -> Rule:
    prefix = bucket.location.prefix
    return {
        "ID": f"{_ID} {prefix}".strip()[:255],
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": int(limits.UPLOAD_RETENTION // _DAY)},
    }


def _shortest(rules: list[Rule], prefix: str) -> int | None:
    """After how many days rules end all unfinished uploads below a prefix; None where they do not."""
    days = []
    for rule in rules:
        conditions = dict(rule.get("Filter", {}))
        covered = conditions.pop("Prefix", rule.get("Prefix", ""))
        after = rule.get("AbortIncompleteMultipartUpload", {}).get("DaysAfterInitiation")
        if rule.get("Status") == "Enabled" and after is not None and not conditions and prefix.startswith(covered):
            days.append(int(after))
    return min(days, default=None)


async def _rules(bucket: S3Bucket) -> list[Rule]:
    try:
        answer = await asyncio.to_thread(
            bucket.client.get_bucket_lifecycle_configuration, Bucket=bucket.location.bucket
        )
    except (BotoCoreError, ClientError) as error:
        if isinstance(error, ClientError) and error.response["Error"]["Code"] == "NoSuchLifecycleConfiguration":
            return []
        raise translate(error, "get_bucket_lifecycle_configuration") from error
    return [dict(rule) for rule in answer.get("Rules", [])]


async def _put(bucket: S3Bucket, rules: list[Rule]) -> None:
    configuration: Any = {"Rules": rules}
    try:
        await asyncio.to_thread(
            bucket.client.put_bucket_lifecycle_configuration,
            Bucket=bucket.location.bucket,
            LifecycleConfiguration=configuration,
        )
    except (BotoCoreError, ClientError) as error:
        raise translate(error, "put_bucket_lifecycle_configuration") from error
