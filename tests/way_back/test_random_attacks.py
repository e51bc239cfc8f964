"""Whatever devices announce: after a retraction the folder is what it would be without the attacker."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.file_infos import deleted, directory, encrypted_name, entry, file
from tests.loops import RunAsync
from tests.simulated import SimulatedBucket, fast_directory
from tests.way_back.attacked import ATTACKER, HONEST, OTHER, Attacked, by
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.entry import Entry
from untrusted_s3.settings import LogSettings
from untrusted_s3.way_back.suspects import FromDevices

KINDS = {
    "file": lambda name, version: file(name, version, content=version),
    "directory": directory,
    "deleted": deleted,
}
# Device, number of the name, kind, and by how much the version rises
Announced = tuple[DeviceID, int, str, int]
CHANGE = st.tuples(
    st.sampled_from([HONEST, OTHER, ATTACKER]), st.integers(0, 4), st.sampled_from(sorted(KINDS)), st.integers(1, 5)
)
# Segments of changes; None is a retraction.
ATTACK = st.lists(st.none() | st.lists(CHANGE, min_size=1, max_size=4), max_size=12)


@settings(max_examples=25)
@given(attack=ATTACK, segment_entries=st.integers(1, 5), checkpoint=st.integers(0, 12))
def test_random_attacks(
    run_async: RunAsync, attack: list[list[Announced] | None], segment_entries: int, checkpoint: int
) -> None:
    run_async(_attack(attack, segment_entries, checkpoint))


async def _attack(attack: list[list[Announced] | None], segment_entries: int, checkpoint: int) -> None:
    with fast_directory() as path:
        folder = await Attacked.create(path, SimulatedBucket())
        stored = folder.stored
        versions = dict.fromkeys(range(5), 0)
        honest: dict[str, Entry] = {}

        async def retract() -> None:
            await folder.retract(
                lambda state: FromDevices([ATTACKER]), settings=LogSettings(segment_entries=segment_entries)
            )
            contents = await folder.contents()
            assert {name: one.file_info.raw for name, one in contents.items()} == {
                name: one.file_info.raw for name, one in honest.items()
            }

        for number, changes in enumerate(attack):
            if changes is None:
                await retract()
                continue
            entries = []
            for source, name, kind, step in changes:
                versions[name] += step
                (one,) = by(source, entry(KINDS[kind](name, versions[name])))
                entries.append(one)
                if one.stored is not None:
                    await stored.bucket.put(stored.object_key(one), [bytes(one.stored.size)])
                if source != ATTACKER:
                    honest[encrypted_name(name)] = one
            for one in entries:
                await stored.append(one)
            if number == checkpoint:
                await stored.log.checkpoint()
        await retract()
        stored.state.close()
