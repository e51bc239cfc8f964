"""The record of quotas."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.simulated import SimulatedBucket
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.store.quotas import MAX_QUOTA, Quotas, read_quotas, write_quotas

SIZES = st.integers(0, MAX_QUOTA)


@given(
    st.dictionaries(st.text(max_size=64), SIZES),
    st.dictionaries(st.binary(min_size=32, max_size=32).map(DeviceID), SIZES),
)
def test_it_keeps_everything(folders: dict[str, int], devices: dict[DeviceID, int]) -> None:
    quotas = Quotas(folders, devices)
    assert Quotas.from_json(quotas.to_json()) == quotas


async def test_it_is_read_as_it_was_written() -> None:
    bucket = SimulatedBucket()
    assert await read_quotas(bucket) == Quotas()
    quotas = Quotas({"a": 1}, {DeviceID(bytes(32)): 2})
    await write_quotas(bucket, quotas)
    assert await read_quotas(bucket) == quotas
