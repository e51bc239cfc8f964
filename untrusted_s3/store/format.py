"""Constants of the bucket format, version 2 (docs/format.md). Sizes are in bytes, times in seconds.

A change to any of them makes existing buckets unreadable or lets gateways of different versions disagree about one
bucket. `tests/samples/` holds stored samples of each version that every later program must read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from untrusted_s3.units import DAY, MIB

FORMAT: Final = "untrusted_s3"
VERSION: Final = 2
READ_VERSIONS: Final = (1, 2)

# How many names of objects are tried for one content of one file, beside those of objects that were found missing or
# damaged: where something else is stored under a key, the content is stored under the next one.
MAX_OBJECT_KEYS: Final = 8


@dataclass(frozen=True, slots=True)
class PartGrid:
    """The rule that divides the data of a large object into parts; every gateway must use the same one.

    Attributes:
        single_put_size: The largest data size that is written by a single PUT.
        min_part_size: The smallest size of a part, rounded up to whole blocks.
        max_parts: The largest number of parts; S3 allows 10,000.
    """

    single_put_size: int = 8 * MIB
    min_part_size: int = 8 * MIB
    max_parts: int = 9000


PART_GRID: Final = PartGrid()

# The largest file that fits into an object: 9,000 parts of 4 GiB.
MAX_FILE_SIZE: Final = PART_GRID.max_parts * 4 * 1024 * MIB

# The rules of the log (index/log.py). All gateways on a bucket rely on them.

# The highest position of a segment. No log gets there, and none goes on behind a key above FAR_POSITION.
MAX_POSITION: Final = 2**62
FAR_POSITION: Final = 2**61
# The highest position of a checkpoint. So a log has room left behind any checkpoint.
MAX_CHECKPOINT_POSITION: Final = 3 * 2**60
# A key above FAR_POSITION belongs to the log if it is no further behind the one before it.
MAX_FAR_GAP: Final = 2**24

# How long after signing the store accepts the PUT of a log segment.
APPEND_LIFETIME: Final = 900
# How long segments stay after a checkpoint covers them.
SEGMENT_RETENTION: Final = 1 * DAY
# How long after signing the store accepts the completion of a checkpoint's upload.
FILE_UPLOAD_LIFETIME: Final = 6 * 3600
# How long one trim may go on deleting.
TRIM_LIFETIME: Final = 3600.0
# A gateway whose heartbeat is older is not running.
HEARTBEAT_LIFETIME: Final = 180.0
# How far apart the clocks of gateways and store may be.
MAX_CLOCK_SKEW: Final = 300.0
# How long an unfinished multipart upload has got no part when it is aborted.
UPLOAD_RETENTION: Final = 7 * DAY
# A day before that nobody goes on with it, so that no upload is aborted that somebody has just continued.
UPLOAD_CONTINUATION: Final = 6 * DAY

# The rules of garbage collection (store/garbage.py). Ages are by the store's clock.

# No object is deleted before it has been a candidate for so long.
GARBAGE_GRACE: Final = 1 * DAY
# For how long after that the objects of one record are deleted.
GARBAGE_SWEEP: Final = 1 * DAY
# How much longer the record is kept, so that a deletion that stalled cannot arrive after it is gone.
GARBAGE_MARGIN: Final = 12 * 3600.0
# How old a writer's look at the records, and at an object, may be when it signs a segment that names the object.
GARBAGE_LOOK: Final = 6 * 3600.0
# The most objects in one record.
MAX_CANDIDATES: Final = 10_000
