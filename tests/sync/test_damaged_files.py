"""Local files with damage anywhere: a folder opens, or its files are made again; nothing else happens."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.file_infos import device, directory, entry, file
from tests.simulated import SimulatedBucket, fast_directory
from tests.sync.fakes import announced, new_folder
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.errors import StateDamaged
from untrusted_s3.index.database import open_database
from untrusted_s3.index.local_files import PENDING_FILE, STATE_FILE, folder_directory
from untrusted_s3.index.pending import PendingIndex
from untrusted_s3.index.schema import SCHEMA, STATE_VERSION
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.records import FolderRecord

RECORD = FolderRecord("f", "Label", bytes(40), 0x1234)


@contextmanager
def local_files() -> Iterator[Path]:
    """The state directory of a folder with entries and pending ones."""
    with fast_directory() as base:
        files = folder_directory(base, RECORD.folder_id, RECORD.index_id)
        state, pending = FolderState(files / STATE_FILE), PendingIndex(files / PENDING_FILE)
        infos = [file(str(number), sizes=(2000,)) for number in range(30)]
        state.apply(1, Segment(device(1), bytes(16), 0, 1, (*map(entry, infos), entry(directory("d"))), ()))
        pending.add(device(2), IndexState(7, 30), [announced(info) for info in infos], [])
        state.close()
        pending.close()
        yield base


def opens(base: Path) -> bool:
    """Open a folder as a gateway does, and read what the status shows; whether its files were whole."""
    for attempt in range(2):
        try:
            folder = new_folder(RECORD, SimulatedBucket(), base)
        except StateDamaged:
            continue
        _ = folder.totals, folder.pending_totals, folder.own_index
        folder.close()
        return attempt == 0
    raise AssertionError("the files were not made again")


def test_whole_files_stay() -> None:
    with local_files() as base:
        assert opens(base)


@given(
    name=st.sampled_from([STATE_FILE, PENDING_FILE]),
    place=st.floats(0, 1, exclude_max=True),
    damage=st.binary(min_size=1, max_size=5000),
    cut=st.booleans(),
)
@example(name="state.sqlite", place=0.001, damage=b"\x00\x00\x05", cut=False)  # another file format of SQLite
def test_damage_anywhere_is_survived(name: str, place: float, damage: bytes, cut: bool) -> None:
    with local_files() as base:
        path = folder_directory(base, RECORD.folder_id, RECORD.index_id) / name
        body = bytearray(path.read_bytes())
        offset = int(place * len(body))
        if cut:
            del body[offset:]
        body[offset : offset + len(damage)] = damage
        path.write_bytes(body)
        opens(base)
        assert path.is_file()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM meta",
        "DELETE FROM meta WHERE key = 'position'",
        "UPDATE meta SET value = 'x' WHERE key = 'sequence'",
        "UPDATE meta SET value = -1 WHERE key = 'bytes'",
        "INSERT INTO meta VALUES ('more', 1)",
    ],
)
def test_a_strange_table_of_the_state_is_damage(statement: str) -> None:
    with local_files() as base:
        connection = open_database(
            folder_directory(base, RECORD.folder_id, RECORD.index_id) / STATE_FILE, SCHEMA, STATE_VERSION
        )
        connection.execute(statement)
        connection.close()
        assert not opens(base)
        assert opens(base)
