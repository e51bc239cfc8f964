"""Numbers of objects and their bytes, also by size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from untrusted_s3.units import GIB, KIB, MIB

# The most bytes of an object of each class; the last class has what is larger.
SIZE_CLASSES: Final = (4 * KIB, 64 * KIB, 1 * MIB, 8 * MIB, 64 * MIB, 1 * GIB)


@dataclass(slots=True)
class Amount:
    """A number of objects and their bytes."""

    objects: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        """Count one more object."""
        self.objects += 1
        self.bytes += size

    def add_all(self, other: Amount) -> None:
        """Count what another amount counts."""
        self.objects += other.objects
        self.bytes += other.bytes

    def to_json(self) -> dict[str, int]:
        """Return the JSON object."""
        return {"objects": self.objects, "bytes": self.bytes}


def _classes() -> list[Amount]:
    return [Amount() for _ in range(len(SIZE_CLASSES) + 1)]


@dataclass(slots=True)
class Contents:
    """What is in a folder, or in a store.

    Attributes:
        live: Objects that the present state names, other versions of a conflict included.
        history: Objects that only earlier segments or checkpoints name, which the store still has.
        garbage: Objects that nothing names. A file that is being stored counts here until the log names it.
        unclear: Objects of folders with a damaged log, and of folders that are being removed.
        log: Segments, checkpoints, records, and what else the program writes beside objects.
        uploads: Unfinished multipart uploads, and the bytes of the parts that they have.
        unknown: Keys that are not of this program.
        classes: All objects with the data of files by size: those up to each of SIZE_CLASSES, then the larger ones.
        storage_classes: All of it by the storage class that the store says. Uploads count as STANDARD.
    """

    live: Amount = field(default_factory=Amount)
    history: Amount = field(default_factory=Amount)
    garbage: Amount = field(default_factory=Amount)
    unclear: Amount = field(default_factory=Amount)
    log: Amount = field(default_factory=Amount)
    uploads: Amount = field(default_factory=Amount)
    unknown: Amount = field(default_factory=Amount)
    classes: list[Amount] = field(default_factory=_classes)
    storage_classes: dict[str, Amount] = field(default_factory=dict)

    def of_class(self, storage_class: str) -> Amount:
        """Return the amount of a storage class, to which more can be added."""
        return self.storage_classes.setdefault(storage_class, Amount())

    def kinds(self) -> Iterator[tuple[str, Amount]]:
        """Yield the amounts by kind, with the names that they have in JSON."""
        for name in ("live", "history", "garbage", "unclear", "log", "uploads", "unknown"):
            yield name, getattr(self, name)

    @property
    def all(self) -> Amount:
        """All of it."""
        found = Amount()
        for _, amount in self.kinds():
            found.add_all(amount)
        return found

    def add_all(self, other: Contents) -> None:
        """Count what other contents count."""
        for (_, amount), (_, more) in zip(self.kinds(), other.kinds(), strict=True):
            amount.add_all(more)
        for amount, more in zip(self.classes, other.classes, strict=True):
            amount.add_all(more)
        for name, more in other.storage_classes.items():
            self.of_class(name).add_all(more)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            **{name: amount.to_json() for name, amount in self.kinds()},
            "all": self.all.to_json(),
            "size_classes": [
                {"up_to": limit, **amount.to_json()}
                for limit, amount in zip((*SIZE_CLASSES, None), self.classes, strict=True)
            ],
            "storage_classes": {name: amount.to_json() for name, amount in sorted(self.storage_classes.items())},
        }
