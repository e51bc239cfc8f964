"""Entries and confirmations as messages of a segment (docs/format.md, "Segments")."""

from __future__ import annotations

from collections.abc import Iterable

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index import segment_pb2 as pb
from untrusted_s3.index.entry import (
    MAX_SEQUENCE,
    MAX_TIME_MS,
    Confirmation,
    DeclinedVersion,
    Dissent,
    Entry,
    EntryClaims,
    read_entry,
)
from untrusted_s3.index.row import VersionKey


def encode_entry(entry: Entry) -> pb.Entry:
    """Return the message of an entry."""
    message = pb.Entry(file_info=entry.file_info.raw)
    if entry.source is not None:
        message.source = entry.source.raw
    if entry.stored is not None:
        message.content_hash = entry.stored.object_name
        message.object_size = entry.stored.size
        message.part_size = entry.stored.part_size
        message.part_crc32c.extend(entry.stored.part_crc32c)
    if entry.claims is not None:
        message.claims.CopyFrom(_encode_claims(entry.claims))
    return message


def _encode_claims(claims: EntryClaims) -> pb.Claims:
    return pb.Claims(
        claimed_by=[device_id.raw for device_id in claims.claimed_by],
        dissents=[
            pb.Dissent(
                version=encode_entry(dissent.entry), claimed_by=[device_id.raw for device_id in dissent.claimed_by]
            )
            for dissent in claims.dissents
        ],
        declined=[
            pb.Declined(
                device_id=one.device_id.raw,
                version=one.version,
                time_ms=one.time_ms,
                times=one.times,
                shown_again=one.shown_again,
            )
            for one in claims.declined
        ],
    )


def read_message(entry: pb.Entry) -> Entry:
    """Read and check the message of an entry. Raises ValueError."""
    found = read_entry(
        entry.file_info, entry.content_hash, entry.object_size, entry.part_size, entry.part_crc32c, entry.source
    )
    return _with_claims(found, entry.claims) if entry.HasField("claims") else found


def _with_claims(entry: Entry, message: pb.Claims) -> Entry:
    name = entry.file_info.name
    claimed_by = _devices(message.claimed_by)
    dissents = tuple(_read_dissent(name, dissent) for dissent in message.dissents)
    claiming = [*claimed_by, *(device_id for dissent in dissents for device_id in dissent.claimed_by)]
    if len(set(claiming)) != len(claiming):
        raise ValueError(f"a device claims two versions of {name!r}")
    versions = {VersionKey.of_entry(one) for one in (entry, *(dissent.entry for dissent in dissents))}
    if len(versions) != 1 + len(dissents):
        raise ValueError(f"a version of {name!r} is there twice")
    declined = tuple(_read_declined(len(dissents), one) for one in message.declined)
    if len({(one.device_id, one.version) for one in declined}) != len(declined):
        raise ValueError(f"a device has declined a version of {name!r} twice")
    return Entry(entry.file_info, entry.stored, entry.source, EntryClaims(claimed_by, dissents, declined))


def _devices(raw: Iterable[bytes]) -> tuple[DeviceID, ...]:
    return tuple(map(DeviceID, raw))


def _read_dissent(name: str, message: pb.Dissent) -> Dissent:
    if message.version.HasField("claims"):
        raise ValueError(f"a dissent of {name!r} has claims of its own")
    entry = read_message(message.version)
    if entry.file_info.name != name:
        raise ValueError(f"a dissent of {name!r} has the name {entry.file_info.name!r}")
    if not message.claimed_by:
        raise ValueError(f"nobody claims a dissent of {name!r}")
    return Dissent(entry, _devices(message.claimed_by))


def _read_declined(dissents: int, message: pb.Declined) -> DeclinedVersion:
    if message.version > dissents:
        raise ValueError(f"there is no dissent {message.version} to decline")
    if not 0 <= message.time_ms <= MAX_TIME_MS:
        raise ValueError(f"the time at which a version was declined is out of range: {message.time_ms} ms")
    if not message.times:
        raise ValueError("a version was declined no times")
    device_id = DeviceID(message.device_id)
    return DeclinedVersion(device_id, message.version, message.time_ms, message.times, message.shown_again)


def encode_confirmation(confirmation: Confirmation) -> pb.Confirmation:
    """Return the message of a confirmation."""
    message = pb.Confirmation(device_id=confirmation.device_id.raw)
    end = 0
    for sequences in confirmation.sequences:
        message.ranges.extend((sequences.start - end, len(sequences)))
        end = sequences.stop
    return message


def read_confirmation(message: pb.Confirmation) -> Confirmation:
    """Read and check the message of a confirmation. Raises ValueError."""
    if not message.ranges or len(message.ranges) % 2:
        raise ValueError("a confirmation has no sequence numbers, or half a range of them")
    sequences = []
    end = 0
    for passed, count in zip(message.ranges[::2], message.ranges[1::2], strict=True):
        start = end + passed
        end = start + count
        if not passed or not count or end > MAX_SEQUENCE:
            raise ValueError(f"a confirmation has sequence numbers out of range: {start} to {end - 1}")
        sequences.append(range(start, end))
    return Confirmation(DeviceID(message.device_id), tuple(sequences))
