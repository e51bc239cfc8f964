"""Names of objects: the last segment of an object's key (docs/format.md, "Keys").

An object is named after the content of its file. Objects are never overwritten, so a content whose object is damaged
is stored again under the next name: `{content hash}`, `{content hash}-1`, `{content hash}-2` and so on.

A content with blocks from an untrusted device, which nobody can check, has names of its own. So what a trusted device
has is never taken to be stored already because an untrusted one has given something else for it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.content import content_hash as content_hash

_UNTRUSTED = "-u"
_GIVER_SIZE = 8  # bytes of the device ID


def object_names(file_info: FileInfo, giver: DeviceID | None = None) -> Iterator[str]:
    """Yield, without end, the names under which the content of a file may be stored, in the order of their trial.

    `giver` is the untrusted device that gives blocks of it, or None if only trusted devices do.
    """
    first = content_hash(file_info)
    if giver is not None:
        first += f"{_UNTRUSTED}{giver.raw[:_GIVER_SIZE].hex()}"
    yield first
    for number in itertools.count(1):
        yield f"{first}{number}" if giver is not None else f"{first}-{number}"


def has_untrusted_blocks(object_name: str) -> bool:
    """Return whether an object's name says that blocks of it came from an untrusted device."""
    return _UNTRUSTED in object_name
