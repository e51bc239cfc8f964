"""Mends records: what the other store has, and what follows from other records. The rest is named."""

from __future__ import annotations

import contextlib
import hashlib
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

from untrusted_s3.check.store import check_records
from untrusted_s3.errors import DataError, NoSuchKey, StoreError, WrongPassword
from untrusted_s3.identity.sealed import SealedIdentity
from untrusted_s3.problem import Finding, Kind
from untrusted_s3.repair.action import Action, Remedy
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.garbage import GARBAGE_RULES, list_garbage
from untrusted_s3.store.history import History
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import LossRecord
from untrusted_s3.store.quotas import Quotas
from untrusted_s3.store.records import (
    STORE_ID_DIGITS,
    FolderRecord,
    PeerRecord,
    StoreRecord,
    read_record,
    write_record,
)
from untrusted_s3.store.retention import KeepRules
from untrusted_s3.units import DAY

_WHO_HAS_IT: Final = (
    "nothing in the store tells the token of the folder's password. A gateway that has the folder open writes the"
    " record again. Otherwise put it back from a copy, or make it again with the password. All files and their history"
    " stay"
)
_WHY_NOT: Final = {
    layout.QUOTAS: "set the quotas again, or put the record back from a copy",
    layout.RETENTION: "set the rules of what is kept again, or put the record back from a copy",
    layout.HISTORY: "set again how much history is kept, or put the record back from a copy",
    layout.PEERS: "accept the device again, with what it may do",
    layout.IDENTITIES: "make the identity again, or put the record back from a copy",
}
_READERS: Final[dict[str, Callable[[dict[str, Any]], Any]]] = {
    layout.PEERS: PeerRecord.from_json,
    layout.IDENTITIES: SealedIdentity.from_json,
    layout.QUOTAS: Quotas.from_json,
    layout.RETENTION: KeepRules.from_json,
    layout.HISTORY: History.from_json,
}


async def repair_records(
    bucket: Bucket, other: Bucket | None, *, apply: bool, has_folders: bool
) -> AsyncIterator[Action]:
    """Mend the records of a store, but those of folders. Yield what is done. Raises DataError or StoreError."""
    found = [finding async for finding in check_records(bucket, has_folders=has_folders)]
    for finding in found:
        if finding.kind is not Kind.RECORD:
            continue
        if finding.path == layout.STORE:
            yield await _repair_store_record(bucket, finding, apply=apply)
        elif finding.path.startswith((layout.NODES, layout.USAGE)):
            if apply:
                await bucket.delete(finding.path)
            yield _action(finding, Remedy.DELETED, "a gateway that runs writes it again")
        else:
            yield await _copy_record(bucket, other, finding, apply=apply)


MakeRecord = Callable[[Bucket], Awaitable[FolderRecord]]


class FolderRecords:
    """Mends the records of folders: what others have, and what lies in the place of another one."""

    def __init__(
        self,
        bucket: Bucket,
        other: Bucket | None,
        make: Mapping[FolderKeys, MakeRecord],
        *,
        apply: bool,
        gateway_runs: bool,
    ) -> None:
        """`make` has for some folders what makes the record again, because it knows the password."""
        self._bucket = bucket
        self._other = other
        self._make = make
        self._apply = apply
        self._gateway_runs = gateway_runs
        self._misplaced: dict[str, FolderRecord] = {}

    async def look(self, found: Iterable[FolderKeys]) -> None:
        """Look for records in the places of others. `found` are folders with something wrong. Raises StoreError."""
        for keys in found:
            with contextlib.suppress(DataError):
                record = await read_record(self._bucket, keys.record, FolderRecord.from_json)
                if record is not None and FolderKeys.of(record.folder_id) != keys:
                    self._misplaced[FolderKeys.of(record.folder_id).record] = record

    async def repair(self, keys: FolderKeys, finding: Finding) -> Action:
        """Mend the record of a folder. Raises StoreError."""
        record = await _read_other(self._other, keys.record, FolderRecord.from_json)
        remedy, reason = Remedy.COPIED, "the folder can be opened"
        if record is None or FolderKeys.of(record.folder_id) != keys or record.removed:
            record, remedy = self._misplaced.get(keys.record), Remedy.WRITTEN
            reason = "it lay in the place of another folder's"
        if record is None and keys in self._make:
            try:
                record = await self._make[keys](self._bucket)
            except (DataError, WrongPassword) as error:
                return _action(finding, Remedy.NONE, str(error))
            reason = "with the password, which opens the folder's names"
        if record is not None and not record.removed:
            if self._apply:
                await write_record(self._bucket, keys.record, record.to_json())
            return _action(finding, remedy, reason)
        if not self._gateway_runs:
            return _action(finding, Remedy.NONE, _WHO_HAS_IT)
        return await self._free(keys, finding)

    async def _free(self, keys: FolderKeys, finding: Finding) -> Action:
        """Make room for the record: a gateway that has the folder open writes it only where there is none."""
        body = await self._body(keys.record)
        if not body:
            return _action(finding, Remedy.LEFT, _WHO_HAS_IT)
        reason = _WHO_HAS_IT
        if self._apply:
            copy = keys.damaged(0, hashlib.sha256(body).hexdigest())
            await self._bucket.put(copy, [body])
            await self._bucket.delete(keys.record)
            reason = f"{reason}; what was there is kept as {copy}"
        return _action(finding, Remedy.MOVED, reason)

    async def _body(self, key: str) -> bytes:
        try:
            return await self._bucket.get(key)
        except NoSuchKey:
            return b""


