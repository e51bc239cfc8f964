"""The bucket's lifecycle rule that aborts unfinished multipart uploads.

They cost money, and no listing of objects shows them. A gateway aborts those on which nobody works any more; the rule
does it where no gateway runs any longer. A rule of S3 counts from the beginning of an upload, whether it is in use or
not, so it has to leave time for the largest file on a slow line: in a year, 10 Mbit/s carry more than an object can
hold.
"""

from __future__ import annotations

import json
from typing import Any

from untrusted_s3.errors import LifecycleRuleMissing, NoSuchKey, StoreRefused
from untrusted_s3.store.s3 import S3Bucket

Rule = dict[str, Any]

_ID = "untrusted-s3-unfinished-uploads"
_MAX_ID_LENGTH = 255
# MAX_FILE_SIZE at 10 Mbit/s takes 358 days.
_DAYS = 365


async def probe_lifecycle(bucket: S3Bucket) -> str:
    """Check that a rule of the bucket aborts unfinished uploads below our prefix, but none that may be in use.

    Return the finding. Raises LifecycleRuleMissing, whose message has a rule that would do it.
    """
    days = _shortest(await _rules(bucket), bucket.location.prefix)
    if days is not None and days >= _DAYS:
        return _found(days)
    rule = json.dumps({"Rules": [_our_rule(bucket)]})
    if days is None:
        raise LifecycleRuleMissing(f"no rule of the bucket ends unfinished uploads; this one does: {rule}")
    raise LifecycleRuleMissing(
        f"a rule of the bucket ends uploads after {days} days, also those that are in use: a file that takes longer"
        f" never gets there. This rule leaves time: {rule}"
    )


async def set_lifecycle(bucket: S3Bucket) -> str:
    """Add such a rule to those of the bucket, unless one of them does it already. Return what was done.

    A rule that an earlier program has added, and that ends uploads too soon, is replaced. Raises LifecycleRuleMissing
    if another rule does that, and StoreError.
    """
    found, rule = await _rules(bucket), _our_rule(bucket)
    rules = [other for other in found if other.get("ID") != rule["ID"]]
    days = _shortest(rules, bucket.location.prefix)
    if days is not None and days < _DAYS:
        raise LifecycleRuleMissing(
            f"a rule that is not ours ends uploads after {days} days, also those that are in use: change it to {_DAYS}"
            " or more"
        )
    days = _shortest(found, bucket.location.prefix)
    if days is not None and days >= _DAYS:
        return f"{_found(days)}, by a rule that was there"
    rules.append(rule)
    await bucket.call("put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": rules})
    days = _shortest(await _rules(bucket), bucket.location.prefix)
    if days is None:
        raise StoreRefused("the store has taken the rule that ends unfinished uploads, and does not show it")
    return f"{_found(days)}, by a rule that was added to {len(rules) - 1} others"


async def noncurrent_days(bucket: S3Bucket) -> int:
    """Return for how many days the bucket's rules keep earlier versions below our prefix; 0 without an end.

    Raises StoreRefused.
    """
    prefix, days = bucket.location.prefix, []
    for rule in await _rules(bucket):
        after = rule.get("NoncurrentVersionExpiration", {}).get("NoncurrentDays")
        conditions = dict(rule.get("Filter", {}))
        covered = conditions.pop("Prefix", rule.get("Prefix", ""))
        # One with more conditions, or below our prefix, may end some of our versions.
        touches = prefix.startswith(covered) or covered.startswith(prefix)
        if rule.get("Status") == "Enabled" and after is not None and touches:
            days.append(int(after))
    return min(days, default=0)


def _found(days: int) -> str:
    return f"unfinished uploads end after {days} days"


def _our_rule(bucket: S3Bucket) -> Rule:
    prefix = bucket.location.prefix
    return {
        "ID": f"{_ID} {prefix}".strip()[:_MAX_ID_LENGTH],
        "Status": "Enabled",
        "Filter": {"Prefix": prefix},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": _DAYS},
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
