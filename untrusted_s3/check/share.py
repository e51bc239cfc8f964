"""Which objects are read by a check that does not read all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from untrusted_s3.index.entry import NamedObject

_SPACE = 2**64


@dataclass(frozen=True, slots=True)
class Share:
    """A share of all objects: those whose hash is from `first` to below `end`, of numbers from 0 to 1.

    Attributes:
        first: Where it begins.
        end: Where it ends.
        seed: Another one chooses other objects.
    """

    first: float
    end: float
    seed: int = 0

    def has(self, named: NamedObject) -> bool:
        """Return whether an object is in the share."""
        if self.first <= 0 and self.end >= 1:
            return True
        text = b"%d %s %s" % (self.seed, named.name_hash, named.object_name.encode())
        place = int.from_bytes(hashlib.sha256(text).digest()[:8]) / _SPACE
        return self.first <= place < self.end


ALL = Share(0.0, 1.0)
