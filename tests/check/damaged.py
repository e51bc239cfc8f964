"""A store with some of everything, and ways to damage it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from tests.file_infos import device
from tests.simulated import SimulatedBucket, SimulatedStore
from tests.vault.stored_folder import StoredFolder, flip, random_bytes
from untrusted_s3.check.share import Share
from untrusted_s3.check.store import StoreCheck
from untrusted_s3.index.entry import Entry
from untrusted_s3.problem import Finding
from untrusted_s3.settings import Settings
from untrusted_s3.store.history import write_history
from untrusted_s3.store.layout import FolderKeys, node_key, peer_key
from untrusted_s3.store.quotas import Quotas, write_quotas
from untrusted_s3.store.records import NodeRecord, PeerRecord, write_record
from untrusted_s3.store.retention import KeepRules, write_rules
from untrusted_s3.units import KIB, MIB

KEYS = FolderKeys.of("folder")
PEER, NODE = peer_key(device(7)), node_key(device(1))
DEFAULTS = Settings()
Damage = Callable[[SimulatedBucket, str], None]


@dataclasses.dataclass
class FilledStore:
    """What `filled_store` has written.

    Attributes:
        bucket: A client of the store.
        folder: The folder.
        small: The entry of a file.
        other: That of another one of the same size.
        large: That of a file in parts.
    """

    bucket: SimulatedBucket
    folder: StoredFolder
    small: Entry
    other: Entry
    large: Entry

    def key(self, entry: Entry) -> str:
        """Return the key of the object of an entry."""
        return self.folder.object_key(entry)

    async def copy(self, directory: Path) -> FilledStore:
        """Return a store of its own with the same objects."""
        bucket = SimulatedBucket()
        bucket.store.objects = dict(self.bucket.store.objects)
        folder = StoredFolder(bucket, directory)
        folder.now, folder.counter = self.folder.now, self.folder.counter
        await folder.log.load()
        return dataclasses.replace(self, bucket=bucket, folder=folder)

    async def findings(self, share: Share | None = None, settings: Settings = DEFAULTS) -> list[Finding]:
        """Check the store, which must write nothing."""
        reader = SimulatedBucket(self.bucket.store, gate=self.bucket.gate, fault=self.bucket.fault)
        found = [finding async for finding in StoreCheck(reader, share, settings).run()]
        assert {call.operation for call in reader.calls} <= {
            "get",
            "list",
            "list_level",
            "list_directories",
            "size",
            "download_file",
        }
        return found


async def filled_store(directory: Path, store: SimulatedStore | None = None) -> FilledStore:
    """Return a store with the records of a device and a gateway, and one folder.

    The folder's log has eight segments and checkpoints at 2, 4 and 6; the first two segments are cleaned up.
    """
    bucket = SimulatedBucket(store)
    folder = await StoredFolder(bucket, directory).create()
    await write_record(bucket, PEER, PeerRecord(device(7), "laptop").to_json())
    await write_record(bucket, NODE, NodeRecord(device(1), "gateway", 1_700_000_000, "0" * 32).to_json())
    await write_quotas(bucket, Quotas({"folder": 1 << 40}))
    await write_rules(bucket, None, KeepRules(daily=1))
    await write_rules(bucket, KEYS, KeepRules(daily=2))
    await write_history(bucket, None, 60)
    await write_history(bucket, KEYS, 7)
    small, other = await folder.file("small", random_bytes(5000, 1)), await folder.file("other", random_bytes(5000, 2))
    large = await folder.file("large", random_bytes(17 * MIB, 3), block_size=1024 * KIB)
    for number, entry in enumerate(
        (
            folder.directory("directory"),
            await folder.file("changed", b"before"),
            small,
            other,
            large,
            folder.deleted("changed"),
            folder.directory("another"),
            await folder.file("last", b"last"),
        ),
        1,
    ):
        await folder.append(entry)
        if number in (2, 4, 6):
            await folder.log.checkpoint()
    for position in (1, 2):
        del bucket.store.objects[KEYS.segment(position)]
    return FilledStore(bucket, folder, small, other, large)


def flip_bit(bucket: SimulatedBucket, key: str) -> None:
    """Change a bit in the middle of an object."""
    flip(bucket, key, len(bucket.store.body(key)) // 2)


def truncate(bucket: SimulatedBucket, key: str) -> None:
    """Take the last bytes of an object."""
    bucket.store.put(key, bucket.store.body(key)[:-3])


def delete(bucket: SimulatedBucket, key: str) -> None:
    """Delete an object."""
    del bucket.store.objects[key]


def swap(bucket: SimulatedBucket, key: str, other: str) -> None:
    """Exchange two objects."""
    bodies = bucket.store.body(key), bucket.store.body(other)
    bucket.store.put(other, bodies[0])
    bucket.store.put(key, bodies[1])
