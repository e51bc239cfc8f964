"""What is pending from devices that are not accepted any more."""

from __future__ import annotations

from pathlib import Path

from tests.file_infos import device, file
from tests.simulated import SimulatedBucket
from tests.sync.fakes import new_folder, sync_memory
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.gateway.forgetting import Forgetting
from untrusted_s3.store.records import FolderRecord


async def test_a_removed_device_leaves_nothing_on_the_local_disk(tmp_path: Path) -> None:
    memory = sync_memory()
    folder = new_folder(FolderRecord("folder", "", b"token"), SimulatedBucket(), tmp_path, memory=memory)
    await folder.open()
    for number in (1, 2):
        raw = tuple(file(one, sequence=one + 1).raw for one in range(500))
        assert await folder.take_index(device(number), 7, IndexReceived("folder", raw, True, 500, 0))
    accepted = [device(1), device(2)]
    forgetting = Forgetting([folder], lambda: accepted)
    await forgetting.look()
    assert sorted(folder.announcing_devices()) == sorted(accepted)
    held = memory.pending.used
    del accepted[1]
    await forgetting.look()
    assert folder.announcing_devices() == [device(1)]
    assert memory.pending.used == held // 2
    assert folder.pending_totals[0] == 500
    folder.close()
    await forgetting.look()
    assert memory.pending.used == 0
