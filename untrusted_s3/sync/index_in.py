"""Takes a peer's index message into a folder, piece by piece, so that a long one does not hold up other peers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from untrusted_s3 import limits
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.errors import RemoteProtocolError
from untrusted_s3.store.format import MAX_FILE_SIZE
from untrusted_s3.sync.folder import Folder


async def take_index(folder: Folder, device_id: DeviceID, index_id: int, event: IndexReceived) -> None:
    """Notes what of the message is new to the folder as pending; `index_id` names the peer's index.

    All is checked before anything is kept. So what comes in pieces is parsed twice, for parsed file infos are several
    times as large as their bytes, and only one piece of them is in memory.

    Raises RemoteProtocolError or FolderRefused; then nothing was kept.
    """
    pieces = list(_pieces(event.files))
    last_sequence = 0
    infos: list[FileInfo] = []
    for piece in pieces:
        infos = [parse_file_info(raw) for raw in piece]
        for info in infos:
            check_size(info)
            if info.message.sequence <= last_sequence:
                raise RemoteProtocolError("the sequence numbers of an index do not rise")
            last_sequence = info.message.sequence
        if len(pieces) > 1:
            await asyncio.sleep(0)
    if not event.update:
        folder.pending.start(device_id, IndexState(index_id, 0))
    for piece in pieces[:-1]:
        _store(folder, device_id, index_id, [parse_file_info(raw) for raw in piece], 0)
        await asyncio.sleep(0)
    _store(folder, device_id, index_id, infos, event.last_sequence)


def check_size(file_info: FileInfo, max_size: int = MAX_FILE_SIZE) -> None:
    """Check that an object can hold the file. Raises RemoteProtocolError."""
    if file_info.has_data and file_info.message.size > max_size:
        raise RemoteProtocolError(f"{file_info.name}: {file_info.message.size} bytes are more than an object can hold")


def _store(folder: Folder, device_id: DeviceID, index_id: int, infos: list[FileInfo], last_sequence: int) -> None:
    known = folder.pending.received(device_id).max_sequence
    reached = max([known, last_sequence, *(info.message.sequence for info in infos)])
    wanted: list[FileInfo] = []
    unwanted: list[FileInfo] = []
    for info in infos:
        (wanted if not info.message.invalid and folder.state.wants(info) else unwanted).append(info)
    folder.pending.add(device_id, IndexState(index_id, reached), wanted, unwanted)


def _pieces(files: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """The files in order, so many at a time as make nobody wait for long."""
    start = size = 0
    for number, raw in enumerate(files, 1):
        size += len(raw)
        if number - start >= limits.INDEX_PIECE_FILES or size >= limits.INDEX_PIECE_SIZE:
            yield files[start:number]
            start, size = number, 0
    if start < len(files):
        yield files[start:]
