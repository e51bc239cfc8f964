from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.sync.recent_bytes import RecentBytes


@given(
    st.lists(st.tuples(st.floats(0, 40), st.integers(1, 1000)), max_size=50),
)
def test_what_came_lately(arrivals: list[tuple[float, int]]) -> None:
    now, recent, all_of_them = 0.0, RecentBytes(30.0), []
    for pause, size in arrivals:
        now += pause
        recent.add(now, size)
        all_of_them.append((now, size))
        total = recent.total(now)
        assert total <= sum(size for time, size in all_of_them if time >= now - 33)
        assert total >= sum(size for time, size in all_of_them if time > now - 27)
    assert recent.total(now + 40) == 0
