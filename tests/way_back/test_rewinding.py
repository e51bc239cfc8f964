"""A folder is taken back to a time: it is what it was then, and nothing is deleted."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from tests.file_infos import device
from tests.simulated import SimulatedBucket
from tests.vault.stored_folder import START
from tests.way_back.attacked import HONEST, Attacked, by, forged, of_version
from untrusted_s3.index.entry import Dissent, Entry, EntryClaims
from untrusted_s3.index.history import load_as_of
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key
from untrusted_s3.way_back.change import Change
from untrusted_s3.way_back.rewinding import Rewinding

GOOD = START + 100


async def ransomed(tmp_path: Path) -> Attacked:
    """A folder of a device that encrypted all files after GOOD, deleted one, and added a note."""
    folder = await Attacked.create(tmp_path)
    stored = folder.stored
    files = [await stored.file(path, path.encode()) for path in ("a", "b", "c")]
    await stored.append(*by(HONEST, stored.directory("docs"), *files, await stored.file("old", b"old")))
    await stored.append(*by(HONEST, stored.deleted("old")), time=GOOD)
    encrypted = [await stored.file(path, b"\0" * 10, change_real=of_version(50)) for path in ("a", "b")]
    await stored.append(*by(HONEST, *encrypted), time=GOOD + 10)
    await stored.append(*by(HONEST, stored.deleted("c"), await stored.file("note", b"pay")), time=GOOD + 11)
    return folder


@contextlib.asynccontextmanager
async def at(folder: Attacked, time: float) -> AsyncIterator[FolderState]:
    """The state of a folder at a time."""
    with tempfile.TemporaryDirectory(dir=folder.directory) as directory:
        state = FolderState(Path(directory, "then.sqlite"))
        try:
            await load_as_of(folder.stored.bucket, folder.stored.keys, state, int(time * 1000))
            yield state
        finally:
            state.close()


async def rewind(folder: Attacked, time: float) -> dict[str, Change]:
    async with at(folder, time) as then:
        return await folder.carry_out(lambda bucket: Rewinding(bucket, folder.stored.keys, then))


def infos(contents: dict[str, Entry]) -> dict[str, bytes]:
    return {path: entry.file_info.raw for path, entry in contents.items()}


async def contents_at(folder: Attacked, time: float) -> dict[str, bytes]:
    async with at(folder, time) as state:
        entries = [state.entry_at(sequence) for sequence, _, _ in state.named_file_infos()]
    return {folder.opener.path(entry.file_info.name) or "": entry.file_info.raw for entry in entries}


async def test_the_folder_is_what_it_was(tmp_path: Path) -> None:
    folder = await ransomed(tmp_path)
    store = folder.store
    before, objects = await contents_at(folder, GOOD), store.keys(folder.stored.keys.objects)
    present = infos(await folder.contents())
    folder.stored.now = GOOD + 20
    changes = await rewind(folder, GOOD + 5)
    assert changes.keys() == {"a", "b", "c", "note"}
    assert changes["note"].after is None
    assert infos(await folder.contents()) == before
    assert store.keys(folder.stored.keys.objects) == objects
    # Again, nothing is left to do; and the way back is a way back too.
    assert await rewind(folder, GOOD + 5) == {}
    folder.stored.now = GOOD + 30
    assert (await rewind(folder, GOOD + 15)).keys() == changes.keys()
    assert infos(await folder.contents()) == present


async def test_data_that_are_gone_do_not_come_back(tmp_path: Path) -> None:
    folder = await ransomed(tmp_path)
    stored = folder.stored
    kept = (await stored.file("a", b"a")).stored
    assert kept is not None
    del folder.store.objects[stored.keys.object(folder.name("a"), kept.object_name)]
    stored.now = GOOD + 20
    async with at(folder, GOOD + 5) as then:
        plans: list[Rewinding] = []

        def plan(bucket: SimulatedBucket) -> Rewinding:
            plans.append(Rewinding(bucket, stored.keys, then))
            return plans[-1]

        changes = await folder.carry_out(plan)
        assert changes["a"].data_gone and plans[0].lost == 0
        assert (await folder.contents()).keys() == {"docs", "b", "c", "old"}
        assert await folder.carry_out(plan) == {} and plans[1].lost == 1


async def test_what_gateways_write_meanwhile_is_taken_back_too(tmp_path: Path) -> None:
    folder = await ransomed(tmp_path)
    stored = folder.stored
    before = await contents_at(folder, GOOD)
    stored.now = GOOD + 20
    writes = [[forged(folder.name("b"), 1000)], by(HONEST, await stored.file("late", b"late"))]

    async def meddle(call: object, phase: object) -> None:
        if getattr(call, "operation", "") == "put" and writes:
            await stored.append(*writes.pop())

    async with at(folder, GOOD + 5) as then:

        def plan(bucket: SimulatedBucket) -> Rewinding:
            bucket.gate = meddle
            return Rewinding(bucket, stored.keys, then)

        changes = await folder.carry_out(plan)
    assert writes == [] and "late" in changes
    assert infos(await folder.contents()) == before


async def test_dissents_come_back_too(tmp_path: Path) -> None:
    """Those whose objects are there: a folder is what it was, with all versions of a name."""
    folder = await Attacked.create(tmp_path)
    stored = folder.stored
    current, *others = [by(HONEST, await stored.file("a", data))[0] for data in (b"current", b"one", b"two")]
    dissents = tuple(Dissent(one, (device(number),)) for number, one in enumerate(others, 5))
    before = replace(current, claims=EntryClaims((HONEST,), dissents))
    same = by(HONEST, await stored.file("b", b"b"))[0]
    settled = replace(same, claims=EntryClaims((HONEST,), (Dissent(by(HONEST, stored.deleted("b"))[0], (device(7),)),)))
    await stored.append(before, settled, time=GOOD)
    await stored.append(by(HONEST, await stored.file("a", b"later"))[0], time=GOOD + 10)
    await stored.log.renew(lambda _: ((), [same]))
    assert others[0].stored is not None
    del folder.store.objects[stored.keys.object(folder.name("a"), others[0].stored.object_name)]
    changes = await rewind(folder, GOOD)
    assert changes.keys() == {"a", "b"}
    async with folder.loaded() as state:
        assert state.versions(folder.name("a")) == (current, others[1])
        row = state.row(name_key(folder.name("b")))
        assert row is not None
        assert row.whole_entry == settled
    assert await rewind(folder, GOOD) == {}
