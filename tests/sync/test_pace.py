"""How fast a device's messages are taken."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.file_infos import device
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.pace import IndexPaces, Paces
from untrusted_s3.units import MIB

SETTINGS = SyncSettings()


def test_an_honest_index_of_any_size_does_not_wait() -> None:
    paces = IndexPaces(SETTINGS)
    delays = [paces.delay(device(1), size, size // 2, 0.0) for size in (100, MIB, 64 * MIB) * 100]
    assert delays == [0.0] * 300


@given(st.lists(st.tuples(st.integers(0, 64 * MIB), st.integers(1, 255)), max_size=50), st.integers(1, 3))
def test_the_log_grows_in_proportion_to_what_came(messages: list[tuple[int, int]], connections: int) -> None:
    """Over any number of connections one after the other: the pace is the device's."""
    paces = IndexPaces(SETTINGS)
    now, taken, sent = 0.0, 0, 0
    for size, ratio in messages * connections:
        received = size // ratio
        now += paces.delay(device(1), size, received, now)
        taken, sent = taken + size, sent + received
        allowed = SETTINGS.index_ratio * sent + SETTINGS.index_burst + SETTINGS.index_rate * now
        assert taken <= allowed * 1.001 + 1
    assert paces.delay(device(2), SETTINGS.index_burst, 0, now) == 0.0, "others go on"


@given(st.lists(st.tuples(st.integers(0, 5000), st.floats(0, 100)), max_size=50))
def test_no_device_exceeds_its_pace(messages: list[tuple[int, float]]) -> None:
    paces = Paces(burst=2000, rate=5.0)
    now, taken = 0.0, 0
    for amount, pause in messages:
        now += pause
        now += paces.delay(device(1), amount, now)
        taken += amount
        assert taken <= 2000 + 5.0 * now + 0.01
    assert paces.delay(device(2), 2000, now) == 0.0, "others go on"
