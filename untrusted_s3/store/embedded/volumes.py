"""The embedded server's volumes after a power cut.

SeaweedFS keeps data in volumes: a file `.dat` of records, and a file `.idx` that says where they are. After a power cut
the end of either may be missing or damaged. SeaweedFS refuses a volume whose index has a partial entry, and a reader of
a record that is not whole waits. So before the server starts, such a volume is cut behind its last whole record, and
`weed fix` makes its index from the records. What is cut off and the old index are kept in `repaired/`.

The format: weed/storage/needle/needle_read.go and weed/storage/idx of SeaweedFS v4.48.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import crc32c

from untrusted_s3.errors import StoreError

REPAIRED: Final = "repaired"
_VERSION: Final = 3  # of the format of a volume
_SUPER_BLOCK: Final = 8
_EXTRA_SIZE = struct.Struct(">6xH")
_HEADER = struct.Struct(">IQI")  # cookie, id, size of the body
_DATA_SIZE = struct.Struct(">I")
_CHECKSUM = struct.Struct(">I")
_AFTER_BODY: Final = 4 + 8  # CRC-32C and time
_ALIGNMENT: Final = 8
_DELETED: Final = 0xFFFFFFFF  # as a size in the index: the record deletes an older one and has no body
_OFFSET_SIZES: Final = (4, 5)
_FIX_TIMEOUT: Final = 3600.0


@dataclass(frozen=True, slots=True)
class RepairedVolume:
    """A volume that was not whole.

    Attributes:
        name: Its file name without an extension.
        cut: How many bytes at the end were no whole record.
        kept: Where they and the old index are.
    """

    name: str
    cut: int
    kept: Path


@dataclass(frozen=True, slots=True)
class _Record:
    offset: int
    size: int

    @property
    def end(self) -> int:
        length = _HEADER.size + self.size + _AFTER_BODY
        return self.offset + length + _ALIGNMENT - length % _ALIGNMENT  # at least one byte of padding


def repair_volumes(weed: Path, directory: Path) -> list[RepairedVolume]:
    """Repair the volumes in an embedded store's directory that are not whole; no server may run.

    `weed` is the server program. Healthy volumes are not touched, and only their ends are read. Raises OSError, or
    StoreError if a volume cannot be repaired.
    """
    volumes = directory / "volumes"
    return [
        _repair(weed, data, directory / REPAIRED / time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()))
        for data in sorted(volumes.glob("*.dat"))
        if not _is_whole(data)
    ]


def _is_whole(data: Path) -> bool:
    """Whether the index agrees with the end of the data. True for a volume of an unknown format as well."""
    with data.open("rb") as file:
        start = _start_of_records(file)
        if start is None:
            return True
        size = file.seek(0, os.SEEK_END)
        try:
            index = data.with_suffix(".idx").read_bytes()
        except FileNotFoundError:
            return size <= start
        offset_size = _offset_size(data.with_suffix(".vif"))
        if not index:
            return size <= start
        if offset_size is None or len(index) % (_HEADER.size - 4 + offset_size):
            return False
        key, last = _last_record(index, offset_size)
        return last.end == size and _header(file, last.offset) == (key, last.size)


def _start_of_records(file: BinaryIO) -> int | None:
    """Return where the first record begins, or None if this program does not know the volume's format."""
    block = file.read(_SUPER_BLOCK)
    if len(block) < _SUPER_BLOCK or block[0] != _VERSION:
        return None
    return _SUPER_BLOCK + int(_EXTRA_SIZE.unpack(block)[0])


