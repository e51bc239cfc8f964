"""All versions that a folder has of one name: the one that wins, and what became of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from untrusted_s3.vault.entry import DamagedEntry, Entry
from untrusted_s3.vault.winner import loses_content, winner


@dataclass(frozen=True, slots=True)
class NameVersions:
    """The versions of one name. Most names have one.

    Attributes:
        chosen: What the folder holds: the version that wins, or a damaged one if all are.
        conflicts: The versions that are in conflict with the chosen one and lose: those of which Syncthing makes
            conflict copies. Each with its place: that of the current version is 0, that of the n-th dissent n.
        outdated: The other versions that some device still has.
        damaged: The versions that cannot be used and are not the chosen one.
    """

    chosen: Entry | DamagedEntry
    conflicts: tuple[tuple[int, Entry], ...] = ()
    outdated: tuple[Entry, ...] = ()
    damaged: tuple[DamagedEntry, ...] = ()

    @classmethod
    def of(cls, versions: Sequence[Entry | DamagedEntry]) -> NameVersions:
        """Choose among the versions of a name, the current one first."""
        if len(versions) == 1:
            return cls(versions[0])
        usable = [(place, version) for place, version in enumerate(versions) if isinstance(version, Entry)]
        damaged = tuple(version for version in versions if isinstance(version, DamagedEntry))
        if not usable:
            return cls(damaged[0], damaged=damaged[1:])
        won = winner([version.real for _, version in usable])
        chosen = usable.pop(won)[1]
        conflicts = tuple((place, version) for place, version in usable if loses_content(chosen.real, version.real))
        lost = {place for place, _ in conflicts}
        outdated = tuple(version for place, version in usable if place not in lost)
        return cls(replace(chosen, conflicts=len(conflicts)), conflicts, outdated, damaged)

    @property
    def is_gone(self) -> bool:
        """Whether the folder no longer has the name, and nothing is damaged."""
        return isinstance(self.chosen, Entry) and self.chosen.deleted and not self.damaged

    @property
    def others(self) -> tuple[Entry, ...]:
        """The usable versions that are not the chosen one and no deletions."""
        every = (*(version for _, version in self.conflicts), *self.outdated)
        return tuple(replace(version, is_other=True) for version in every if not version.deleted)
