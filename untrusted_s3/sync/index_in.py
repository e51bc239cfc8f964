"""Index messages of peers: checking them, and noting as pending what is new to the folder."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import structlog

from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.bep.file_info import FileInfo, check_version, parse_file_info, refusal
from untrusted_s3.errors import FileInfoRefused
from untrusted_s3.index.pending import Announced, PendingIndex, held_size
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.format import MAX_FILE_SIZE
from untrusted_s3.store.layout import name_key
from untrusted_s3.structured_logging import printable
from untrusted_s3.sync.claiming import Claiming, Meaning
from untrusted_s3.threads import LargeWork, in_thread_to_the_end

_logger = structlog.get_logger()
_LOGGED_NAME_LENGTH = 40
# What a device's index must find room for before it goes on, as a part of all room. With the shares of an account, even
# many devices at their limits leave as much.
_RESUMED_PART = 16
_MAX_SEQUENCE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an index message.

    Attributes:
        lowest: The lowest sequence number that is not above all before it, in this message and earlier ones, or None.
            Of an Index, which replaces what was before, it is the lowest of all.
        complete: Whether the whole message was taken.
    """

    lowest: int | None
    complete: bool = True


class IndexIn:
    """Takes index messages into one folder, piece by piece, so that a long message does not hold up other peers."""

    def __init__(
        self, folder_id: str, claiming: Claiming, pending: PendingIndex, settings: SyncSettings, large_work: LargeWork
    ) -> None:
        self._folder_id = folder_id
        self._claiming = claiming
        self._pending = pending
        self._settings = settings
        self._large_work = large_work

    async def take(self, device_id: DeviceID, index_id: int, event: IndexReceived) -> Result:
        """Note as pending what of the message is new to the folder. `index_id` names the peer's index.

        A file info that breaks a rule is left out and noted as refused. Sequence numbers need not rise: Syncthing only
        logs that (v2.1.3 lib/model/indexhandler.go, receive).

        When the device's part of the local disk is full, the rest of the message is dropped. The device's cursor does
        not pass it, and goes back if its sequence numbers have fallen, so that the device sends it again with its next
        connection.

        Where the peer breaks the protocol, nothing of the message is kept. So a long message is parsed twice: only one
        piece of it is in memory in parsed form, which is several times as large as the serialized one.
        Raises RemoteProtocolError or FolderRefused.
        """
        pieces = list(self._pieces(event.files))
        parsed_once = sum(map(len, event.files)) <= self._settings.index_piece_size
        parsed: list[_Taken] = []
        for piece in pieces:
            parsed = [*(parsed if parsed_once else ()), await self._parse(device_id, piece)]
            if len(pieces) > 1:
                await asyncio.sleep(0)
        if not event.update:
            await self._pending.empty(device_id)
            self._pending.start(device_id, IndexState(index_id, 0))
        highest = self._pending.received(device_id).max_sequence if event.update else _MAX_SEQUENCE
        lowest: int | None = None
        for number, piece in enumerate(pieces, 1):
            last = number == len(pieces)
            if not self._pending.has_room(device_id, sum(held_size(len(raw)) for raw in piece)):
                for dropped in pieces[number - 1 :]:
                    await self._ask_again(device_id, dropped)
                return Result(lowest, complete=False)
            taken = parsed[number - 1] if parsed_once else parsed[0] if last else await self._parse(device_id, piece)
            for sequence in taken.sequences:
                if sequence <= highest:
                    lowest = sequence if lowest is None else min(lowest, sequence)
                highest = max(highest, sequence)
            self._store(device_id, index_id, taken, event.last_sequence if last else 0)
            if not last:
                await asyncio.sleep(0)
        if not pieces:
            self._store(device_id, index_id, _Taken(), event.last_sequence)
        return Result(lowest)

    async def skip(self, device_id: DeviceID, event: IndexReceived) -> None:
        """Drop a message that comes after one that was not taken as a whole: the device has to send it again.

        Raises RemoteProtocolError or FolderRefused.
        """
        for piece in self._pieces(event.files):
            await self._ask_again(device_id, piece)
            await asyncio.sleep(0)

    async def _ask_again(self, device_id: DeviceID, piece: Sequence[bytes]) -> None:
        taken = await self._parse(device_id, piece)
        if taken.sequences:
            self._pending.ask_again_from(device_id, min(taken.sequences))

    async def _parse(self, device_id: DeviceID, piece: Sequence[bytes]) -> _Taken:
        """Parse a piece: in a thread if it is large, and in the device's turn if a single file info is."""
        if sum(map(len, piece)) <= self._settings.index_piece_size:
            return _parse(piece)
        largest = max(map(len, piece))
        if largest <= self._settings.index_piece_size:
            return await in_thread_to_the_end(_parse_and_hash, piece)
        return await self._large_work.run(device_id, largest, _parse_and_hash, piece)

    async def until_room(self, device_id: DeviceID) -> None:
        """Wait until there is room for a good part of a device's index."""
        while True:
            await asyncio.sleep(self._settings.index_room_interval)
            if self._pending.has_room(device_id, self._settings.pending_disk // _RESUMED_PART):
                return

    def _store(self, device_id: DeviceID, index_id: int, taken: _Taken, last_sequence: int) -> None:
        known = self._pending.received(device_id).max_sequence
        reached = max([known, last_sequence, *taken.sequences])
        wanted: list[Announced] = []
        unwanted: list[str] = []
        noted: int | None = None
        self._claiming.expect([name_key(name) for name in taken.infos])
        for info in taken.infos.values():
            known_hash = taken.hashes.get(info.name) or (content_hash(info) if info.has_data else None)
            meaning = self._claiming.take(device_id, info, known_hash)
            if meaning is Meaning.NEW:
                wanted.append(Announced(info, known_hash))
                continue
            unwanted.append(info.name)
            if meaning is not Meaning.KNOWN:
                sequence = info.message.sequence
                noted = sequence if noted is None else min(noted, sequence)
        refused = list(taken.refused.values())
        new = self._pending.add(device_id, IndexState(index_id, reached), wanted, unwanted, refused, noted)
        if new:
            # One line a message: a peer must not be able to fill the log.
            _logger.warning(
                "files refused",
                folder=self._folder_id,
                device=str(device_id),
                files=len(new),
                name=printable(new[0].name[:_LOGGED_NAME_LENGTH]),
                reason=printable(new[0].reason),
            )

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


@dataclass(slots=True)
class _Taken:
    """A piece of a message: by name, the file infos to keep and those that are refused. The last of a name counts."""

    infos: dict[str, FileInfo] = field(default_factory=dict)
    refused: dict[str, FileInfoRefused] = field(default_factory=dict)
    sequences: list[int] = field(default_factory=list)
    hashes: dict[str, str] = field(default_factory=dict)  # the content hashes that are known already


def _parse_and_hash(piece: Sequence[bytes]) -> _Taken:
    taken = _parse(piece)
    taken.hashes = {name: content_hash(info) for name, info in taken.infos.items() if info.has_data}
    return taken


def _parse(piece: Sequence[bytes]) -> _Taken:
    """Raises RemoteProtocolError or FolderRefused."""
    taken = _Taken()
    for raw in piece:
        try:
            info = parse_file_info(raw)
            check_size(info)
            check_version(info)
        except FileInfoRefused as error:
            taken.infos.pop(error.name, None)
            taken.refused[error.name] = error
            taken.sequences.append(error.sequence)
        else:
            taken.refused.pop(info.name, None)
            taken.infos[info.name] = info
            taken.sequences.append(info.message.sequence)
    return taken


def check_size(file_info: FileInfo, max_size: int = MAX_FILE_SIZE) -> None:
    """Check that an object can hold the file. Raises FileInfoRefused."""
    if file_info.has_data and file_info.message.size > max_size:
        raise refusal(file_info, f"{file_info.message.size} bytes are more than an object can hold")
