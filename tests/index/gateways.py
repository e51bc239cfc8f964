"""Gateways that share one simulated bucket, for the tests of the log."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import crc32c

from tests.file_infos import device
from tests.simulated import SimulatedBucket, SimulatedStore, fast_directory
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.rules import LOG_RULES, LogRules
from untrusted_s3.index.segment import EMPTY_SEGMENT, Segment, decode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.layout import FolderKeys

KEYS = FolderKeys.of("folder")
SETTINGS = LogSettings()
SEGMENTS = KEYS.base + "log/"


class SimulatedGateway:
    """The log of one gateway. `number` identifies it; its state is in `directory`."""

    def __init__(
        self,
        bucket: SimulatedBucket,
        number: int,
        directory: Path,
        clock: Callable[[], float] | None = None,
        *,
        settings: LogSettings = SETTINGS,
        rules: LogRules = LOG_RULES,
    ) -> None:
        self.bucket = bucket
        self.clock = clock or bucket.store.clock
        self.state = FolderState(directory / f"{number}.sqlite")
        self.log = FolderLog(bucket, KEYS, self.state, device(number), settings, self.clock, rules)

    def close(self) -> None:
        """End the process. The files in the directory stay."""
        self.state.close()


@functools.cache
def checkpoint_body(position: int) -> bytes:
    """Return a checkpoint of an empty folder at a position."""
    with fast_directory() as directory:
        state = FolderState(directory / "state.sqlite")
        state.skip(position)
        state.write_copy(directory / "copy.sqlite")
        state.close()
        body = (directory / "copy.sqlite").read_bytes()
    return body + crc32c.crc32c(body).to_bytes(4, "big")


def contents(state: FolderState) -> object:
    """Return all that a state says, for comparison."""
    return (
        state.position,
        state.sequence,
        state.totals,
        list(state.file_infos_after(0, 1_000_000)),
        [state.cursor(device(number)) for number in range(4)],
        (state.index_id, state.append_id, state.missing_count),
        sorted((found.name, found.object_name) for found in state.missing()),
        [source for _, _, source in state.sources()],
        [state.claimed_by(sequence) for sequence, _ in state.file_infos_after(0, 1_000_000)],
        list(state.disputed()),
    )


def written_segments(store: SimulatedStore) -> dict[int, Segment]:
    """Return all segments in the bucket by their positions."""
    return {int(key.rpartition("/")[2]): decode_segment(store.body(key), key) for key in store.keys(SEGMENTS)}


def check_log(store: SimulatedStore) -> dict[tuple[str, int], int]:
    """Check what must hold of a log without deletions. Return each entry's sequence number by its name and version."""
    assert store.created_twice == []
    segments = written_segments(store)
    assert sorted(segments) == list(range(1, len(segments) + 1)), "positions without gaps"
    segments = {position: segment for position, segment in segments.items() if segment is not EMPTY_SEGMENT}
    assert len({segment.append_id for segment in segments.values()}) == len(segments)
    reflected: dict[tuple[str, int], int] = {}
    newest: dict[str, int] = {}
    sequence = 0
    for _, segment in sorted(segments.items()):
        assert segment.first_sequence == sequence + 1, "sequence numbers without gaps"
        for entry in segment.entries:
            sequence += 1
            name, version = entry.file_info.name, entry.file_info.message.version.counters[0].value
            assert newest.get(name, 0) < version, "an entry that is not newer, or is reflected twice"
            newest[name] = version
            reflected[name, version] = sequence
        assert segment.last_sequence == sequence
    return reflected
