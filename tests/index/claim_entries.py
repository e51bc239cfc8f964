"""Entries with claims, and strategies for them."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from tests.file_infos import deleted, device, directory, encrypted_name, entry, file
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.entry import Confirmation, DeclinedVersion, Dissent, Entry, EntryClaims, PeerCursor, Removal
from untrusted_s3.index.row import VersionKey
from untrusted_s3.store.layout import name_key

A, B, C = map(device, (1, 2, 3))


def version(number: int, source: DeviceID | None = A, name: str | int = "a") -> Entry:
    """Return a version of a file, each with other data."""
    return replace(entry(file(name, number, content=number)), source=source)


def disputed(name: str | int = "a") -> Entry:
    """Return an entry with two dissents: A claims 5, B claims 3, and C claims 4 and has declined 5 and 3."""
    dissents = (Dissent(version(3, B, name), (B,)), Dissent(version(4, C, name), (C,)))
    declined = (DeclinedVersion(C, 0, 1000), DeclinedVersion(C, 1, 2000, 3, shown_again=True))
    return replace(version(5, A, name), claims=EntryClaims((A,), dissents, declined))


DEVICES = [device(number) for number in range(70)]
SOME = st.sampled_from(DEVICES[:4]) | st.sampled_from(DEVICES)
KINDS = st.sampled_from([lambda name, number: file(name, number, content=number % 2), directory, deleted])


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    """Draw an entry, with claims or without."""
    name = draw(st.integers(0, 3))
    keys = {}
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        info = draw(KINDS)(name, draw(st.integers(1, 4)))
        keys[VersionKey.of(info)] = replace(entry(info), source=draw(st.none() | SOME))
    current, *others = keys.values()
    if not others and draw(st.booleans()):
        return current
    claimed = draw(st.dictionaries(SOME, st.integers(0, len(others)), max_size=5))
    claiming = [tuple(one for one, place in claimed.items() if place == n) for n in range(len(keys))]
    dissents = [Dissent(other, some) for other, some in zip(others, claiming[1:], strict=True) if some]
    declined = draw(st.dictionaries(st.tuples(SOME, st.integers(0, len(dissents))), st.integers(1, 3), max_size=3))
    noted = (DeclinedVersion(one, place, 1000 * n, n, n > 2) for (one, place), n in declined.items())
    return replace(current, claims=EntryClaims(claiming[0], tuple(dissents), tuple(noted)))


CONFIRMATIONS = st.builds(Confirmation.of, SOME, st.sets(st.integers(1, 12), min_size=1).map(sorted))
CURSORS = st.builds(PeerCursor, st.sampled_from(DEVICES[:4]), st.sampled_from([1, 1, 1, 2]), st.integers(0, 3))
REMOVALS = st.sets(st.integers(0, 3), max_size=2).map(
    lambda names: tuple(Removal(name_key(encrypted_name(name))) for name in names)
)
