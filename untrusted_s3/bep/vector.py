"""Version vectors: which of two versions of a file is newer (BEP specification, "Vector"; Syncthing v2.1.3
lib/protocol/vector.go)."""

from __future__ import annotations

from untrusted_s3.bep import bep_pb2 as pb


def is_newer(candidate: pb.Vector, current: pb.Vector) -> bool:
    """Return whether `candidate` includes all changes of `current` and at least one more.

    Encrypted file infos have one counter with id 1, so no two of their versions are concurrent. Where a peer sends
    concurrent versions, neither is newer.
    """
    ours = {counter.id: counter.value for counter in current.counters}
    theirs = {counter.id: counter.value for counter in candidate.counters}
    if any(theirs.get(device, 0) < value for device, value in ours.items()):
        return False
    return any(value > ours.get(device, 0) for device, value in theirs.items())
