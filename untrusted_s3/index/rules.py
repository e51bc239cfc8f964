"""The times on which the rules of the log rest (index/log.py)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from untrusted_s3.store import format


@dataclass(frozen=True, slots=True)
class LogRules:
    """Times in seconds. All gateways on a bucket must use the same ones.

    Attributes:
        append_lifetime: How old a look at the log and a signature may be when a segment is written.
        retention: How long segments stay after a checkpoint covers them.
        trim_lifetime: How long one trim may go on deleting.
    """

    append_lifetime: int = format.APPEND_LIFETIME
    retention: float = format.SEGMENT_RETENTION
    trim_lifetime: float = format.TRIM_LIFETIME


LOG_RULES: Final = LogRules()
