"""The bucket's lifecycle rule that aborts unfinished multipart uploads.

They cost money, and no listing of objects shows them. A gateway aborts old ones itself; the rule does it where no
gateway runs any longer.
"""

from __future__ import annotations

import json
from typing import Any

from untrusted_s3.errors import LifecycleRuleMissing, NoSuchKey, StoreRefused
from untrusted_s3.store.format import UPLOAD_RETENTION
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import DAY

Rule = dict[str, Any]

_ID = "untrusted-s3-unfinished-uploads"
_MAX_ID_LENGTH = 255


async def probe_lifecycle(bucket: S3Bucket) -> str:
    """Check that a rule of the bucket aborts unfinished uploads below our prefix.

    Return the finding. Raises LifecycleRuleMissing, whose message has a rule that would do it.
    """
    days = _shortest(await _rules(bucket), bucket.location.prefix)
    if days is None:
        rule = json.dumps({"Rules": [_our_rule(bucket)]})
        raise LifecycleRuleMissing(f"no rule of the bucket ends unfinished uploads; this one does: {rule}")
    return _found(days)


async def set_lifecycle(bucket: S3Bucket) -> str:
    """Add such a rule to those of the bucket, unless one of them does it already. Return what was done.

    Raises StoreError.
    """
    rules, rule = await _rules(bucket), _our_rule(bucket)
    days = _shortest(rules, bucket.location.prefix)
    if days is not None:
        return f"{_found(days)}, by a rule that was there"
    rules = [other for other in rules if other.get("ID") != rule["ID"]] + [rule]
    await bucket.call("put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": rules})
    days = _shortest(await _rules(bucket), bucket.location.prefix)
    if days is None:
        raise StoreRefused("the store has taken the rule that ends unfinished uploads, and does not show it")
    return f"{_found(days)}, by a rule that was added to {len(rules) - 1} others"


def _found(days: int) -> str:
    return f"unfinished uploads end after {days} days"


def _our_rule(bucket: S3Bucket) -> Rule:
    prefix = bucket.location.prefix
    return {
        "ID": f"{_ID} {prefix}".strip()[:_MAX_ID_LENGTH],
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": int(UPLOAD_RETENTION // DAY)},
    }


def _shortest(rules: list[Rule], prefix: str) -> int | None:
    """Return after how many days rules abort all unfinished uploads below a prefix; None if they do not."""
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
        answer = await bucket.call("get_bucket_lifecycle_configuration")
    except NoSuchKey:  # NoSuchLifecycleConfiguration
        return []
    return [dict(rule) for rule in answer.get("Rules", [])]
