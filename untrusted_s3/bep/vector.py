"""Version vectors: which of two versions of a file is newer (BEP specification, "Vector"; Syncthing v2.1.3
lib/protocol/vector.go)."""

from __future__ import annotations

from untrusted_s3.bep import bep_pb2 as pb


def counters(vector: pb.Vector) -> dict[int, int]:
    """Return the counter of each device, by the device's short ID. A counter that is not there is 0."""
    return {counter.id: counter.value for counter in vector.counters}


def total(vector: pb.Vector) -> int:
    """Return the sum of the counters, which rises with every change (Syncthing v2.1.3 lib/protocol/encryption.go)."""
    return sum(counter.value for counter in vector.counters)


def is_newer(candidate: pb.Vector, current: pb.Vector) -> bool:
    """Return whether `candidate` includes all changes of `current` and at least one more.

    Encrypted file infos have one counter with id 1, so no two of their versions are concurrent. Where a peer sends
    concurrent versions, neither is newer.
    """
    ours, theirs = counters(current), counters(candidate)
    if any(theirs.get(device, 0) < value for device, value in ours.items()):
        return False
    return any(value > ours.get(device, 0) for device, value in theirs.items())
