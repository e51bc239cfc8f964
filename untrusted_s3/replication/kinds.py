"""What a copy of a store has of each kind of key (docs/format.md, "Keys")."""

from __future__ import annotations

from enum import Enum
from typing import Final

from untrusted_s3.store import layout
from untrusted_s3.store.layout import FolderKeys


class Kept(Enum):
    """How the copy follows the store.

    Attributes:
        ADDED: What the copy lacks is copied. Nothing of it changes, and nothing is deleted.
        MIRRORED: The copy has what the store has, and nothing else.
        TRIMMED: What the copy lacks is copied, if it is whole; what the store has deleted is deleted.
        NAMED: Objects that the log or a state names are copied. None is deleted.
        LEFT_OUT: It is about the store itself, and means nothing in a copy.
    """

    ADDED = "added"
    MIRRORED = "mirrored"
    TRIMMED = "trimmed"
    NAMED = "named"
    LEFT_OUT = "left out"


OF_STORE: Final = {
    layout.STORE: Kept.ADDED,
    layout.IDENTITIES: Kept.ADDED,
    layout.PEERS: Kept.MIRRORED,
    layout.QUOTAS: Kept.MIRRORED,
    layout.RETENTION: Kept.MIRRORED,
    layout.HISTORY: Kept.MIRRORED,
    layout.FOLDERS: Kept.ADDED,
    layout.NODES: Kept.LEFT_OUT,  # which gateways run on the store
    layout.USAGE: Kept.LEFT_OUT,  # what they ask of it
    layout.PROBES: Kept.LEFT_OUT,
}


def of_folder(keys: FolderKeys) -> dict[str, Kept]:
    """Return how the copy follows what is below a folder."""
    return {
        keys.record: Kept.ADDED,
        keys.objects: Kept.NAMED,
        keys.checkpoints: Kept.TRIMMED,
        keys.segments: Kept.TRIMMED,
        keys.kept: Kept.TRIMMED,
        keys.retention: Kept.MIRRORED,
        keys.history: Kept.MIRRORED,
        keys.losses: Kept.MIRRORED,
        keys.present_objects: Kept.MIRRORED,
        keys.damaged_segments: Kept.ADDED,
        keys.garbage: Kept.LEFT_OUT,  # what the store is about to delete
        keys.scrub: Kept.LEFT_OUT,  # how far the store's objects are read
    }
