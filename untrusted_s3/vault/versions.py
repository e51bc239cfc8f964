"""All versions that a name has had within the history that the store keeps."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from untrusted_s3.index.checkpoint import read_checkpoint
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.history import segments_after, to_datetime
from untrusted_s3.index.row import VersionKey
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_checkpoints, list_kept


async def read_versions(
    bucket: Bucket, keys: FolderKeys, name: str
) -> AsyncIterator[tuple[datetime | None, Entry, bool]]:
    """Yield what the log says of an encrypted name, oldest first, and since when (None: before the history).

    The last item says whether this is a dissent: a version that is known only since another one was current. Reads the
    oldest checkpoint, if the log no longer begins at its first segment, and all segments after it; before that all
    states that are kept beyond the history, with their own times. Raises DataError or StoreError.
    """
    seen = _Seen()
    with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
        base = FolderState(Path(directory, "base.sqlite"))
        try:
            for key, (position, _) in sorted((await list_kept(bucket, keys)).items()):
                await read_checkpoint(bucket, keys, position, base, kept_as=key)
                for entry, is_dissent in seen.news(base.versions(name)):
                    yield to_datetime(base.time_ms), entry, is_dissent
            base.clear()
            if not await bucket.size(keys.segment(1)):
                oldest = min(await list_checkpoints(bucket, keys), default=None)
                if oldest is not None:
                    await read_checkpoint(bucket, keys, oldest, base)
            found, position = base.versions(name), base.position
        finally:
            base.close()
    for entry, is_dissent in seen.news(found):
        yield None, entry, is_dissent
    async for _, segment in segments_after(bucket, keys, position):
        for entry in segment.entries:
            if entry.file_info.name == name:
                for version, is_dissent in seen.news(entry.versions):
                    yield to_datetime(segment.time_ms), version, is_dissent


class _Seen:
    """What was yielded of a name. The log has an entry again where only the claims to its versions change."""

    def __init__(self) -> None:
        self._current: Entry | None = None
        self._keys: set[VersionKey] = set()

    def news(self, versions: Sequence[Entry]) -> Iterator[tuple[Entry, bool]]:
        """Yield what is new of the versions of a row, the current one first, and whether it is a dissent."""
        for place, version in enumerate(versions):
            key, plain = VersionKey.of_entry(version), replace(version, claims=None)
            if plain != self._current if place == 0 else key not in self._keys:
                yield plain, place > 0
            self._keys.add(key)
            if place == 0:
                self._current = plain
