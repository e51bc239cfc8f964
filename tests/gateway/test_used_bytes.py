"""The bytes of all folders together, which a limit of the store and quotas of devices count."""

from __future__ import annotations

from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from tests.file_infos import device
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import StateDamaged
from untrusted_s3.gateway.used_bytes import UsedBytes
from untrusted_s3.sync.folder import Folder

DEVICES = [device(number) for number in range(3)]


class _Folder:
    """A folder that has some bytes of each device, and counts how often it is asked."""

    def __init__(self) -> None:
        self.bytes_of = dict.fromkeys(DEVICES, 0)
        self.damaged = False
        self.asked = 0

    @property
    def used_bytes(self) -> int:
        self.asked += 1
        return sum(self.bytes_of.values())

    def bytes_from(self, device_id: DeviceID) -> int:
        self.asked += 1
        if self.damaged:
            raise StateDamaged("it is opened again")
        return self.bytes_of[device_id]


def _as_folder(folder: _Folder) -> Folder:
    return cast(Folder, folder)


def test_a_file_costs_the_same_however_many_folders_there_are() -> None:
    folders = [_Folder() for _ in range(200)]
    used = UsedBytes(lambda: map(_as_folder, folders))
    assert used.total == 0 and used.of(DEVICES[0]) == used.of(DEVICES[1]) == 0
    before = sum(folder.asked for folder in folders)
    for number in range(100):
        folders[number % 7].bytes_of[DEVICES[0]] += 5
        used.changed(_as_folder(folders[number % 7]))
        assert used.total == used.of(DEVICES[0]) == 5 * (number + 1)
        assert used.of(DEVICES[1]) == 0
    assert sum(folder.asked for folder in folders) - before == 3 * 100


_WHAT = st.sampled_from(["bytes", "damage", "open", "ask"])
_CHANGES = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(DEVICES),
        st.integers(0, 100),
        _WHAT,
    )
)


@given(_CHANGES)
def test_they_are_the_sums_of_what_folders_say(changes: list[tuple[int, DeviceID, int, str]]) -> None:
    folders = [_Folder() for _ in range(4)]
    used = UsedBytes(lambda: map(_as_folder, folders))
    for number, device_id, size, what in changes:
        folder = folders[number]
        match what:
            case "bytes":
                folder.bytes_of[device_id] = size
                used.changed(_as_folder(folder))
            case "damage":
                folder.damaged = True
                used.changed(_as_folder(folder))
            case "open":
                folders[number] = _Folder()
                used.reset()
                used.changed(_as_folder(folder))  # what was under way there ends later
            case "ask":
                assert used.total == sum(sum(one.bytes_of.values()) for one in folders)
                there = [one for one in folders if not one.damaged]
                assert used.of(device_id) == sum(one.bytes_of[device_id] for one in there)
