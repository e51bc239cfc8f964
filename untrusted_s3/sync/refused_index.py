"""Devices that cannot decrypt our index.

A trusted device closes the connection when an entry of an index does not decrypt, with all its folders and each time
that it connects (v2.1.3 lib/protocol/protocol.go, dispatcherLoop; lib/protocol/encryption.go, DecryptFileInfo). Its
Close says so. The entry was made by somebody without the key; who that was is in the log.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from untrusted_s3.bep.device_id import DeviceID

_HANDLING = re.compile(r"handling index(?:-update)? for ")
_NOT_DECRYPTED = re.compile(r"authentication failed|base32|data too short|invalid encrypted path|\bproto: ")


@dataclass(frozen=True, slots=True)
class Suspect:
    """A device whose entries a peer was sent when it could not decrypt one.

    Attributes:
        device_id: The device.
        entries: How many of these entries are from it.
        trusted: Whether it encrypts for us, as far as is known.
    """

    device_id: DeviceID
    entries: int
    trusted: bool


@dataclass(frozen=True, slots=True)
class RefusedIndex:
    """That a peer cannot decrypt our index of a folder.

    Attributes:
        reason: What it said.
        suspects: Where the entries that it was sent are from: untrusted devices first, then by number.
    """

    reason: str
    suspects: tuple[Suspect, ...]


def is_refusal(reason: str, folder_id: str) -> bool:
    """Return whether the reason of a Close says that our index of the folder does not decrypt."""
    start = _HANDLING.match(reason)
    if start is None or not reason.startswith(f"{folder_id}: ", start.end()):
        return False
    return _NOT_DECRYPTED.search(reason, start.end() + len(folder_id)) is not None


def suspects(sources: Iterable[tuple[DeviceID | None, bool]]) -> tuple[Suspect, ...]:
    """Return the devices among the sources of entries; each source says whether the device is trusted."""
    counted = Counter((source, trusted) for source, trusted in sources if source is not None)
    found = [Suspect(device_id, entries, trusted) for (device_id, trusted), entries in counted.items()]
    return tuple(sorted(found, key=lambda suspect: (suspect.trusted, -suspect.entries, suspect.device_id)))
