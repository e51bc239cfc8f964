"""Objects that anybody with write access can put below a folder's prefix: the folder opens and loses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.file_infos import device, entry, file
from tests.index.gateways import KEYS, SimulatedGateway, contents
from tests.simulated import SimulatedBucket, SimulatedStore, fast_directory, inline_threads
from tests.virtual_time import run_in_virtual_time
from untrusted_s3.errors import LogWentBack, SegmentDamaged, SegmentsMissing
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.segment import MAGIC
from untrusted_s3.store.format import FAR_POSITION, MAX_CHECKPOINT_POSITION, MAX_FAR_GAP, MAX_POSITION
from untrusted_s3.store.losses import LossNotes
from untrusted_s3.sync.healing import heal

LENGTH = 3
_LIMITS = (LENGTH, 2**24, 2**32, 2**40, FAR_POSITION, FAR_POSITION + MAX_FAR_GAP, MAX_CHECKPOINT_POSITION, MAX_POSITION)
POSITIONS = st.one_of(
    st.builds(lambda limit, by: max(limit + by, 0), st.sampled_from(_LIMITS), st.integers(-2, 5)),
    st.integers(0, 10**20 - 1),
)
NAMES = st.one_of(
    st.builds("{:020d}".format, POSITIONS),
    st.builds("{:d}".format, POSITIONS),
    st.builds("{:020d}{}".format, POSITIONS, st.sampled_from(["/", "/x", ".old", " ", "-" + "0" * 32])),
    st.text("0123456789٣²x./-", min_size=1, max_size=24),
)
PREFIXES = st.sampled_from(["log/", "checkpoints/", "objects/", "damaged/", "losses/", ""])
_SEGMENT, _CHECKPOINT = "a copy of a segment", "a copy of the checkpoint"
BODIES = st.sampled_from([b"", b"x", b"<html>", MAGIC, MAGIC + bytes(100), _SEGMENT, _CHECKPOINT])
KEYS_AND_BODIES = st.tuples(st.builds(lambda prefix, name: KEYS.base + prefix + name, PREFIXES, NAMES), BODIES)


async def opened(store: SimulatedStore, number: int, directory: Path) -> SimulatedGateway:
    """Open the log as a gateway does, which heals it if it has to."""
    gateway = SimulatedGateway(SimulatedBucket(store), number, directory)
    try:
        await gateway.log.load()
    except (LogWentBack, SegmentDamaged, SegmentsMissing):
        notes = LossNotes(gateway.bucket, KEYS, device(number))
        await heal(gateway.bucket, KEYS, gateway.log, gateway.state, notes)
        await gateway.log.load()
    return gateway


def put_object(store: SimulatedStore, one: Entry) -> None:
    assert one.stored is not None
    store.put(KEYS.object(one.file_info.name, one.stored.object_name), bytes(one.stored.size))


async def append(store: SimulatedStore, gateway: SimulatedGateway, number: int) -> None:
    one = entry(file(number, number + 1))
    put_object(store, one)
    await gateway.log.append([one])


async def filled(directory: Path) -> SimulatedStore:
    store = SimulatedStore()
    gateway = await opened(store, 1, directory)
    for number in range(LENGTH):
        await append(store, gateway, number)
        if number == 1:
            await gateway.log.checkpoint()
    gateway.close()
    return store


def put_strange(store: SimulatedStore, key: str, body: bytes | str) -> None:
    copied = {_SEGMENT: KEYS.segment(1), _CHECKPOINT: KEYS.checkpoint(2)}
    if key not in store.objects:
        store.put(key, store.body(copied[body]) if isinstance(body, str) else body)


async def check_goes_on(store: SimulatedStore, directory: Path, known: int) -> None:
    """Check that gateways with and without a state open the folder, go on, and agree about all that was there."""
    numbers = list(range(known))
    for gateway_number in (1, 2):
        gateway = await opened(store, gateway_number, directory)
        await append(store, gateway, len(numbers))
        numbers.append(len(numbers))
        gateway.close()
    readers = [await opened(store, number, directory) for number in (1, 3)]
    assert contents(readers[0].state) == contents(readers[1].state)
    assert all(readers[0].state.has(entry(file(number, number + 1))) for number in numbers)
    assert readers[0].state.missing_count == 0
    for reader in readers:
        assert reader.bucket.count("put") == 0, "nothing is left to heal"
        assert reader.state.position <= FAR_POSITION + MAX_FAR_GAP + 10
        reader.close()


def far(prefix: str, position: int, body: bytes | str = b"x") -> list[tuple[str, bytes | str]]:
    return [(f"{KEYS.base}{prefix}{position:020d}", body)]


@settings(deadline=None, max_examples=40)
@given(st.lists(KEYS_AND_BODIES, min_size=1, max_size=3))
@example(far("log/", MAX_POSITION))
@example(far("log/", MAX_POSITION - 1, _SEGMENT))
@example(far("log/", MAX_POSITION + 1))
@example(far("log/", FAR_POSITION))
@example(far("checkpoints/", MAX_POSITION))
@example(far("checkpoints/", MAX_CHECKPOINT_POSITION))
@example(far("checkpoints/", FAR_POSITION, _CHECKPOINT))
@example([*far("log/", FAR_POSITION), *far("log/", FAR_POSITION + MAX_FAR_GAP), *far("log/", MAX_POSITION)])
def test_whatever_is_put_there_the_folder_goes_on(strange: list[tuple[str, bytes | str]]) -> None:
    async def play(directory: Path) -> None:
        store = await filled(directory)
        for key, body in strange:
            put_strange(store, key, body)
        await check_goes_on(store, directory, LENGTH)

    with fast_directory() as directory, inline_threads():
        run_in_virtual_time(play(directory))


@pytest.mark.parametrize("position", [FAR_POSITION, MAX_POSITION])
async def test_one_after_the_other_they_do_not_use_the_positions_up(position: int, tmp_path: Path) -> None:
    store = await filled(tmp_path)
    for number in range(3):
        put_strange(store, KEYS.segment(position - number), b"x")
        put_strange(store, KEYS.checkpoint(min(position - number, MAX_CHECKPOINT_POSITION)), b"y")
        await check_goes_on(store, tmp_path, LENGTH + 2 * number)


async def test_what_is_taken_out_of_the_log_is_kept(tmp_path: Path) -> None:
    store = await filled(tmp_path)
    strange = {KEYS.segment(MAX_POSITION): b"one", KEYS.checkpoint(MAX_CHECKPOINT_POSITION): b"other"}
    for key, body in strange.items():
        put_strange(store, key, body)
    await check_goes_on(store, tmp_path, LENGTH)
    assert not strange.keys() & store.objects.keys()
    assert sorted(store.body(key) for key in store.keys(f"{KEYS.base}damaged/")) == [b"one", b"other"]
