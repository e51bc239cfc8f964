"""A random share of a folder's files."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator

from untrusted_s3.vault.entry import DamagedEntry, Entry, Kind


def sample(
    entries: Iterable[Entry | DamagedEntry], share: float, files: int, seed: int
) -> Iterator[Entry | DamagedEntry]:
    """Yield a random share (0 to 1) of `files` files, at least one, and all entries that are not files.

    The same seed gives the same files.
    """
    chosen = set(random.Random(seed).sample(range(files), math.ceil(files * share)))  # noqa: S311
    number = 0
    for entry in entries:
        is_file = isinstance(entry, Entry) and entry.kind is Kind.FILE
        if not is_file or number in chosen:
            yield entry
        number += is_file
