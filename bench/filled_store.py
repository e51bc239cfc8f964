"""A store with many files, filled through the real log without a peer.

The file infos look like Syncthing's, and one of the files has an object.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

from bench.scripted_peer import RawPeer
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.constants import MIN_ENCRYPTED_BLOCK_SIZE, TOKEN_SIZE
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.compat.gateway_process import GatewayProcess
from untrusted_s3.identity.certificate import Identity
from untrusted_s3.index.entry import Entry, StoredObject
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.checksums import crc32c_of
from untrusted_s3.objects.naming import content_hash
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.settings import LogSettings
from untrusted_s3.store import layout
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.records import FolderRecord, PeerRecord, open_store, write_record
from untrusted_s3.store.s3 import S3Bucket

FOLDER = "filled"
_TOKEN = bytes(50)
_PATH_SIZES = (20, 110)  # bytes of a path in the folder
_BLOCKS = (1, 4)


@dataclass(frozen=True)
class FilledStore:
    """The contents of a filled store.

    Attributes:
        record: The folder's record.
        file_info: The last file, which has an object.
        content: The content of that object.
        checkpoints: The number of checkpoints and their bytes.
        segments: The number of segments and their bytes.
    """

    record: FolderRecord
    file_info: FileInfo
    content: bytes
    checkpoints: tuple[int, int]
    segments: tuple[int, int]


def fill(
    gateway: GatewayProcess, files: int, peer: DeviceID, directory: Path, settings: LogSettings | None = None
) -> FilledStore:
    """Fill the store of a gateway that does not run yet, and accept `peer`. `directory` is for temporary files."""
    return asyncio.run(_fill(gateway, files, peer, directory, settings or LogSettings()))


async def _fill(
    gateway: GatewayProcess, files: int, peer: DeviceID, directory: Path, settings: LogSettings
) -> FilledStore:
    store = gateway.store
    assert store is not None
    location = StoreLocation(store.bucket, gateway.prefix)
    bucket = await S3Bucket.open(location, store.endpoint_url, S3Credentials(store.access_key, store.secret_key))
    state = FolderState(directory / "filling.sqlite")
    try:
        await open_store(bucket)
        await write_record(bucket, layout.peer_key(peer), PeerRecord(peer).to_json())
        record, keys = FolderRecord(FOLDER, "", _TOKEN), FolderKeys.of(FOLDER)
        await write_record(bucket, keys.record, record.to_json(), create=True)
        log = FolderLog(bucket, keys, state, DeviceID.parse(gateway.device_id), settings)
        await log.load()
        chance = random.Random(files)
        last = made_up_file(chance)
        content = chance.randbytes(last.message.size)
        await bucket.put(keys.object(last.name, content_hash(last)), [content, encode_trailer(last)])
        for start in range(0, files, settings.segment_entries):
            infos = [made_up_file(chance) for _ in range(min(settings.segment_entries, files - start))]
            if start + settings.segment_entries >= files:
                infos[-1] = last
            await log.append([entry_of(info) for info in infos])
            if log.checkpoint_due:
                await log.checkpoint_where_due()
        return FilledStore(
            record,
            last,
            content,
            await _count(bucket, keys.checkpoints),
            await _count(bucket, keys.segments),
        )
    finally:
        state.close()
        await bucket.close()


async def _count(bucket: S3Bucket, prefix: str) -> tuple[int, int]:
    sizes = [item.size async for item in bucket.list(prefix)]
    return len(sizes), sum(sizes)


def made_up_file(chance: random.Random) -> FileInfo:
    """Return the file info of a file with a few blocks, as an untrusted device gets it."""
    path_size, blocks = chance.randint(*_PATH_SIZES), chance.randint(*_BLOCKS)
    digits = base64.b32hexencode(chance.randbytes(path_size + 16)).decode().rstrip("=")
    rest = "/".join(digits[start : start + 200] for start in range(3, len(digits), 200))
    message = pb.FileInfo(
        name=f"{digits[0]}.syncthing-enc/{digits[1:3]}/{rest}",
        type=pb.FILE,
        permissions=0o644,
        modified_s=1234567890,
        version=pb.Vector(counters=[pb.Counter(id=chance.getrandbits(63), value=1_700_000_000)]),
        # nonce and tag, the file info, and its blocks
        encrypted=chance.randbytes(40 + path_size + 60 + 44 * blocks),
    )
    for _ in range(blocks):
        size = MIN_ENCRYPTED_BLOCK_SIZE
        message.blocks.append(pb.BlockInfo(offset=message.size, size=size, hash=chance.randbytes(TOKEN_SIZE)))
        message.size += size
    return FileInfo(message.SerializeToString(), message)


def entry_of(info: FileInfo) -> Entry:
    """Return the entry of a file; the checksum of its object is made up."""
    trailer = encode_trailer(info)
    return Entry(info, StoredObject(content_hash(info), info.message.size + len(trailer), 0, (crc32c_of([trailer]),)))


class FetchingPeer(RawPeer):
    """A device that shares the folder of a filled store."""

    def __init__(self, gateway: GatewayProcess, identity: Identity, store: FilledStore, known: int) -> None:
        """Connect; `known` is the sequence number up to which it knows the gateway's index."""
        super().__init__(gateway, identity)
        own_id = DeviceID.parse(gateway.device_id)
        theirs = pb.Device(
            id=own_id.raw, encryption_password_token=_TOKEN, index_id=store.record.index_id, max_sequence=known
        )
        ours = pb.Device(id=identity.device_id.raw, index_id=1)
        self.wait_accepted()
        self.send(self._bep.cluster_config([pb.Folder(id=FOLDER, devices=[theirs, ours])], 0))

    def fetch_blocks(self, store: FilledStore) -> bytes:
        """Return all blocks of the file that has an object, joined."""
        content = b""
        for number, block in enumerate(store.file_info.message.blocks):
            request_id, message = self._bep.request(FOLDER, store.file_info.name, number, block, 0)
            self.send(message)
            content += self._response(request_id)
        return content

    def receive_index(self, count: int) -> list[bytes]:
        """Wait for this many file infos of the gateway's index, and return them."""
        while True:
            files = [raw for event in self._events if isinstance(event, events.IndexReceived) for raw in event.files]
            if len(files) >= count:
                return files
            assert self._exchange(), "the gateway closed the connection"

    def _response(self, request_id: int) -> bytes:
        while True:
            for event in self._events:
                if isinstance(event, events.ResponseReceived) and event.id == request_id:
                    assert event.code == pb.NO_ERROR, event
                    return bytes(event.data)
            assert self._exchange(), "the gateway closed the connection"


def digest(files: list[bytes]) -> str:
    """Return a hash by which indexes can be compared."""
    return hashlib.sha256(b"".join(sorted(files))).hexdigest()
