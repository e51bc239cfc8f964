"""A trusted device without a connection. Its files are given to a folder, whose log is then compared with them."""

from __future__ import annotations

import asyncio
import hashlib

from tests.file_infos import device
from tests.simulated import SimulatedStore
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.events import IndexReceived
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.errors import BlockUnavailable
from untrusted_s3.index.segment import decode_segment
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.folder import Folder

RECORD = FolderRecord("folder", "", b"token", index_id=98)
KEYS = FolderKeys.of(RECORD.folder_id)


class Device:
    """A trusted device: it has file infos by name, and serves the blocks of those that are current."""

    def __init__(self, number: int) -> None:
        self.device_id = device(number)
        self.index_id = 1000 + number
        self.sequence = 0
        self.files: dict[str, FileInfo] = {}
        self.answers = asyncio.Event()
        self.answers.set()

    def take(self, info: FileInfo) -> None:
        """Take a change that was made here or at the other device."""
        self.sequence += 1
        message = pb.FileInfo.FromString(info.raw)
        message.sequence = self.sequence
        self.files[info.name] = parse_file_info(message.SerializeToString())

    def after(self, sequence: int) -> list[FileInfo]:
        """Return the file infos of an index update."""
        infos = sorted(self.files.values(), key=lambda info: info.message.sequence)
        return [info for info in infos if info.message.sequence > sequence]

    async def request_block(self, folder_id: str, name: str, number: int, block: pb.BlockInfo) -> memoryview:
        await asyncio.sleep(0)
        await self.answers.wait()
        blocks = self.files[name].message.blocks
        if number >= len(blocks) or blocks[number].hash != block.hash:
            raise BlockUnavailable("no such file")
        return memoryview(data_of(block))

    async def announce(self, folder: Folder, count: int) -> None:
        """Give a folder an index update of at most `count` entries."""
        infos = self.after(folder.received(self.device_id).max_sequence)[:count]
        if infos:
            raw = tuple(info.raw for info in infos)
            update = IndexReceived("folder", raw, True, infos[-1].message.sequence, 0)
            await folder.take_index(self.device_id, self.index_id, update)

    def share(self, folder: Folder) -> IndexState:
        """Share the folder, as over a new connection. Return how much of the index the folder knows."""
        known = folder.start_index(self.device_id, IndexState(self.index_id, self.sequence))
        folder.add_source(self.device_id, self)
        return known


def check_reflected(folder: Folder, one: Device) -> None:
    """Check that the folder has all that the device has, and that no work is left."""
    for name, info in one.files.items():
        entry = folder.entry(name)
        assert entry is not None
        assert entry.file_info.message.version == info.message.version
        assert content_hash(entry.file_info) == content_hash(info)
        assert entry.file_info.message.deleted == info.message.deleted
    assert folder.pending_totals == (0, 0)
    assert folder.error is None


def data_of(block: pb.BlockInfo) -> bytes:
    return hashlib.shake_128(block.hash).digest(block.size)


def check_log(store: SimulatedStore) -> None:
    """Check that every entry that the log ever had names an object with the blocks of its file info."""
    for key in store.keys(f"{KEYS.base}log/"):
        for entry in decode_segment(store.body(key), key).entries:
            if not entry.file_info.has_data:
                assert entry.stored is None
                continue
            assert entry.stored is not None
            body = store.body(KEYS.object(entry.file_info.name, entry.stored.object_name))
            message = entry.file_info.message
            assert body[: message.size] == b"".join(map(data_of, message.blocks))
            assert len(body) == entry.stored.size
            trailer = parse_file_info(body[message.size : -4])
            assert content_hash(trailer) == content_hash(entry.file_info) == entry.stored.object_name.partition("-")[0]
