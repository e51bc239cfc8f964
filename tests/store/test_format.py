"""The constants of format version 2: none may change without a new version."""

from __future__ import annotations

from untrusted_s3.store import format as bucket_format
from untrusted_s3.store.format import PartGrid


def test_constants_of_version_2() -> None:
    constants = {name: value for name, value in vars(bucket_format).items() if name.isupper() and name not in UNITS}
    assert constants == {
        "FORMAT": "untrusted_s3",
        "VERSION": 2,
        "READ_VERSIONS": (1, 2),
        "MAX_OBJECT_KEYS": 8,
        "MAX_POSITION": 2**62,
        "FAR_POSITION": 2**61,
        "MAX_CHECKPOINT_POSITION": 3 * 2**60,
        "MAX_FAR_GAP": 2**24,
        "PART_GRID": PartGrid(single_put_size=8 * 1024 * 1024, min_part_size=8 * 1024 * 1024, max_parts=9000),
        "MAX_FILE_SIZE": 9000 * 4 * 1024 * 1024 * 1024,
        "APPEND_LIFETIME": 900,
        "SEGMENT_RETENTION": 86_400,
        "FILE_UPLOAD_LIFETIME": 21_600,
        "TRIM_LIFETIME": 3600,
        "HEARTBEAT_LIFETIME": 180,
        "MAX_CLOCK_SKEW": 300,
        "UPLOAD_RETENTION": 604_800,
        "UPLOAD_CONTINUATION": 518_400,
        "GARBAGE_GRACE": 86_400,
        "GARBAGE_SWEEP": 86_400,
        "GARBAGE_MARGIN": 43_200,
        "GARBAGE_LOOK": 21_600,
        "MAX_CANDIDATES": 10_000,
    }


UNITS = {"DAY", "MIB"}


def test_the_rules_of_the_log_fit_together() -> None:
    """Index/log.py, rules 3 to 5: each lifetime is well below the time that segments stay."""
    stay = bucket_format.SEGMENT_RETENTION
    assert stay / 10 > 2 * bucket_format.APPEND_LIFETIME + bucket_format.MAX_CLOCK_SKEW
    assert stay / 2 > bucket_format.FILE_UPLOAD_LIFETIME
    assert stay / 2 > bucket_format.TRIM_LIFETIME
