"""A folder with files that several devices have changed at the same time."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from tests.file_infos import device
from tests.vault.stored_folder import Change, StoredFolder
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.entry import Dissent, Entry, EntryClaims

A, B, C = device(11), device(12), device(13)
TIME = 1_700_000_000  # 2023-11-14 22:13:20


def short(device_id: DeviceID) -> int:
    """Return a device's number in vectors."""
    return int.from_bytes(device_id.raw[:8], "big")


def made_by(device_id: DeviceID, modified_s: int, **counters: int) -> Change:
    """Return what makes a file info the version of a device, with counters of the devices A, B and C."""

    def change(real: pb.FileInfo) -> None:
        devices = {"a": A, "b": B, "c": C}
        numbers = sorted((short(devices[name]), value) for name, value in counters.items())
        real.version.CopyFrom(pb.Vector(counters=[pb.Counter(id=number, value=value) for number, value in numbers]))
        real.modified_s, real.modified_ns, real.modified_by = modified_s, 0, short(device_id)
        hashes = b"".join(block.hash for block in real.blocks)
        real.blocks_hash = hashlib.sha256(hashes).digest() if hashes else b""

    return change


def disputed(current: Entry, *dissents: Entry) -> Entry:
    """Return the entry of a name with dissents, each claimed by a device of its own."""
    others = tuple(Dissent(entry, (device(20 + number),)) for number, entry in enumerate(dissents))
    return replace(current, claims=EntryClaims((device(19),), others))


async def fill(stored: StoredFolder) -> None:
    """Fill a folder.

    - `docs/report.txt`: the current version is B's, and that of A wins.
    - `gone.txt`: a deletion wins over an edit of A.
    - `back.txt`: an edit of A, newer, wins over the current version, a deletion.
    - `old.txt`: a device that is away still has an older version.
    - `plain.txt`: nobody else has another version.
    """
    report = [
        await stored.file("docs/report.txt", b"of B", change_real=made_by(B, TIME + 1, a=5, b=9)),
        await stored.file("docs/report.txt", b"of A, newer", change_real=made_by(A, TIME + 2, a=7)),
    ]
    gone = [
        stored.deleted("gone.txt", change_real=made_by(B, TIME + 9, a=5, b=9)),
        await stored.file("gone.txt", b"edit of A", change_real=made_by(A, TIME, a=6)),
    ]
    back = [
        stored.deleted("back.txt", change_real=made_by(B, TIME, a=5, b=9)),
        await stored.file("back.txt", b"is back", change_real=made_by(A, TIME + 9, a=6)),
    ]
    old = [
        await stored.file("old.txt", b"new", change_real=made_by(A, TIME, a=6)),
        await stored.file("old.txt", b"old", change_real=made_by(A, TIME + 9, a=5)),
    ]
    await stored.append(
        stored.directory("docs"),
        await stored.file("plain.txt", b"plain"),
        *(disputed(*versions) for versions in (report, gone, back, old)),
    )


REPORT_COPY = f"docs/report.sync-conflict-20231114-221321-{B.short}.txt"
GONE_COPY = f"gone.sync-conflict-20231114-221320-{A.short}.txt"
