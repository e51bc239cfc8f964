"""Index messages of peers: checking them, and noting as pending what is new to the folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.errors import RemoteProtocolError
from untrusted_s3.index.pending import Announced, PendingIndex
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.format import MAX_FILE_SIZE


class IndexIn:
    """Takes index messages into one folder, piece by piece, so that a long message does not hold up other peers."""

    def __init__(self, state: FolderState, pending: PendingIndex, settings: SyncSettings) -> None:
        self._state = state
        self._pending = pending
        self._settings = settings

    async def take(self, device_id: DeviceID, index_id: int, event: IndexReceived) -> None:
        """Note as pending what of the message is new to the folder. `index_id` names the peer's index.

        All of the message is checked before anything is kept. A message of several pieces is parsed twice, so that only
        one piece of it is in memory in parsed form, which is several times as large as the serialized one.

        Raises RemoteProtocolError or FolderRefused; then nothing was kept.
        """
        pieces = list(self._pieces(event.files))
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
            self._pending.start(device_id, IndexState(index_id, 0))
        for piece in pieces[:-1]:
            self._store(device_id, index_id, [parse_file_info(raw) for raw in piece], 0)
            await asyncio.sleep(0)
        self._store(device_id, index_id, infos, event.last_sequence)

    def _store(self, device_id: DeviceID, index_id: int, infos: list[FileInfo], last_sequence: int) -> None:
        known = self._pending.received(device_id).max_sequence
        reached = max([known, last_sequence, *(info.message.sequence for info in infos)])
        wanted: list[Announced] = []
        unwanted: list[str] = []
        for info in infos:
            if not info.message.invalid and self._state.wants(info):
                wanted.append(Announced(info, content_hash(info) if info.has_data else None))
            else:
                unwanted.append(info.name)
        self._pending.add(device_id, IndexState(index_id, reached), wanted, unwanted)

    def _pieces(self, files: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """Yield the files in order, few enough at a time that other peers do not wait long."""
        start = size = 0
        for number, raw in enumerate(files, 1):
            size += len(raw)
            if number - start >= self._settings.index_piece_files or size >= self._settings.index_piece_size:
                yield files[start:number]
                start, size = number, 0
        if start < len(files):
            yield files[start:]


def check_size(file_info: FileInfo, max_size: int = MAX_FILE_SIZE) -> None:
    """Check that an object can hold the file. Raises RemoteProtocolError."""
    if file_info.has_data and file_info.message.size > max_size:
        raise RemoteProtocolError(f"{file_info.name}: {file_info.message.size} bytes are more than an object can hold")
