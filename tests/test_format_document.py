"""A reader that is written from docs/format.md alone reads what this program has written.

The reader uses nothing of the program. It stops where folders' encryption begins.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import crc32c
import pytest

from tests.file_infos import device
from tests.samples.bucket import sample_bucket
from tests.simulated import SimulatedBucket
from tests.vault.stored_folder import BLOCK_SIZE, FOLDER_ID, StoredFolder, random_bytes
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.index.entry import Confirmation, DeclinedVersion, Dissent, Entry, EntryClaims, PeerCursor, Removal
from untrusted_s3.index.segment import Segment, encode_segment
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.layout import name_key
from untrusted_s3.units import KIB, MIB

MAGICS = {1: b"US3SEG\x00\x01", 2: b"US3SEG\x00\x02"}
STATE_VERSIONS = {1: 2, 2: 4}


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a serialized protobuf message."""
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while position < len(message):
        tag = varint()
        if tag & 7 == 0:
            yield tag >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(tag & 7) or varint()
        yield tag >> 3, message[position : position + size]
        position += size


def one(message: bytes, number: int, default: int | bytes = 0) -> int | bytes:
    """A field that occurs once; of several, the last one counts."""
    return dict(fields(message)).get(number, default)


def number_in(message: bytes, number: int) -> int:
    value = one(message, number)
    assert isinstance(value, int)
    return value


def bytes_in(message: bytes, number: int) -> bytes:
    value = one(message, number, b"")
    assert isinstance(value, bytes)
    return value


def numbers_in(message: bytes, number: int) -> list[int]:
    """The numbers of a packed field of varints."""
    packed, found, shift, value = bytes_in(message, number), [], 0, 0
    for byte in packed:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            found.append(value)
            shift = value = 0
    return found


def all_in(message: bytes, number: int) -> list[bytes]:
    return [value for field, value in fields(message) if field == number and isinstance(value, bytes)]


def counter_of(version: bytes) -> int:
    """The value of the one counter of a version."""
    (counter,) = all_in(version, 1)
    return number_in(counter, 2)


def same_version(file_info: bytes, object_name: str) -> tuple[int, int, int, str]:
    """What is equal of two announcements of the same version."""
    counters = sum(number_in(counter, 2) for counter in all_in(bytes_in(file_info, 9), 1))
    return counters, number_in(file_info, 2), number_in(file_info, 6), object_name[:32]


def checked(data: bytes) -> bytes:
    """The bytes before a CRC-32C."""
    assert crc32c.crc32c(data[:-4]) == int.from_bytes(data[-4:], "big")
    return data[:-4]


@dataclass(frozen=True)
class Found:
    """What a folder has under an encrypted name."""

    sequence: int
    file_info: bytes
    object_name: str
    object_size: int
    part_size: int
    checksums: tuple[int, ...]
    source: bytes


@dataclass
class Known:
    """Who claims what of a name. A version is told by its file info."""

    claimed: set[bytes]
    by_source: bool
    dissents: dict[bytes, tuple[str, bytes, set[bytes]]]
    declined: dict[tuple[bytes, bytes], tuple[int, int, int]]


