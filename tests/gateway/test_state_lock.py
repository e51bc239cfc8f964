"""One gateway at a time uses a state folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from untrusted_s3.errors import StateFolderInUse, StateFolderUnusable
from untrusted_s3.gateway.state_lock import lock_state


def test_a_second_one_is_refused_until_the_first_has_ended(tmp_path: Path) -> None:
    state = tmp_path / "data" / "state"
    with lock_state(state):
        with pytest.raises(StateFolderInUse, match="another gateway"), lock_state(state):
            pass
        with lock_state(tmp_path / "other"):
            pass
    with lock_state(state):
        assert (state / "lock").stat().st_mode & 0o777 == 0o600


def test_an_error_inside_lets_go(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), lock_state(tmp_path):
        raise RuntimeError
    before = len(list(Path("/proc/self/fd").iterdir()))
    with lock_state(tmp_path):
        pass
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StateFolderUnusable), lock_state(tmp_path / "file"):
        pass
