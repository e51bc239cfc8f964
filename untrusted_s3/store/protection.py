"""Whether a thief of a gateway's credentials could destroy what is in the bucket.

Denying deletions alone does not help: what may write may also overwrite. What helps is that the bucket keeps earlier
versions, and that the credentials may not delete these. The default retention of an object lock keeps a version for
some time after it was written, against everybody; older ones are not protected by it.

The bucket is asked for its settings, and an object of our own is written and deleted. What a thief may do to the
settings is not tried, because that would change them.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any, Final

from untrusted_s3.errors import AccessDenied, BucketUnprotected, NoSuchKey, StoreRefused
from untrusted_s3.store import layout
from untrusted_s3.store.checksums import content_md5
from untrusted_s3.store.deletions import where_allowed
from untrusted_s3.store.lifecycle import noncurrent_days
from untrusted_s3.store.s3 import S3Bucket

_BODY: Final = b"probe"
_DAYS_A_YEAR: Final = 365
_NO_VERSION: Final = "null"  # the version of what was written while versioning is not on
_GOVERNANCE: Final = "GOVERNANCE"


@dataclass(slots=True)
class Protection:
    """What was found out. None stands for what the store does not say.

    Attributes:
        versioning: "enabled", "suspended" or "off".
        versions_days: For how many days at least earlier versions are kept; 0 without an end.
        object_lock: Whether the bucket has an object lock.
        retention_mode: "GOVERNANCE" or "COMPLIANCE"; empty if versions are not locked by default.
        retention_days: For how many days after it was written a version is locked by default.
        may_delete: Whether the credentials may delete objects.
        may_delete_versions: Whether they may delete earlier versions.
        unknown: Why something is not known.
    """

    versioning: str | None = None
    versions_days: int | None = None
    object_lock: bool | None = None
    retention_mode: str = ""
    retention_days: int = 0
    may_delete: bool | None = None
    may_delete_versions: bool | None = None
    unknown: list[str] = field(default_factory=list)

    @property
    def protected(self) -> bool | None:
        """Whether all that is stored stays, also when somebody steals the credentials; None if it is not known."""
        if self.versioning in ("off", "suspended") or self.may_delete_versions:
            return False
        if self.versioning is None or self.may_delete_versions is None:
            return None
        return True

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "protected": self.protected,
            "versioning": self.versioning,
            "versions_days": self.versions_days,
            "object_lock": self.object_lock,
            "retention_mode": self.retention_mode or None,
            "retention_days": self.retention_days,
            "may_delete": self.may_delete,
            "may_delete_versions": self.may_delete_versions,
            "unknown": self.unknown,
        }


class ProtectionProbe:
    """Finds out how a bucket is protected.

    Attributes:
        found: What was found out.
    """

    def __init__(self) -> None:
        self.found = Protection()

    async def run(self, bucket: S3Bucket) -> str:
        """Return how what is stored is protected from a thief of the credentials.

        Raises BucketUnprotected if it is not, or if that cannot be found out, and StoreUnreachable.
        """
        self.found = found = Protection()
        await self._ask_versioning(bucket)
        await self._ask_lock(bucket)
        await self._try_deletions(bucket)
        if found.versioning == "enabled":
            await self._ask_lifecycle(bucket)
        text = self._text()
        if found.protected:
            return text
        raise BucketUnprotected(text)

    async def _ask_versioning(self, bucket: S3Bucket) -> None:
        try:
            answer = await bucket.call("get_bucket_versioning")
        except (StoreRefused, NoSuchKey) as error:
            self._unknown("versioning", error)
            return
        self.found.versioning = {"Enabled": "enabled", "Suspended": "suspended"}.get(answer.get("Status", ""), "off")

    async def _ask_lock(self, bucket: S3Bucket) -> None:
        try:
            answer = await bucket.call("get_object_lock_configuration")
        except NoSuchKey:  # ObjectLockConfigurationNotFoundError
            self.found.object_lock = False
            return
        except StoreRefused as error:
            self._unknown("object lock", error)
            return
        settings = answer.get("ObjectLockConfiguration") or {}
        self.found.object_lock = settings.get("ObjectLockEnabled") == "Enabled"
        retention = (settings.get("Rule") or {}).get("DefaultRetention") or {}
        days = int(retention.get("Days") or 0) + int(retention.get("Years") or 0) * _DAYS_A_YEAR
        if self.found.object_lock and days:
            self.found.retention_mode, self.found.retention_days = str(retention.get("Mode", "")), days

    async def _ask_lifecycle(self, bucket: S3Bucket) -> None:
        try:
            self.found.versions_days = await noncurrent_days(bucket)
        except StoreRefused as error:
            self._unknown("lifecycle", error)

    async def _try_deletions(self, bucket: S3Bucket) -> None:
        """Write an object of our own, and see which deletions the store denies."""
        key = f"{layout.PROBES}{secrets.token_hex(16)}"
        # Where versions are locked by default, Amazon S3 takes no write without a checksum.
        checksum = content_md5([_BODY])
        answer = await bucket.call(
            "put_object", Key=bucket.location.prefix + key, Body=_BODY, ContentMD5=checksum, ContentLength=len(_BODY)
        )
        if self.found.versioning == "enabled":
            await self._try_version(bucket, key, answer.get("VersionId") or _NO_VERSION)
        if not self.found.may_delete_versions:
            with where_allowed():
                await bucket.delete(key)
        self.found.may_delete = bucket.deletions.objects

    async def _try_version(self, bucket: S3Bucket, key: str, version: str) -> None:
        found = self.found
        if version == _NO_VERSION:
            found.unknown.append("whether versions may be deleted (it names none of what it has written)")
            return
        bypass = {"BypassGovernanceRetention": True} if found.retention_mode == _GOVERNANCE else {}
        try:
            await bucket.call("delete_object", Key=bucket.location.prefix + key, VersionId=version, **bypass)
            found.may_delete_versions = True
        except AccessDenied:
            # The lock denies it to those as well who may delete other versions.
            if found.retention_days:
                found.unknown.append("whether versions may be deleted after their lock")
            else:
                found.may_delete_versions = False
        except (StoreRefused, NoSuchKey) as error:
            self._unknown("whether versions may be deleted", error)

    def _unknown(self, what: str, error: Exception) -> None:
        self.found.unknown.append(f"{what} ({error})")

    def _text(self) -> str:
        found = self.found
        if found.protected:
            parts = [f"{self._what_is_lost()} stays as an earlier version{self._how_long()}"]
        elif found.protected is None:
            parts = ["it is not known whether a thief of these credentials could destroy the store"]
        elif found.may_delete_versions:
            parts = ["a thief of these credentials could destroy the store: they may delete earlier versions"]
        else:
            lost = self._what_is_lost()
            parts = [
                f"a thief of these credentials could destroy the store: versioning is {found.versioning}, so"
                f" {lost} is gone"
            ]
        if found.retention_days:
            parts.append(
                f"each version is locked for {found.retention_days} days after it was written ({found.retention_mode})"
            )
        if found.unknown:
            parts.append("the store does not tell: " + ", ".join(found.unknown))
        if found.protected:
            parts.append("whether they may change the settings of the bucket was not tried")
        return "; ".join(parts)

    def _what_is_lost(self) -> str:
        return "what they overwrite" + (" or delete" if self.found.may_delete is not False else "")

    def _how_long(self) -> str:
        days = self.found.versions_days
        if days is None:
            return ""
        return f" for {days} days" if days else ", without an end"
