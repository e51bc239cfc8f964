"""Mends one folder: its checkpoints, its log, and the objects that it names."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.check.folder import FolderCheck, FolderCounts, folder_check
from untrusted_s3.check.share import Share
from untrusted_s3.errors import DataError, StoreError
from untrusted_s3.index.checkpoint import check_checkpoint, copy_kept_checkpoint, write_checkpoint
from untrusted_s3.index.entry import Entry, NamedObject, Removal, StoredObject
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.missing_files import MissingFile
from untrusted_s3.index.present_objects import write_present_objects
from untrusted_s3.index.renewal import without_objects
from untrusted_s3.index.stalled_writers import StalledWriters
from untrusted_s3.index.state import FolderState
from untrusted_s3.index.strange_segments import keep_any, remove_kept
from untrusted_s3.objects.naming import object_names
from untrusted_s3.problem import Finding, Kind
from untrusted_s3.repair.action import Action, Remedy
from untrusted_s3.repair.copying import copy_object, is_whole
from untrusted_s3.repair.records import repair_record_of_folder
from untrusted_s3.settings import Settings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.garbage import GARBAGE_RULES
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import LossNotes
from untrusted_s3.sync.healing import heal

# No gateway writes the segments of a repair.
_NOBODY = DeviceID(bytes(32))
_OF_LOG = (Kind.SEGMENT_MISSING, Kind.SEGMENT_DAMAGED)
_OF_CHECKPOINTS = (Kind.CHECKPOINT_DAMAGED, Kind.CHECKPOINT_DIFFERS)
_OF_ALL_LOG = (*_OF_LOG, *_OF_CHECKPOINTS)
_OF_OBJECTS = (Kind.OBJECT_MISSING, Kind.OBJECT_SIZE, Kind.OBJECT_DAMAGED)
_MAX_NAMES = 8
_TO_GATEWAY = (
    "a gateway runs, and it may know what is lost: it looks at the log within a day, and ten minutes after its start"
)


@dataclass(frozen=True, slots=True)
class RepairOptions:
    """How a store is repaired.

    Attributes:
        apply: Whether anything is written.
        share: Which objects are read to find damage; None for none.
        gateway_runs: Whether a gateway runs on the store.
        settings: The settings.
    """

    apply: bool
    share: Share | None
    gateway_runs: bool
    settings: Settings


class FolderRepair:
    """The repair of a folder. `other` is another store, with perhaps the same folder."""

    def __init__(
        self, bucket: Bucket, other: Bucket | None, keys: FolderKeys, counts: FolderCounts, options: RepairOptions
    ) -> None:
        self._bucket = bucket
        self._other = other
        self._keys = keys
        self._counts = counts
        self._options = options
        self._mended: set[int] = set()

    async def run(self) -> AsyncIterator[Action]:
        """Check the folder and mend it. Yield what is done. Raises DataError or StoreError."""
        options = self._options
        with folder_check(
            self._bucket, self._keys, self._counts, options.settings, options.share, self._mend_checkpoint
        ) as check:
            found = [finding async for finding in check.run() if finding.kind.is_damage]
            async for action in self._mend_log([one for one in found if one.kind in _OF_LOG], check):
                yield action
            async for action in self._mend_checkpoints([one for one in found if one.kind in _OF_CHECKPOINTS], check):
                yield action
            objects = {one.path: one for one in found if one.kind in _OF_OBJECTS}
            async for action in self._mend_objects(list(objects.values()), check.log.state):
                yield action
            async for action in self._mend_missing([one for one in found if one.kind is Kind.FILE_MISSING]):
                yield action
            for finding in found:
                if finding.kind is Kind.OBJECT_UNREADABLE:
                    yield _action(finding, Remedy.NONE, "the store has it: let the store give it")
                elif finding.path == self._keys.present_objects:
                    yield await self._list_again(
                        finding, check, log_is_sound=not any(one.kind in _OF_ALL_LOG for one in found)
                    )
                elif finding.kind is Kind.RECORD:
                    yield await repair_record_of_folder(
                        self._bucket, self._other, self._keys, finding, apply=options.apply
                    )

    # The log

    async def _mend_checkpoint(self, state: FolderState) -> None:
        """Write a checkpoint again that is damaged or differs, from what the log says."""
        self._mended.add(state.position)
        if self._options.apply:
            await write_checkpoint(self._bucket, self._keys, state)

    async def _mend_log(self, found: Sequence[Finding], check: FolderCheck) -> AsyncIterator[Action]:
        covered: dict[int, Finding] = {}
        lost: list[Finding] = []
        damaged = []
        for finding in found:
            position = self._keys.segment_position(finding.path)
            if position is not None and finding.kind is Kind.SEGMENT_DAMAGED:
                damaged.append(position)
                if position <= check.log.covered:
                    covered[position] = finding
                    continue
            lost.append(finding)
        stalled = await StalledWriters.look(self._bucket, self._keys, damaged)
        for position, finding in covered.items():
            early = stalled.may_take_for_free(position, check.log.covered)
            if early is not None:
                yield _action(finding, Remedy.LATER, early)
            else:
                yield await self._move(finding, "a checkpoint says what came of it")
        if not lost:
            return
        if self._options.gateway_runs:
            for finding in lost:
                yield _action(finding, Remedy.LEFT, _TO_GATEWAY)
            return
        # A healing moves those that no checkpoint covers.
        early = next(filter(None, (stalled.may_write(one) for one in damaged if one not in covered)), None)
        if early is not None:
            for finding in lost:
                yield _action(finding, Remedy.LATER, early)
            return
        reason = "what devices and objects have comes again; what is lost for good is written down"
        if self._options.apply:
            reason = await self._heal(check)
            for finding in lost:
                if finding.kind is Kind.SEGMENT_DAMAGED and await self._bucket.size(finding.path) is not None:
                    await self._move(finding, "")  # it can be read, but follows another one
        for finding in lost:
            yield _action(finding, Remedy.HEALED, reason)

    async def _heal(self, check: FolderCheck) -> str:
        with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
            state = FolderState(Path(directory, "state.sqlite"))
            try:
                log = FolderLog(self._bucket, self._keys, state, _NOBODY, self._options.settings.log)
                notes = LossNotes(self._bucket, self._keys, _NOBODY)
                healed = await heal(self._bucket, self._keys, log, state, notes)
                if state.position > check.log.covered:
                    await log.checkpoint()
            finally:
                state.close()
        lost = [text for record in healed.losses for text in record.texts(self._keys).values()]
        return "; ".join(lost[:3]) or "nothing is lost"

    async def _mend_checkpoints(self, found: Sequence[Finding], check: FolderCheck) -> AsyncIterator[Action]:
        for finding in found:
            position = self._keys.checkpoint_position(finding.path)
            if position is None:
                yield await self._mend_kept(finding)
            elif position in self._mended:
                yield _action(finding, Remedy.WRITTEN, "it says what the log says")
            elif check.log.covered or check.log.is_whole or not self._options.gateway_runs:
                # Another checkpoint serves, or the log from its first segment on, or the log was healed just now.
                yield await self._move(finding, "the log does not tell any more what it said; others serve")
            else:
                yield _action(finding, Remedy.LEFT, _TO_GATEWAY)

    async def _mend_kept(self, finding: Finding) -> Action:
        """Copy a state that is kept beyond the history from the other store, or move what is left of it aside."""
        parsed = self._keys.parse_kept(finding.path)
        assert parsed is not None
        if self._other is not None:
            with contextlib.suppress(DataError, StoreError), tempfile.TemporaryDirectory() as directory:
                if self._options.apply:
                    await copy_kept_checkpoint(self._other, self._bucket, finding.path, parsed[0])
                else:
                    await check_checkpoint(self._other, self._keys, parsed[0], Path(directory), kept_as=finding.path)
                return _action(finding, Remedy.COPIED, "it is the state that was kept")
        return await self._move(finding, "nothing else tells what it said, so its data become garbage")

    async def _list_again(self, finding: Finding, check: FolderCheck, *, log_is_sound: bool) -> Action:
        """Write the list of present objects again."""
        if not log_is_sound:
            return _action(finding, Remedy.LATER, "the log has to be mended first: repeat this")
        if self._options.apply:
            await write_present_objects(self._bucket, self._keys, check.log.state)
        return _action(finding, Remedy.WRITTEN, "it names what the log names")

    async def _move(self, finding: Finding, reason: str) -> Action:
        """Move a damaged segment or checkpoint to a key where it is kept."""
        position = self._keys.segment_position(finding.path) or self._keys.checkpoint_position(finding.path)
        position = position or (self._keys.parse_kept(finding.path) or (None,))[0]
        assert position is not None
        if self._options.apply:
            copy = await keep_any(self._bucket, self._keys, finding.path, position)
            if copy is None:
                return _action(finding, Remedy.NONE, "it is gone meanwhile")
            await remove_kept(self._bucket, self._keys, {finding.path: copy})
            reason = f"{reason}; it is kept as {copy}"
        return _action(finding, Remedy.MOVED, reason)

    # Objects

    async def _mend_objects(self, found: Sequence[Finding], state: FolderState) -> AsyncIterator[Action]:
        gone: dict[NamedObject, Finding] = {}
        for finding in found:
            parsed = self._keys.parse_object(finding.path)
            stored = _stored(state, parsed)
            if parsed is None or stored is None:
                continue
            if await self._copy(finding.path, finding.path, stored):
                yield _action(finding, Remedy.COPIED, "it is what the log says")
            else:
                gone[NamedObject(parsed[0], stored.object_name, stored.size)] = finding
        if gone:
            reason = "devices see that the file is missing here, and one that has it sends it again"
            try:
                if self._options.apply:
                    await self._take_back(gone)
            except DataError as error:
                for finding in gone.values():
                    yield _action(finding, Remedy.NONE, f"the log has to be mended first: {error}")
                return
            for finding in gone.values():
                yield _action(finding, Remedy.TAKEN_BACK, reason)

    async def _copy(self, source_key: str, key: str, stored: StoredObject) -> bool:
        """Copy an object from the other store, or only look whether that would do. Return whether it would."""
        if self._other is None:
            return False
        if self._options.apply:
            return await copy_object(self._other, source_key, self._bucket, key, stored)
        return await is_whole(self._other, source_key, stored)

    async def _take_back(self, gone: dict[NamedObject, Finding]) -> None:
        names = dict.fromkeys(named.name_hash for named in gone)

        def plan(now: FolderState) -> tuple[Iterable[Removal], Iterable[Entry]]:
            return without_objects(filter(None, map(now.row, names)), gone)

        async with self._loaded(self._bucket) as log:
            await log.renew(plan)

    @asynccontextmanager
    async def _loaded(self, bucket: Bucket) -> AsyncIterator[FolderLog]:
        """Load the folder of a store. What was checked is not used: the log may have been healed since.

        Raises DataError or StoreError.
        """
        with tempfile.TemporaryDirectory(prefix="untrusted-s3-") as directory:
            state = FolderState(Path(directory, "state.sqlite"))
            try:
                log = FolderLog(bucket, self._keys, state, _NOBODY, self._options.settings.log)
                await log.load()
                yield log
            finally:
                state.close()

    # Files that were taken back

    async def _mend_missing(self, found: Sequence[Finding]) -> AsyncIterator[Action]:
        if not found:
            return
        try:
            async with AsyncExitStack() as stack:
                theirs = None
                if self._other is not None:
                    theirs = (await stack.enter_async_context(self._loaded(self._other))).state
                ours = await stack.enter_async_context(self._loaded(self._bucket))
                missing = {self._keys.object_of(one.name_hash, one.object_name): one for one in ours.state.missing()}
                for finding in found:
                    one = missing.get(finding.path)
                    if one is None:
                        continue  # it has come again
                    if theirs is not None and await self._bring_back(one, ours, theirs):
                        yield _action(finding, Remedy.COPIED, "the folder has the file again")
                    else:
                        yield _action(finding, Remedy.NONE, "no device has sent it again, and there is no other copy")
        except DataError as error:
            for finding in found:
                yield _action(finding, Remedy.NONE, str(error))

    async def _bring_back(self, missing: MissingFile, ours: FolderLog, theirs: FolderState) -> bool:
        """Store a missing file again as the other store has it. Return whether it does."""
        assert self._other is not None
        for entry in theirs.versions(missing.name):
            stored = entry.stored
            if stored is None or entry.file_info.message.version != missing.version:
                continue
            condemned = ours.state.condemned(missing.name_hash)
            candidates = ours.garbage.candidates
            await candidates.look(within=GARBAGE_RULES.look / 2)
            for _, name in zip(range(_MAX_NAMES + len(condemned)), object_names(entry.file_info), strict=False):
                key = self._keys.object_of(missing.name_hash, name)
                if name in condemned or candidates.has(missing.name_hash, name):
                    continue
                if await self._bucket.size(key) is not None:
                    continue
                source = self._keys.object_of(missing.name_hash, stored.object_name)
                if not await self._copy(source, key, stored):
                    break
                if self._options.apply:
                    again = StoredObject(name, stored.size, stored.part_size, stored.part_crc32c)
                    await ours.append([Entry(entry.file_info, again)])
                return True
        return False


def _stored(state: FolderState, parsed: tuple[bytes, str] | None) -> StoredObject | None:
    if parsed is None:
        return None
    return next((one for one in state.stored_objects(parsed[0]) if one.object_name == parsed[1]), None)


def _action(finding: Finding, remedy: Remedy, reason: str) -> Action:
    return Action(finding.path, finding.reason, remedy, reason, finding.name)
