"""Which entries of a folder are taken back."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key

_READ_AT_ONCE = 1000


class Suspects(Protocol):
    """A rule for which entries are bad.

    Attributes:
        spares_renewed: Whether an entry that a renewal has written stays.
        missing: Names that are to be listed as missing no longer, if they are.
    """

    spares_renewed: bool
    missing: Sequence[str]

    def bad_ones(self, state: FolderState, after: int = 0) -> Generator[int]:
        """Yield the sequence numbers above `after` of the names that have a bad version now, rising.

        It may be the current one or a dissent.
        """
        ...

    def is_bad(self, entry: Entry) -> bool:
        """Return whether an entry, present or earlier, is bad; always the same for the same entry."""
        ...


class FromDevices:
    """Entries whose data came from certain devices."""

    spares_renewed = False
    missing: Sequence[str] = ()

    def __init__(self, devices: Collection[DeviceID]) -> None:
        self._devices = frozenset(devices)

    def bad_ones(self, state: FolderState, after: int = 0) -> Generator[int]:
        for sequence, _, source in state.sources(after):
            if source in self._devices or (
                state.is_disputed(sequence) and any(map(self.is_bad, state.versions_at(sequence)))
            ):
                yield sequence

    def is_bad(self, entry: Entry) -> bool:
        return entry.source in self._devices


@dataclass(frozen=True, slots=True)
class _Target:
    version: pb.Vector
    source: DeviceID | None


class Named:
    """The entries that certain names have now, and earlier ones of the same names and devices.

    Attributes:
        missing: Those that the folder does not have, because their objects are missing or were not to be trusted.
        unknown: Those that the folder does not know at all.
    """

    # Otherwise the same command, given again, would take a name back by another version.
    spares_renewed = True

    def __init__(self, names: Iterable[str], state: FolderState) -> None:
        """Note what a folder has under some encrypted names."""
        self._targets: dict[bytes, _Target] = {}
        missing: list[str] = []
        self.unknown: list[str] = []
        for name in names:
            entry, key = state.entry(name), name_key(name)
            if entry is None:
                (missing if state.is_missing(key) else self.unknown).append(name)
            else:
                self._targets[key] = _Target(entry.file_info.message.version, entry.source)
        self.missing: Sequence[str] = missing

    def bad_ones(self, state: FolderState, after: int = 0) -> Generator[int]:
        for sequence, key, _ in state.sources(after):
            if key in self._targets and any(map(self.is_bad, state.versions_at(sequence))):
                yield sequence

    def is_bad(self, entry: Entry) -> bool:
        target = self._targets.get(name_key(entry.file_info.name))
        if target is None:
            return False
        if target.source is not None and entry.source == target.source:
            return True
        return entry.file_info.message.version == target.version


class Undecryptable:
    """Entries that do not decrypt with the folder's password, or whose outside does not fit the inside."""

    spares_renewed = False
    missing: Sequence[str] = ()

    def __init__(self, decrypts: Callable[[Entry], bool]) -> None:
        self._decrypts = decrypts
        self._checked = 0  # all entries up to this sequence number were looked at
        self._bad = array("q")  # the bad ones up to there, rising; sequence numbers are never used again

    def bad_ones(self, state: FolderState, after: int = 0) -> Generator[int]:
        while rows := list(state.sequences_after(self._checked, _READ_AT_ONCE)):
            for sequence in rows:
                if any(map(self.is_bad, state.versions_at(sequence))):
                    self._bad.append(sequence)
            self._checked = rows[-1]
        for place in range(bisect_right(self._bad, after), len(self._bad)):
            if state.has_sequence(self._bad[place]):
                yield self._bad[place]

    def is_bad(self, entry: Entry) -> bool:
        return not self._decrypts(entry)
