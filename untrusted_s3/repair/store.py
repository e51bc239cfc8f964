"""Mends a store: its records, and each folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field

from untrusted_s3.check.folder import FolderCounts
from untrusted_s3.check.store import read_checked_folders
from untrusted_s3.errors import DataError, NoSuchFolder
from untrusted_s3.repair.action import Action, Remedy
from untrusted_s3.repair.folder import FolderRepair, RepairOptions
from untrusted_s3.repair.records import FolderRecords, MakeRecord, repair_records
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.format import HEARTBEAT_LIFETIME
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.listing import list_nodes


@dataclass(slots=True)
class StoreRepair:
    """The repair of a store. Gateways may run.

    Attributes:
        bucket: The store.
        other: Another store from which what is damaged is copied, or None.
        options: How it is repaired.
        make_records: For some folders, what makes a lost record again.
        folders: What was checked of each folder.
    """

    bucket: Bucket
    other: Bucket | None
    options: RepairOptions
    make_records: Mapping[FolderKeys, MakeRecord] = field(default_factory=dict)
    folders: list[FolderCounts] = field(default_factory=list)

    async def run(self, folder_ids: Collection[str] = ()) -> AsyncIterator[Action]:
        """Repair all of the store, or only some folders. Yield what is done.

        Raises NoSuchFolder, DataError if this is no store or one of a newer version, and StoreError.
        """
        folders = await read_checked_folders(self.bucket)
        wanted = set(map(FolderKeys.of, folder_ids))
        for folder_id in folder_ids:
            if all(FolderKeys.of(folder_id) != folder.keys for folder in folders):
                raise NoSuchFolder(f"there is no folder {folder_id!r} in this store")
        apply = self.options.apply
        if not folder_ids:
            async for action in repair_records(self.bucket, self.other, apply=apply, has_folders=bool(folders)):
                yield action
        records = FolderRecords(
            self.bucket, self.other, self.make_records, apply=apply, gateway_runs=self.options.gateway_runs
        )
        await records.look(folder.keys for folder in folders if folder.problem is not None)
        for folder in folders:
            if folder.removed or (wanted and folder.keys not in wanted):
                continue
            if folder.problem is not None:
                yield await records.repair(folder.keys, folder.problem)
            counts = FolderCounts(folder.id)
            self.folders.append(counts)
            try:
                async for action in FolderRepair(self.bucket, self.other, folder.keys, counts, self.options).run():
                    yield action
            except DataError as error:
                yield Action(folder.keys.base, str(error), Remedy.NONE, "other folders are repaired nevertheless")


async def gateway_runs(bucket: Bucket) -> bool:
    """Return whether a gateway's heartbeat is recent. Raises StoreError."""
    async for node in list_nodes(bucket):
        if node.age < HEARTBEAT_LIFETIME:
            return True
    return False
