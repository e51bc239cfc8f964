"""A folder's removal, broken off anywhere and begun again."""

from __future__ import annotations

import pytest

from tests.simulated import Call, Fault, SimulatedBucket, deny_deletions
from untrusted_s3.errors import DeletionDenied, StoreUnreachable
from untrusted_s3.store.folder_removal import remove_folder
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord, read_folders, write_record

KEYS = FolderKeys.of("f")


@pytest.mark.parametrize("fails_at", range(1, 10))
async def test_a_removal_that_is_broken_off_goes_on_later(fails_at: int) -> None:
    bucket = SimulatedBucket()
    await write_record(bucket, KEYS.record, FolderRecord("f", "", b"token").to_json())
    objects = KEYS.segment(1), KEYS.segment(2), KEYS.checkpoint(2), KEYS.object("a" * 32, "b" * 32)
    for key in (*objects, KEYS.loss(2, "c" * 32)):
        await bucket.put(key, [b"data"])
    writes = 0

    def fault(call: Call) -> Fault | None:
        nonlocal writes
        writes += call.operation in ("put", "delete")
        return Fault.UNREACHABLE if writes == fails_at else None

    bucket.fault = fault
    try:
        await remove_folder(bucket, "f")
    except StoreUnreachable:
        writes = 100
        (record,) = await read_folders(bucket)
        # Whole and open to all, or closed to all.
        assert record.removed == (fails_at > 2)
        assert record.removed or len(bucket.store.objects) == 6
        await remove_folder(bucket, "f")
    else:
        assert fails_at == 9
    assert not bucket.store.objects


async def test_who_may_not_delete_leaves_the_folder_as_it_is() -> None:
    bucket = SimulatedBucket()
    await write_record(bucket, KEYS.record, FolderRecord("f", "", b"token").to_json())
    bucket.fault = deny_deletions
    with pytest.raises(DeletionDenied):
        await remove_folder(bucket, "f")
    (record,) = await read_folders(bucket)
    assert not record.removed