class Reader:
    """One folder in the objects of a bucket, by their keys."""

    def __init__(self, objects: Mapping[str, bytes], folder_id: str) -> None:
        store = json.loads(objects["store.json"])
        assert store["format"] == "untrusted_s3"
        assert store["version"] in (1, 2)
        plain = re.fullmatch(r"[0-9A-Za-z-][0-9A-Za-z._-]{0,63}", folder_id)
        segment = folder_id if plain else "_" + hashlib.sha256(folder_id.encode()).hexdigest()[:32]
        self.objects = objects
        self.base = f"folders/{segment}/"
        self.record = json.loads(objects[f"{self.base}folder.json"])
        assert self.record["id"] == folder_id
        assert not self.record.get("removed")
        self.files: dict[str, Found] = {}
        self.missing: dict[str, tuple[str, bytes]] = {}
        self.condemned: set[tuple[bytes, str]] = set()
        self.claims: dict[str, Known] = {}
        self.indexes: dict[bytes, int] = {}
        self.numbers: dict[bytes, int] = {}
        self.index_id = int(self.record["index_id"], 16)
        self.position = self.sequence = 0

    def read(self, scratch: Path, *, use_checkpoints: bool = True) -> None:
        checkpoints = sorted(key for key in self.objects if key.startswith(f"{self.base}checkpoints/"))
        if checkpoints and use_checkpoints:
            self.load(checkpoints[-1], scratch)
        while (segment := self.objects.get(f"{self.base}log/{self.position + 1:020d}")) is not None:
            self.position += 1
            if segment:
                (version,) = (number for number, magic in MAGICS.items() if segment.startswith(magic))
                self.apply(checked(segment)[8:], version)

    def load(self, key: str, scratch: Path) -> None:
        database = checked(self.objects[key])
        assert len(database) % 512 == 0
        scratch.write_bytes(database)
        connection = sqlite3.connect(scratch)
        (state_version,) = connection.execute("PRAGMA user_version").fetchone()
        assert state_version in STATE_VERSIONS.values()
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        self.position, self.sequence = meta["position"], meta["sequence"]
        devices: dict[int | None, bytes] = {None: b""}
        if state_version == STATE_VERSIONS[2]:
            self.index_id = meta["index_id"] or self.index_id
            devices.update(connection.execute("SELECT number, device_id FROM devices"))
            rows = connection.execute("SELECT name, object_name, version FROM missing")
            self.missing = {name: (object_name, version) for name, object_name, version in rows}
            self.condemned = set(connection.execute("SELECT name_hash, object_name FROM condemned"))
            assert meta["missing"] == len(self.missing)
        assert self.position == int(key.rpartition("/")[2])
        totals = {"files": 0, "directories": 0, "deleted": 0, "bytes": 0}
        rows = connection.execute(
            "SELECT sequence, name_hash, kind, size, content_hash, object_size, part_size, part_crc32c, file_info,"
            f" {'source' if state_version == STATE_VERSIONS[2] else 'NULL'} FROM files ORDER BY sequence"
        )
        for sequence, name_hash, kind, size, object_name, object_size, part_size, checksums, file_info, source in rows:
            name = bytes_in(file_info, 1).decode()
            assert name_hash == hashlib.sha256(name.encode()).digest()[:16]
            words = [checksums[start : start + 4] for start in range(0, len(checksums or b""), 4)]
            numbers = tuple(int.from_bytes(word, "big") for word in words)
            self.files[name] = Found(
                sequence, file_info, object_name or "", object_size or 0, part_size or 0, numbers, devices[source]
            )
            totals[("files", "directories", "deleted")[kind]] += 1
            totals["bytes"] += size
        if state_version == STATE_VERSIONS[2]:
            self.load_claims(connection, devices, meta["disputed"])
        else:
            cursors = connection.execute("SELECT device_id, index_id FROM cursors ORDER BY device_id")
            self.indexes = {device_id: int(index_id) for device_id, index_id in cursors}
            self.numbers = {device_id: number for number, device_id in enumerate(self.indexes, 1)}
            self.claims = {name: Known(set(), True, {}, {}) for name in self.files}
        connection.close()
        assert totals == {name: meta[name] for name in totals}

    def load_claims(self, connection: sqlite3.Connection, devices: dict[int | None, bytes], disputed: int) -> None:
        known = connection.execute("SELECT number, device_id, index_id, void_until FROM devices").fetchall()
        self.numbers = {device_id: number for number, device_id, _, _ in known}
        self.indexes = {device_id: int(index_id) for _, device_id, index_id, _ in known if index_id is not None}
        void_until = {device_id: sequence for _, device_id, _, sequence in known} | {b"": self.sequence}
        bitmaps = dict(connection.execute("SELECT sequence, devices FROM claims"))
        names = {found.sequence: name for name, found in self.files.items()}
        for name, found in self.files.items():
            bits = bitmaps.get(found.sequence)
            if bits is None:
                claimed = {found.source} if found.sequence > void_until[found.source] else set()
            else:
                claimed = {
                    device_id for device_id, number in self.numbers.items() if number <= 62 and bits >> number - 1 & 1
                }
            self.claims[name] = Known(claimed, bits is None, {}, {})
        versions = {(sequence, 0): self.files[name].file_info for sequence, name in names.items()}
        for sequence, number, numbers, source, object_name, file_info in connection.execute(
            "SELECT sequence, number, claimed, source, content_hash, file_info FROM dissents ORDER BY sequence, number"
        ):
            versions[sequence, number] = file_info
            words = [int.from_bytes(numbers[start : start + 4], "big") for start in range(0, len(numbers), 4)]
            claiming = {devices[word] for word in words}
            self.claims[names[sequence]].dissents[file_info] = object_name or "", devices[source], claiming
        for sequence, number, place, *noted in connection.execute(
            "SELECT sequence, device, number, time_ms, times, shown_again FROM declined"
        ):
            self.claims[names[sequence]].declined[devices[number], versions[sequence, place]] = tuple(noted)
        assert disputed == sum(bool(known.dissents) for known in self.claims.values())

    def apply(self, segment: bytes, version: int) -> None:
        assert number_in(segment, 4) == self.sequence + 1
        for renewal in all_in(segment, 7):
            assert version == 2
            self.renew(renewal)
        for cursor in all_in(segment, 6):
            device_id, index_id = bytes_in(cursor, 1), number_in(cursor, 2)
            self.number(device_id)
            if self.indexes.get(device_id, index_id) != index_id:
                for known in self.claims.values():
                    known.claimed.discard(device_id)
                    self.end(known, device_id)
            self.indexes[device_id] = index_id
        for confirmation in all_in(segment, 9):
            self.confirm(bytes_in(confirmation, 1), numbers_in(confirmation, 2))
        for entry in all_in(segment, 5):
            self.sequence += 1
            file_info = bytes_in(entry, 1)
            packed = bytes_in(entry, 5)
            numbers = tuple(int.from_bytes(packed[start : start + 4], "little") for start in range(0, len(packed), 4))
            name = bytes_in(file_info, 1).decode()
            if name in self.missing and counter_of(self.missing[name][1]) <= counter_of(bytes_in(file_info, 9)):
                del self.missing[name]
            before = [(self.files[name], self.claims[name])] if name in self.files else []
            self.files[name] = Found(
                self.sequence,
                file_info,
                bytes_in(entry, 2).decode(),
                number_in(entry, 3),
                number_in(entry, 4),
                numbers,
                bytes_in(entry, 6),
            )
            self.claim(name, entry)
            if not all_in(entry, 7) and not all_in(segment, 7):
                for found, claimed in before:
                    self.leave_others(name, found, claimed)

    def number(self, device_id: bytes) -> int:
        return self.numbers.setdefault(device_id, len(self.numbers) + 1)

    def claim(self, name: str, entry: bytes) -> None:
        source = bytes_in(entry, 6)
        if source:
            self.number(source)
        known = self.claims[name] = Known({source} - {b""}, True, {}, {})
        for claims in all_in(entry, 7):
            known.by_source = False
            known.claimed = {one for one in all_in(claims, 1) if self.number(one) <= 62}
            versions = [bytes_in(entry, 1)]
            for dissent in all_in(claims, 2):
                version, claiming = bytes_in(dissent, 1), all_in(dissent, 2)
                for one in (bytes_in(version, 6), *claiming):
                    if one:
                        self.number(one)
                versions.append(bytes_in(version, 1))
                known.dissents[versions[-1]] = bytes_in(version, 2).decode(), bytes_in(version, 6), set(claiming)
            for declined in all_in(claims, 3):
                device_id = bytes_in(declined, 1)
                self.number(device_id)
                noted = number_in(declined, 3), number_in(declined, 4), number_in(declined, 5)
                known.declined[device_id, versions[number_in(declined, 2)]] = noted

    def leave_others(self, name: str, found: Found, before: Known) -> None:
        """An entry without claims leaves what other devices than its source claim."""
        now, known = self.files[name], self.claims[name]
        versions = {found.file_info: (found.object_name, found.source, before.claimed)} | before.dissents
        others = {
            file_info: (object_name, source, claiming - {now.source})
            for file_info, (object_name, source, claiming) in versions.items()
        }
        if not any(claiming for _, _, claiming in others.values()):
            return
        known.by_source = False
        names = {}
        for file_info, (object_name, source, claiming) in others.items():
            if same_version(file_info, object_name) == same_version(now.file_info, now.object_name):
                known.claimed |= claiming
                names[file_info] = now.file_info
            elif claiming:
                known.dissents[file_info] = object_name, source, claiming
                names[file_info] = file_info
        known.claimed = {one for one in known.claimed if self.numbers[one] <= 62}
        known.declined = {
            (device_id, names[file_info]): noted
            for (device_id, file_info), noted in before.declined.items()
            if device_id != now.source and file_info in names
        }

    def confirm(self, device_id: bytes, numbers: list[int]) -> None:
        number, end = self.number(device_id), 0
        confirmed: set[int] = set()
        for passed_over, following in zip(numbers[::2], numbers[1::2], strict=True):
            confirmed.update(range(end + passed_over, end + passed_over + following))
            end += passed_over + following
        for name, known in self.claims.items():
            if self.files[name].sequence not in confirmed:
                continue
            if number <= 62:
                if known.by_source:
                    known.claimed = {one for one in known.claimed if self.numbers[one] <= 62}
                known.by_source = False
                known.claimed.add(device_id)
            self.end(known, device_id)

    def end(self, known: Known, device_id: bytes) -> None:
        """The device's claims to dissents end, and what it has declined."""
        for file_info, (_, _, claiming) in list(known.dissents.items()):
            claiming.discard(device_id)
            if not claiming:
                del known.dissents[file_info]
                known.declined = {place: noted for place, noted in known.declined.items() if place[1] != file_info}
        known.declined = {place: noted for place, noted in known.declined.items() if place[0] != device_id}

    def shown(self, name: str, device_id: bytes) -> bytes:
        """The file info of the version that a device is shown."""
        known, current = self.claims[name], self.files[name].file_info
        claims = dict.fromkeys(known.claimed, current)
        for file_info, (_, _, claiming) in known.dissents.items():
            claims |= dict.fromkeys(claiming, file_info)
        for version in (current, *known.dissents):
            noted = known.declined.get((device_id, version))
            if claims.get(device_id) == version or (noted is not None and not noted[2]):
                continue
            others = [one for one, claimed in claims.items() if claimed == version]
            if version == current or any((one, current) in known.declined for one in others):
                return version
        return claims.get(device_id, current)

    def renew(self, renewal: bytes) -> None:
        self.index_id = int.from_bytes(bytes_in(renewal, 1), "little")
        names = {hashlib.sha256(name.encode()).digest()[:16]: name for name in [*self.files, *self.missing]}
        for removal in all_in(renewal, 2):
            name_hash, object_name = bytes_in(removal, 1), bytes_in(removal, 2).decode()
            name = names.get(name_hash)
            before = self.files.pop(name, None) if name is not None else None
            self.claims.pop(name or "", None)
            if not object_name:
                self.missing.pop(name or "", None)
                continue
            self.condemned.add((name_hash, object_name))
            missed, version = bytes_in(removal, 3).decode(), bytes_in(removal, 4)
            if not missed and name is not None and before is not None:
                missed, version = name, bytes_in(before.file_info, 9)
            if missed and counter_of(version) >= counter_of(self.missing.get(missed, ("", version))[1]):
                self.missing[missed] = object_name, version

    def encrypted_blocks(self, name: str) -> list[bytes]:
        """The blocks of a file, after everything that the page says of its object was checked."""
        found = self.files[name]
        hashed = hashlib.sha256(name.encode()).hexdigest()[:32]
        body = self.objects[f"{self.base}objects/{hashed[:2]}/{hashed}/{found.object_name}"]
        size = number_in(found.file_info, 3)
        self.check_object(body, found, size)
        blocks: list[bytes] = []
        digest = hashlib.sha256()
        for block in all_in(found.file_info, 16):
            offset, length, token = number_in(block, 1), number_in(block, 2), bytes_in(block, 3)
            assert offset == sum(map(len, blocks))
            blocks.append(body[offset : offset + length])
            digest.update(length.to_bytes(8, "big") + len(token).to_bytes(2, "big") + token)
        assert sum(map(len, blocks)) == size
        assert found.object_name.partition("-")[0] == digest.hexdigest()[:32]
        return blocks

    def check_object(self, body: bytes, found: Found, size: int) -> None:
        assert len(body) == found.object_size
        trailer = body[size:]
        assert int.from_bytes(trailer[-4:], "big") == len(trailer) - 4
        assert bytes_in(trailer[:-4], 1) == bytes_in(found.file_info, 1)
        part_size = 0
        if size > 8 * MIB:
            first = number_in(all_in(found.file_info, 16)[0], 2)
            part_size = -(-8 * MIB // first) * first
            while part_size * 9000 < size:
                part_size *= 2
        assert found.part_size == part_size
        step = part_size or len(body)
        parts = [body[start : start + step] for start in range(0, len(body), step)]
        assert found.checksums == tuple(map(crc32c.crc32c, parts))


CONTENTS = {
    "empty": b"",
    "small": random_bytes(5, 1),
    "of several blocks": random_bytes(300 * KIB, 2),
    "of several parts": random_bytes(9 * MIB, 3),
}


async def claim_some(folder: StoredFolder, *, before: bool) -> None:
    """Append segments with claims, dissents and confirmations."""
    others = [await folder.file("empty", data) for data in (b"another", b"one more")]
    dissents = (Dissent(others[0], (device(3), device(4))), Dissent(others[1], (device(5),)))
    declined = (DeclinedVersion(device(5), 0, 5, 2), DeclinedVersion(device(3), 0, 7, 1, shown_again=True))
    current = folder.state.entry(folder.key.encrypt_name("empty"))
    assert current is not None
    await folder.log.renew(
        lambda _: ((), [dataclasses.replace(current, claims=EntryClaims((device(2),), dissents, declined))])
    )
    await folder.log.append([], [PeerCursor(device(4), 1, 1)])
    # Others than the source claim the version before.
    first, later = (
        [dataclasses.replace(folder.directory(path), source=device(number)) for path in ("moved", "disputed")]
        for number in (2, 3)
    )
    await folder.append(*first)
    last = folder.state.sequence
    await append_segment(folder, [], [Confirmation.of(device(5), [last])])
    await append_segment(folder, [], [Confirmation.of(device(6), [last])], *later)
    await append_segment(folder, [], [], dataclasses.replace(later[0], source=device(2)), later[1])
    if before:
        await folder.log.checkpoint()
    last = folder.state.sequence
    await append_segment(
        folder, [PeerCursor(device(4), 2, 0)], [Confirmation(device(6), (range(2, 5), range(last - 1, last)))]
    )


async def append_segment(
    folder: StoredFolder, cursors: list[PeerCursor], confirmations: list[Confirmation], *entries: Entry
) -> None:
    state = folder.state
    segment = Segment(
        device(1), bytes(16), state.time_ms, state.sequence + 1, entries, tuple(cursors), None, 0, tuple(confirmations)
    )
    await folder.bucket.put(folder.keys.segment(state.position + 1), [encode_segment(segment)])
    await folder.log.refresh()


@pytest.mark.parametrize("checkpoint_before", [True, False], ids=["checkpoint before", "checkpoint after"])
@pytest.mark.parametrize("folder_id", [FOLDER_ID, "a folder/with an awkward ID"])
async def test_a_reader_of_the_page(tmp_path: Path, folder_id: str, checkpoint_before: bool) -> None:
    bucket = SimulatedBucket()
    folder = await StoredFolder(bucket, tmp_path, folder_id).create()
    await folder.append(await folder.file("small", b"replaced later"), folder.directory("directory"))
    await folder.append(*[await folder.file(path, data) for path, data in CONTENTS.items()])
    await folder.log.checkpoint()
    await folder.append(folder.symlink("symlink", "target"), folder.deleted("directory"))
    bucket.store.put(folder.keys.segment(folder.state.position + 1), b"")  # as SeaweedFS leaves it
    await folder.log.refresh()
    await folder.append(await folder.file("later", b"after the checkpoint"))
    await folder.append(dataclasses.replace(await folder.file("lost", b"lost soon"), source=device(2)))
    await folder.append(dataclasses.replace(await folder.file("retracted", b"retracted soon"), source=device(3)))
    await folder.append(dataclasses.replace(await folder.file("small", CONTENTS["small"]), source=device(2)))
    await claim_some(folder, before=checkpoint_before)
    if checkpoint_before:
        await folder.log.checkpoint()
    lost, retracted = folder.key.encrypt_name("lost"), folder.key.encrypt_name("retracted")
    removals = [Removal(name_key(lost), "0" * 32), Removal(name_key(retracted))]
    await folder.log.renew(lambda _: (removals, [folder.directory("in place of it")]))
    if not checkpoint_before:
        await folder.log.checkpoint()

    contents = {**CONTENTS, "later": b"after the checkpoint"}
    objects = {key: bucket.store.body(key) for key in bucket.store.keys("")}
    for use_checkpoints in (True, False):
        reader = Reader(objects, folder_id)
        reader.read(tmp_path / "scratch.sqlite", use_checkpoints=use_checkpoints)
        assert (reader.position, reader.sequence) == (folder.state.position, folder.state.sequence)
        assert {found.sequence: found.file_info for found in reader.files.values()} == dict(
            folder.state.file_infos_after(0, 100)
        )
        assert reader.index_id == folder.state.index_id
        assert {name: object_name for name, (object_name, _) in reader.missing.items()} == {lost: "0" * 32}
        assert reader.condemned == {(name_key(lost), "0" * 32)}
        sources = {sequence: source.raw if source else b"" for sequence, _, source in folder.state.sources()}
        assert {found.sequence: found.source for found in reader.files.values()} == sources
        check_claims(reader, folder.state)
        for path, data in contents.items():
            assert decrypted(folder, path, reader.encrypted_blocks(folder.key.encrypt_name(path)), data) == data
        without = [found for found in reader.files.values() if not found.object_name]
        assert len(without) == 5
        assert [pb.FileInfo.FromString(found.file_info).deleted for found in without].count(True) == 1


def check_claims(reader: Reader, state: FolderState) -> None:
    assert sum(bool(known.dissents) for known in reader.claims.values()) == 2
    for name, known in reader.claims.items():
        row = state.row(name_key(name))
        assert row is not None
        infos = {version: entry.file_info.raw for version, entry in row.entries.items()}
        claims = {device_id.raw: infos[version] for device_id, version in row.claims.claimed.items()}
        found = dict.fromkeys(known.claimed, reader.files[name].file_info)
        for file_info, (_, _, claiming) in known.dissents.items():
            found |= dict.fromkeys(claiming, file_info)
        assert found == claims
        assert list(known.dissents) == list(infos.values())[1:]
        for entry, (object_name, source, _) in zip(
            list(row.entries.values())[1:], known.dissents.values(), strict=True
        ):
            assert object_name == (entry.stored.object_name if entry.stored else "")
            assert source == (entry.source.raw if entry.source else b"")
        for number in range(1, 8):
            shown = row.entries[row.claims.shown(device(number))].file_info.raw
            assert reader.shown(name, device(number).raw) == shown


@pytest.mark.parametrize(
    ("version", "blocks", "count"), [("v1", [1, 2, 1], 7), ("v2", [1, 1, 1], 8)], ids=["version 1", "version 2"]
)
def test_a_reader_of_the_page_and_stored_samples(version: str, blocks: list[int], count: int, tmp_path: Path) -> None:
    objects = sample_bucket(version).objects
    read, missing, claims = {}, {}, {}
    for use_checkpoints in (True, False):
        reader = Reader(objects, "samples")
        reader.read(tmp_path / "scratch.sqlite", use_checkpoints=use_checkpoints)
        read[use_checkpoints] = reader.files
        missing[use_checkpoints] = reader.missing
        claims[use_checkpoints] = reader.claims, reader.indexes
        present = [name for name, found in reader.files.items() if 0 < found.object_size < 8 * MIB]
        assert [len(reader.encrypted_blocks(name)) for name in sorted(present)] == blocks
    assert read[True] == read[False]
    assert len(read[True]) == count
    assert missing[True] == missing[False]
    assert claims[True] == claims[False]


def decrypted(folder: StoredFolder, path: str, blocks: list[bytes], data: bytes) -> bytes:
    pieces = [data[start : start + BLOCK_SIZE] for start in range(0, max(len(data), 1), BLOCK_SIZE)]
    key = folder.key.file_key(path)
    return b"".join(
        key.decrypt_block(block, len(piece), hashlib.sha256(piece).digest())
        for block, piece in zip(blocks, pieces, strict=True)
    )