async def _repair_store_record(bucket: Bucket, finding: Finding, *, apply: bool) -> Action:
    store_id = None
    async for item in bucket.list(layout.IDENTITIES):
        try:
            identity = await read_record(bucket, item.key, SealedIdentity.from_json)
        except DataError:
            continue
        store_id = identity.store_id if identity is not None else store_id
    reason = "the sealed identities tell the id of the store"
    if store_id is None:
        store_id, reason = secrets.token_hex(STORE_ID_DIGITS // 2), "the id is new: gateways load the store once more"
    if apply:
        await write_record(bucket, layout.STORE, StoreRecord(store_id).to_json())
    return _action(finding, Remedy.WRITTEN, reason)


async def repair_record_of_folder(
    bucket: Bucket, other: Bucket | None, keys: FolderKeys, finding: Finding, *, apply: bool
) -> Action:
    """Mend a record below a folder, which is not `folder.json`. Raises StoreError."""
    for key, kind in ((keys.retention, layout.RETENTION), (keys.history, layout.HISTORY)):
        if finding.path == key:
            return await _copy_record(bucket, other, finding, apply=apply, kind=kind)
    needless = {keys.scrub: "a gateway that scrubs begins again", keys.garbage_look: "the next look is for all"}
    if finding.path in needless:
        if apply:
            await bucket.delete(finding.path)
        return _action(finding, Remedy.DELETED, needless[finding.path])
    if keys.parse_garbage(finding.path) is not None:
        return await _forget_garbage(bucket, keys, finding, apply=apply)
    lost = await _read_other(other, finding.path, LossRecord.from_json) if keys.is_loss(finding.path) else None
    if lost is None or keys.loss(lost.position, lost.loss_id) != finding.path:
        return _action(finding, Remedy.NONE, "it tells what was lost before; it can be deleted")
    if apply:
        await write_record(bucket, finding.path, lost.to_json())
    return _action(finding, Remedy.COPIED, "it says what the other store says")


async def _forget_garbage(bucket: Bucket, keys: FolderKeys, finding: Finding, *, apply: bool) -> Action:
    """Delete a record of garbage, but not before all deletions are over that it may have led to."""
    rules = GARBAGE_RULES
    kept_for = rules.grace + rules.sweep + rules.margin
    listed = {keys.garbage_record(record.record_id): record.age for record in await list_garbage(bucket, keys)}
    if listed.get(finding.path, math.inf) <= kept_for:
        days = math.ceil(kept_for / DAY)
        reason = f"some of what it names may be about to be deleted: repeat this {days} days after it was written"
        return _action(finding, Remedy.LATER, reason)
    if apply:
        await bucket.delete(finding.path)
    return _action(finding, Remedy.DELETED, "what it named is found again")


async def _copy_record(
    bucket: Bucket, other: Bucket | None, finding: Finding, *, apply: bool, kind: str | None = None
) -> Action:
    prefix = kind or next(prefix for prefix in _READERS if finding.path.startswith(prefix))
    record = await _read_other(other, finding.path, _READERS[prefix])
    if record is None:
        return _action(finding, Remedy.NONE, _WHY_NOT[prefix])
    if apply:
        await write_record(bucket, finding.path, record.to_json())
    return _action(finding, Remedy.COPIED, "it says what the other store says")


async def _read_other(other: Bucket | None, key: str, from_json: Callable[[dict[str, Any]], Any]) -> Any:
    if other is None:
        return None
    try:
        return await read_record(other, key, from_json)
    except (DataError, StoreError):
        return None


def _action(finding: Finding, remedy: Remedy, reason: str) -> Action:
    return Action(finding.path, finding.reason, remedy, reason)
