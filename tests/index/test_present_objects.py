"""The list of the objects of a folder's present state."""

from __future__ import annotations

from pathlib import Path

from tests.simulated import SimulatedBucket, SimulatedStore
from tests.vault.stored_folder import StoredFolder, stored_folder
from untrusted_s3.index.present_objects import listed_position, write_present_objects


def listed(folder: StoredFolder, store: SimulatedStore) -> list[str]:
    """Return the lines of the list."""
    return store.body(folder.keys.present_objects).decode("ascii").splitlines()


async def test_it_names_the_objects_of_the_present_state_alone(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    folder = await stored_folder(bucket, tmp_path)
    assert await listed_position(bucket, folder.keys) == 0
    await folder.append(await folder.file("a", b"old"), await folder.file("b", b"gone"), folder.directory("d"))
    new, other = await folder.file("a", b"new"), await folder.file("c", b"c")
    await folder.append(new, folder.deleted("b"), other)
    assert await write_present_objects(bucket, folder.keys, folder.state) == 2
    head, *lines = listed(folder, bucket.store)
    assert head == "# position=2 time=2023-11-14T22:13:20Z"
    assert [folder.keys.objects + line for line in lines] == [folder.object_key(new), folder.object_key(other)]
    assert await listed_position(bucket, folder.keys) == 2
    await folder.append(folder.deleted("a"), folder.deleted("c"))
    await write_present_objects(bucket, folder.keys, folder.state)
    assert len(listed(folder, bucket.store)) == 1 and await listed_position(bucket, folder.keys) == 3


async def test_something_else_in_its_place(tmp_path: Path) -> None:
    bucket = SimulatedBucket()
    folder = await stored_folder(bucket, tmp_path)
    for body in (b"", b"# position=", b"foreign"):
        await bucket.put(folder.keys.present_objects, [body])
        assert await listed_position(bucket, folder.keys) == 0
