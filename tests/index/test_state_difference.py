"""States of one log are the same, whichever checkpoint they began at; what differs is named."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import device
from tests.index.claim_entries import CONFIRMATIONS, CURSORS, REMOVALS, disputed, entries, version
from tests.simulated import fast_directory
from untrusted_s3.index.entry import Confirmation, Entry, PeerCursor, Removal, Renewal
from untrusted_s3.index.segment import Segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.state_difference import difference
from untrusted_s3.store.layout import name_key

Step = tuple[list[Entry], list[PeerCursor], list[Confirmation], tuple[Removal, ...] | None]
STEPS = st.lists(
    st.tuples(
        st.lists(entries(), max_size=3),
        st.lists(CURSORS, max_size=2),
        st.lists(CONFIRMATIONS, max_size=2),
        st.none() | st.none() | REMOVALS,
    ),
    min_size=1,
    max_size=5,
)


def apply(state: FolderState, step: Step) -> None:
    """Apply a segment."""
    some, cursors, confirmations, removals = step
    position = state.position + 1
    renewal = Renewal(position, removals) if removals is not None else None
    state.apply(
        position,
        Segment(
            device(0),
            position.to_bytes(16),
            position,
            state.sequence + 1,
            tuple(some),
            tuple(cursors),
            renewal,
            0,
            tuple(confirmations),
        ),
    )


@settings(deadline=None, max_examples=60)
@given(steps=STEPS, share=st.floats(0, 1))
def test_a_checkpoint_on_the_way_changes_nothing(steps: list[Step], share: float) -> None:
    with fast_directory() as path:
        whole, other = FolderState(path / "whole.sqlite"), FolderState(path / "other.sqlite")
        half = int(share * len(steps))
        for step in steps[:half]:
            apply(whole, step)
        whole.write_copy(path / "copy")
        other.replace(path / "copy")
        assert difference(whole.path, other.path) is None
        for step in steps[half:]:
            apply(whole, step)
            assert difference(whole.path, other.path) is not None
            apply(other, step)
            assert difference(whole.path, other.path) is None
        whole.close()
        other.close()


CHANGES = [
    ("files", "UPDATE files SET file_info = x'00' WHERE sequence = 2"),
    ("files", "UPDATE files SET sequence = 99 WHERE sequence = 2"),
    ("files", "UPDATE files SET object_size = object_size + 1 WHERE sequence = 1"),
    ("files", "UPDATE files SET source = NULL WHERE sequence = 1"),
    ("files", "DELETE FROM files WHERE sequence = 2"),
    ("claims", "INSERT OR REPLACE INTO claims VALUES (1, 5)"),
    ("dissents", "UPDATE dissents SET claimed = x'00000002'"),
    ("dissents", "DELETE FROM dissents WHERE number = 1"),
    ("declined", "UPDATE declined SET times = 9"),
    ("devices", "UPDATE devices SET index_id = '7' WHERE number = 1"),
    ("cursors", "UPDATE cursors SET sequence = 77"),
    ("missing", "DELETE FROM missing"),
    ("condemned", "UPDATE condemned SET object_name = 'another'"),
    ("bytes", "UPDATE meta SET value = value + 1 WHERE key = 'bytes'"),
]


@pytest.mark.parametrize(("what", "change"), CHANGES)
def test_what_differs_is_named(what: str, change: str, tmp_path: Path) -> None:
    state, other = FolderState(tmp_path / "state.sqlite"), FolderState(tmp_path / "other.sqlite")
    lost = version(1, device(1), "lost")
    assert lost.stored is not None
    removal = Removal(name_key(lost.file_info.name), lost.stored.object_name)
    for one in (state, other):
        apply(one, ([disputed(), version(1, device(1), "b"), lost], [PeerCursor(device(1), 1, 3)], [], None))
        apply(one, ([], [PeerCursor(device(1), 1, 3)], [], (removal,)))
    assert difference(state.path, other.path) is None
    with closing(sqlite3.connect(other.path, isolation_level=None)) as connection:
        assert connection.execute(change).rowcount > 0
    found = difference(state.path, other.path)
    assert found is not None
    assert what in found
    state.close()
    other.close()