def _offset_size(info: Path) -> int | None:
    """Return how many bytes an offset has in the index: 4 or 5, as the server program was built; None if not known."""
    try:
        found: Any = json.loads(info.read_bytes())["bytesOffset"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found in _OFFSET_SIZES else None


def _last_record(index: bytes, offset_size: int) -> tuple[int, _Record]:
    """Return the id and the record of the index entry that is farthest back in the data."""
    width = 8 + offset_size + 4
    best, at = -1, 0
    for position in range(len(index) - width, -1, -width):
        offset = _offset(index[position + 8 : position + 8 + offset_size])
        if offset > best:
            best, at = offset, position
    (key,), (size,) = struct.unpack_from(">Q", index, at), struct.unpack_from(">I", index, at + width - 4)
    return key, _Record(best, 0 if size == _DELETED else size)


def _offset(stored: bytes) -> int:
    """Read an offset of the index: four bytes, and a fifth one that is the highest; in units of eight bytes."""
    return int.from_bytes(stored[4:] + stored[:4]) * _ALIGNMENT


def _header(file: BinaryIO, offset: int) -> tuple[int, int] | None:
    """Return the id and the size of the record at an offset, or None if the file ends there."""
    file.seek(offset)
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return None
    _, key, size = _HEADER.unpack(header)
    return key, size


def _records(file: BinaryIO, start: int, end: int) -> Iterator[_Record]:
    """Yield the records that lie one behind the other, as far as their headers make sense."""
    offset = start
    while (found := _header(file, offset)) is not None:
        key, size = found
        record = _Record(offset, size)
        if key == 0 or record.end > end:
            return
        yield record
        offset = record.end


def _has_its_data(file: BinaryIO, record: _Record) -> bool:
    """Whether the data in a record has the checksum that follows it."""
    if record.size == 0:
        return True
    file.seek(record.offset + _HEADER.size)
    body = file.read(record.size + _AFTER_BODY)
    (data_size,) = _DATA_SIZE.unpack_from(body)
    if _DATA_SIZE.size + data_size > record.size:
        return False
    (checksum,) = _CHECKSUM.unpack_from(body, record.size)
    return bool(crc32c.crc32c(body[_DATA_SIZE.size : _DATA_SIZE.size + data_size]) == checksum)


def _end_of_whole_records(file: BinaryIO, start: int, end: int) -> int:
    records = list(_records(file, start, end))
    while records and not _has_its_data(file, records[-1]):
        records.pop()
    return records[-1].end if records else start


def _repair(weed: Path, data: Path, kept: Path) -> RepairedVolume:
    kept.mkdir(mode=0o700, parents=True, exist_ok=True)
    index = data.with_suffix(".idx")
    with data.open("r+b") as file:
        start = _start_of_records(file)
        size = file.seek(0, os.SEEK_END)
        end = size if start is None else _end_of_whole_records(file, start, size)
        if end < size:
            file.seek(end)
            with (kept / f"{data.stem}.{end}").open("wb") as tail:
                shutil.copyfileobj(file, tail)
                tail.flush()
                os.fsync(tail.fileno())
            file.truncate(end)
            os.fsync(file.fileno())
    with contextlib.suppress(FileNotFoundError):
        shutil.copy2(index, kept / index.name)
    with contextlib.suppress(FileNotFoundError):
        data.with_suffix(".sdx").unlink()  # made from the old index
    _fix_index(weed, data)
    return RepairedVolume(data.stem, size - end, kept)


def _fix_index(weed: Path, data: Path) -> None:
    collection, _, number = data.stem.rpartition("_")
    command = [str(weed), "-logtostderr=true", "fix", f"-volumeId={number}"]
    command += [f"-collection={collection}"] if collection else []
    try:
        done = subprocess.run(
            [*command, str(data.parent)],
            cwd=data.parent,
            env={"PATH": os.defpath, "HOME": str(data.parent)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_FIX_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StoreError(f"weed fix did not repair the volume {data.stem} within an hour") from None
    if done.returncode != 0 or not _is_whole(data):
        output = "\n".join((done.stdout + done.stderr).splitlines()[-3:])
        raise StoreError(f"weed fix cannot repair the volume {data.stem}: {output or 'it ended without a word'}")
