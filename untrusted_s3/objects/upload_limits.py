"""How many objects and parts of objects are sent at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from untrusted_s3.settings import ObjectSettings
from untrusted_s3.store.adaptive_limit import AdaptiveLimit


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """The limits that all folders share.

    Attributes:
        objects: Objects that are sent whole.
        parts: Parts of larger ones.
    """

    objects: AdaptiveLimit
    parts: AdaptiveLimit

    @classmethod
    def of(cls, settings: ObjectSettings) -> Self:
        """Make limits with the bounds of the settings."""
        return cls(
            AdaptiveLimit(settings.concurrent_uploads, settings.most_uploads, "uploads"),
            AdaptiveLimit(settings.concurrent_part_uploads, settings.most_part_uploads, "part uploads"),
        )
