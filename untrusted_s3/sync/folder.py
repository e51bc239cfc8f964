"""A folder that a running gateway keeps: its stored entries, what is pending, and the work on both."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import structlog

from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.events import IndexReceived, RequestReceived
from untrusted_s3.counters import Counters
from untrusted_s3.errors import DataError, IndexClaimed, LogWentBack, StateDamaged
from untrusted_s3.index.database import remove_database
from untrusted_s3.index.dissent_counts import Dissents
from untrusted_s3.index.entry import Entry, StoredObject
from untrusted_s3.index.local_databases import open_databases
from untrusted_s3.index.local_files import delete_others, folder_directory
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.present_objects import write_present_objects
from untrusted_s3.index.refused import RefusedFiles
from untrusted_s3.index.state import FolderTotals
from untrusted_s3.objects.upload_limits import UploadLimits
from untrusted_s3.objects.writer import ObjectWriter
from untrusted_s3.settings import Settings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.format import PART_GRID, PartGrid
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import LossNotes
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.supervisor import Work
from untrusted_s3.sync.claiming import Claiming
from untrusted_s3.sync.failures import Failure
from untrusted_s3.sync.healing import Healed, heal, is_unfinished
from untrusted_s3.sync.index_in import IndexIn
from untrusted_s3.sync.log_writer import LogWriter
from untrusted_s3.sync.memory import SyncMemory
from untrusted_s3.sync.missing import FailedRead, MissingObjects
from untrusted_s3.sync.puller import Puller
from untrusted_s3.sync.quota import FolderQuota, Limit, LimitsOf
from untrusted_s3.sync.recent_ranges import RequestedBlock
from untrusted_s3.sync.refused_index import Suspect, suspects
from untrusted_s3.sync.requested_objects import RequestedObjects
from untrusted_s3.sync.served_parts import ServedParts, WrongPart
from untrusted_s3.sync.sources import Source, Sources
from untrusted_s3.sync.upgrade import begin_claims

# How many entries are looked at when a peer cannot decrypt one of those that it was sent.
_SUSPECT_ENTRIES = 20_000
_logger = structlog.get_logger()


class Folder:
    """A folder of the store that is open in this gateway.

    `open` comes first. Then the gateway runs what `tasks` returns.

    Attributes:
        record: The folder's record in the store.
        on_renewed: Called when the folder's index has another id: no peer may go on with what it knows of the index,
            nor we with what we know of the peer's. All sessions that share the folder have to end at once.
        heeds_claims: Returns whether a device is believed that says that it knows more of the index than there is.
        counts_sources: Returns whether `bytes_from` will be asked, so that opening the folder counts for it.
        on_used: Called when `used_bytes` may have changed, or `bytes_from` of any device.
    """

    def __init__(
        self,
        record: FolderRecord,
        bucket: Bucket,
        own_id: DeviceID,
        state_directory: Path,
        memory: SyncMemory,
        uploads: UploadLimits,
        counters: Counters,
        settings: Settings,
        grid: PartGrid = PART_GRID,
    ) -> None:
        """Open the folder's local files below `state_directory`, which is for this store.

        Raises StateFolderUnusable, or StateDamaged after the local files were deleted: a second attempt makes new ones.
        `uploads` bounds how many objects and parts all folders together send at once.
        """
        self.record = record
        self.on_renewed: Callable[[], object] = lambda: None
        self.heeds_claims: Callable[[], bool] = lambda: True
        self.counts_sources: Callable[[], bool] = lambda: False
        self.on_used: Callable[[], object] = lambda: None
        self._bucket = bucket
        self._keys = FolderKeys.of(record.folder_id)
        directory = folder_directory(state_directory, record.folder_id, record.index_id)
        delete_others(directory)
        self._directory = directory
        self._damage = False
        self._loss: DataError | None = None
        self._ended = asyncio.Event()
        self._state, self._pending = open_databases(directory, self._damaged, memory.parsed, memory.pending)
        self._log = FolderLog(bucket, self._keys, self._state, own_id, settings.log, check_entries=False)
        self._losses = LossNotes(bucket, self._keys, own_id)
        self._writer = LogWriter(
            record.folder_id,
            self._log,
            self._state,
            self._pending,
            counters,
            settings.log,
            in_work=lambda: self._puller.in_work,
            is_attended=lambda: self.attended,
            on_committed=lambda key, more: self._puller.committed(key, more),
            on_damage=self._damaged,
            on_renewed=self._renewed,
            on_went_back=self._went_back,
            is_trusted=lambda device_id: sources.is_trusted(device_id),
            is_gateway=lambda device_id: sources.is_gateway(device_id),
            had_chance=lambda device_id, sequence: self._claiming.had_chance(device_id, sequence),
        )
        sources = Sources(record.folder_id, self._pending, settings.sync)
        self._claiming = Claiming(
            self._state,
            self._pending,
            sources,
            settings.claims,
            change=self._writer.change,
            confirm=self._writer.confirm,
            on_chance=lambda: self._puller.rescan(),
            in_work=lambda key: self._puller.has_in_work(key),
            time_of_day=lambda: self._writer.time_of_day,
        )
        self._missing = MissingObjects(
            record.folder_id,
            bucket,
            self._keys,
            self._state,
            self._writer.renew,
            settings.sync,
            settings.objects.read_back_size,
        )
        self._served = ServedParts(self._missing.suspect)
        self._quota = FolderQuota(record.folder_id, self._state)
        self._quota.on_change = self._state.on_change = lambda: self.on_used()
        self._puller = Puller(
            record.folder_id,
            self._state,
            self._pending,
            ObjectWriter(
                bucket,
                self._keys,
                memory.blocks_in,
                uploads,
                counters,
                settings.objects,
                grid,
                memory.large_work,
                is_candidate=self._log.garbage.candidates.has,
                clock=self._log.garbage.clock,
                earlier=self._log.earlier_object,
            ),
            self._writer.add,
            counters,
            settings.sync,
            memory,
            sources,
            self._claiming,
            self._quota,
        )
        self._requested = RequestedObjects(self._state, memory, settings.sync)
        self._index_in = IndexIn(record.folder_id, self._claiming, self._pending, settings.sync, memory.large_work)
        self._held_back: set[DeviceID] = set()
        self._telling = 0

    def distrust_checkpoints(self) -> None:
        """Have all entries of a checkpoint compared with their file infos before it is loaded.

        That takes 20 seconds for a million. Else each is compared when it is read.
        """
        self._log.check_entries = True

    async def open(self) -> None:
        """Bring the state up to the end of the log.

        Raises LogWentBack, SegmentsMissing or SegmentDamaged if the store has lost or damaged a part of it: then `heal`
        comes first. Raises StoreError, another DataError or StateDamaged.
        """
        if is_unfinished(self._directory):
            raise LogWentBack("the store has lost a part of the log, and healing it was interrupted")
        await self._log.load()
        await begin_claims(self.record, self._log)
        if self.counts_sources():
            await self.count_sources()
        self._settle()

    async def heal(self, claim: IndexClaimed | None = None) -> Healed:
        """Load what the store has of the log, and renew it. Then the folder can be opened.

        `claim` is the reason if that is a device's word. Raises StoreError, DataError or StateDamaged; a second call
        goes on.
        """
        return await heal(self._bucket, self._keys, self._log, self._state, self._losses, claim)

    async def look_for_missing(self) -> None:
        """Take back all entries whose objects are not in the store, of an open folder that nobody shares yet.

        Raises StoreError or DataError.
        """
        await self._missing.look_at_all()

    def _settle(self) -> None:
        """Forget what is known of peers' indexes if it belongs to another index id of the folder."""
        if self._pending.folder_index_id != self._state.index_id:
            self._pending.clear(self._state.index_id)
        self._writer.opened()

    def _renewed(self) -> None:
        _logger.warning("index of the folder renewed", folder=self.record.folder_id)
        self.on_renewed()
        self._settle()
        self._puller.rescan()

    def _went_back(self, error: DataError) -> None:
        if isinstance(error, IndexClaimed) and not self.heeds_claims():
            _logger.warning("a device knows more of the index than there is", folder=self.record.folder_id)
        elif self._loss is None:
            self._loss = error
            self._ended.set()

    async def log_remains(self, position: int) -> bool:
        """Return whether the store has anything of the log up to a position. Raises StoreError."""
        return await self._log.remains(position)

    def tasks(self) -> Mapping[str, Work]:
        """Return the background tasks by name: they pull, write and follow the log, and write checkpoints.

        Each runs until it is cancelled or fails, and may be run again.
        """
        return {
            "pull": self._puller.run,
            "append to the log": self._writer.append_entries,
            "follow the log": self._writer.follow,
            "write checkpoints": self._writer.write_checkpoints,
            "take back missing objects": self._missing.run,
            "judge claims": self._claiming.run,
        }

    def close(self) -> None:
        """Close the local files."""
        self._puller.close()
        self._state.close()
        self._pending.close()

    @property
    def damaged(self) -> bool:
        """Whether the local files can no longer be used. Then `discard` them and open the folder again."""
        return self._damage

    async def until_damaged(self) -> None:
        """Wait until the local files can no longer be used, or the store has lost or damaged a part of the log.

        Raises StateDamaged in the one case, and LogWentBack, SegmentsMissing or SegmentDamaged in the other.
        """
        await self._ended.wait()
        if self.damaged or self._loss is None:
            raise StateDamaged("a file of the local state is damaged")
        raise self._loss

    def _damaged(self) -> None:
        self._damage = True
        self._ended.set()

    def discard(self) -> None:
        """Delete the local files. They stay open, since sessions may still use the folder."""
        self._puller.close()
        remove_database(self._state.path)
        remove_database(self._pending.path)

    @property
    def checkpoints_written(self) -> int:
        """How many checkpoints were written here."""
        return self._log.checkpoints_written

    def want_checkpoint(self, older_than: float) -> None:
        """Have a checkpoint written soon if the newest is older than so many seconds and the log has gone on since."""
        self._writer.want_checkpoint(older_than)

    async def drain(self) -> None:
        """Before a stop: begin no more pulls, and wait a while for those under way."""
        await self._puller.drain()

    async def flush(self) -> None:
        """Write to the log what is ready, and how far each peer's index is handled. Raises StoreError or DataError."""
        await self._writer.flush()

    async def list_present_objects(self) -> int:
        """Write the list of present objects to the store, and return its position. Raises what writing it raises."""
        return await write_present_objects(self._bucket, self._keys, self._state)

    # Status

    @property
    def error(self) -> str | None:
        """Why the folder does not make progress, or None."""
        return self._writer.error or self._puller.error

    @error.setter
    def error(self, error: str | None) -> None:
        self._writer.error = error

    @property
    def syncing(self) -> bool:
        """Whether entries are being pulled or written to the log."""
        return not self._puller.idle or self._writer.busy

    @property
    def totals(self) -> FolderTotals:
        """What the folder holds."""
        return self._state.totals

    @property
    def pending_totals(self) -> tuple[int, int]:
        """The number of names that are pending, and the bytes of their data."""
        return self._pending.totals

    @property
    def refused_files(self) -> RefusedFiles:
        """The files of peers' indexes that are left out because their file infos break a rule."""
        return self._pending.refused

    @property
    def failing(self) -> tuple[int, Failure | None]:
        """The number of files that could not be pulled and are tried again, and one of them."""
        return self._puller.failing

    @property
    def used_bytes(self) -> int:
        """The bytes that count for quotas: those of the files that the folder has, and of those under way."""
        return self._state.data_bytes + self._quota.in_work

    def bytes_from(self, device_id: DeviceID) -> int:
        """Return the bytes of them that are from a device. Raises StateDamaged."""
        return self._state.bytes_from(device_id) + self._quota.in_work_of(device_id)

    async def count_sources(self) -> None:
        """Count, piece by piece, what the folder has from each device: the first call of `bytes_from` takes long else.

        Raises StateDamaged.
        """
        more = True
        while more:
            more = self._state.count_sources()
            await asyncio.sleep(0)

    @property
    def limits_reached(self) -> Sequence[Limit]:
        """The limits for which files wait."""
        return self._quota.reached

    def limit(self, limits_of: LimitsOf, are_known: Callable[[], bool] = lambda: True) -> None:
        """Let functions say which limits there are for a file of a device, and whether they are those of now."""
        self._quota.limits_of = limits_of
        self._quota.are_known = are_known

    def look_at_quota(self) -> None:
        """Let files come in for which there is room now. The gateway calls this now and then, and after a look at the
        limits."""
        self._puller.look_at_quota()

    @property
    def position(self) -> int:
        """The position of the last segment of the log."""
        return self._state.position

    @property
    def in_work(self) -> int:
        """The number of entries that are being pulled or wait for the log."""
        return self._puller.in_work

    @property
    def missing_files(self) -> int:
        """The number of files that are not in the folder because their objects are missing or damaged."""
        return self._state.missing_count + len(self._missing.noticed)

    def missing_examples(self, limit: int) -> Iterator[tuple[str, str]]:
        """Yield the encrypted names and the keys of objects of some of them, at most `limit`."""
        for named in list(self._missing.noticed)[:limit]:
            sequence = self._state.sequence_of(named.name_hash)
            if sequence is not None:
                name = self._state.entry_at(sequence).file_info.name
                yield name, self._keys.object_of(named.name_hash, named.object_name)
        left = max(limit - len(self._missing.noticed), 0) if self._state.missing_count else 0
        for missing in self._state.missing(left) if left else ():
            yield missing.name, self._keys.object_of(missing.name_hash, missing.object_name)

    def dissents(self, limit: int) -> Dissents:
        """Return how many versions devices have that are not the current ones; with at most `limit` devices."""
        return self._state.dissents(limit)

    # Our index

    @property
    def own_index(self) -> IndexState:
        """The index that all gateways on this store announce for the folder."""
        return IndexState(self._state.index_id or self.record.index_id, self._state.sequence)

    def note_known(self, known: IndexState) -> None:
        """Note how much of our index a peer says that it knows: if it is more than there is, the log went back."""
        own = self.own_index
        if known.index_id == own.index_id and known.max_sequence > own.max_sequence:
            self._writer.claim(known)

    def file_infos_after(
        self, sequence: int, limit: int, device_id: DeviceID | None = None
    ) -> Iterator[tuple[int, bytes]]:
        """Yield at most `limit` sequence numbers above `sequence`, rising, with their serialized file infos.

        Those are of the versions that a device is shown, or of the current ones.
        """
        return self._state.file_infos_after(sequence, limit, device_id)

    def index_sent(self, device_id: DeviceID, sequence: int) -> None:
        """Note that a device was sent our index up to a sequence number."""
        self._claiming.sent(device_id, sequence)

    @contextlib.contextmanager
    def telling(self) -> Iterator[None]:
        """While a device is told of changes: those of other gateways are looked for often."""
        self._telling += 1
        self._writer.attend()
        try:
            yield
        finally:
            self._telling -= 1

    @property
    def attended(self) -> bool:
        """Whether a device is connected that shares the folder."""
        return bool(self._telling or self.sources)

    async def changed_since(self, sequence: int) -> None:
        """Wait until the folder has a sequence number above `sequence`."""
        await self._writer.changed_since(sequence)

    def entry(self, name: str) -> Entry | None:
        """Return what the folder has under an encrypted name."""
        return self._state.entry(name)

    async def requested_block(self, request: RequestReceived, by: DeviceID) -> RequestedBlock | None:
        """Return where the store has the block that a device requests; None where no stored block matches.

        Without the block's hash it is that of the version which the device is shown. For a very large file the device
        may have to wait for its turn.
        """
        self._claiming.asked(by)
        found = await self._requested.find(request, by)
        if found is None:
            return None
        key = self._keys.object(request.name, found.object_name)
        if found.entry is not None:
            self._served.expect(key, found.entry, request.offset)
        return RequestedBlock(key, request.offset, request.size, found.part_end)

    def block_read(self, key: str, offset: int, block: memoryview) -> None:
        """Check a block of an object that was read for a peer, with those before it."""
        self._served.passed(key, offset, block)

    def read_failed(self, key: str, start: int, size: int) -> bool:
        """Note that an object is missing or lacks a range. Return whether it is one of this folder."""
        if not key.startswith(self._keys.base):
            return False
        self._missing.suspect(FailedRead(key, start, size))
        return True

    def part_differs(self, part: WrongPart) -> None:
        """Note that a part of an object has other bytes than the log says."""
        self._missing.suspect(part)

    def stored_after(self, key: bytes, last: bytes, limit: int) -> list[tuple[bytes, list[StoredObject]]]:
        """Return the objects of at most `limit` names whose hashes are above `key` and up to `last`, in their order."""
        return self._state.stored_after(key, last, limit)

    async def cover_damage(self) -> None:
        """Write a checkpoint if a segment of the log is damaged that none covers. Raises StoreError."""
        await self._log.cover_damage()

    @property
    def directory(self) -> Path:
        """Where its local files are."""
        return self._directory

    @property
    def damaged_log(self) -> Sequence[str]:
        """What of the folder's log is known to be damaged in the store, as texts. The local state has what it said."""
        return self._log.damage

    # Peers

    @property
    def sources(self) -> Mapping[DeviceID, Source]:
        """The connected peers that share the folder."""
        return self._puller.sources.connected

    def add_source(self, device_id: DeviceID, source: Source, *, trusted: bool = True, gateway: bool = False) -> None:
        """Add a connected peer that shares the folder.

        `trusted` says whether it encrypts for us, `gateway` whether an untrusted one is a gateway too.
        """
        self._puller.add_source(device_id, source, trusted=trusted, gateway=gateway)
        self._claiming.joined(device_id)
        self._writer.attend()

    def remove_source(self, device_id: DeviceID, source: Source) -> None:
        """Remove a peer that has disconnected or no longer shares the folder."""
        self._held_back.discard(device_id)
        if self.sources.get(device_id) is source:
            self._claiming.left(device_id)
        self._puller.remove_source(device_id, source)

    def suspects(self, peer: DeviceID, after: int) -> tuple[Suspect, ...]:
        """Return the devices from which the first entries of our index above a sequence number are, but for `peer`."""
        sources = (source for _, _, source in itertools.islice(self._state.sources(after), _SUSPECT_ENTRIES))
        is_trusted = self._puller.sources.is_trusted
        return suspects((source, is_trusted(source)) for source in sources if source is not None and source != peer)

    def received(self, device_id: DeviceID) -> IndexState:
        """Return how much of a peer's index has arrived here."""
        return self._pending.received(device_id)

    def handled(self, device_id: DeviceID) -> IndexState:
        """Return how much of a peer's index the log reflects."""
        return self._state.cursor(device_id)

    def start_index(self, device_id: DeviceID, announced: IndexState) -> IndexState:
        """Take the index state that a peer announces, and return how much of that index has arrived here."""
        self._writer.heard.add(device_id)
        received = self._pending.received(device_id)
        if received.index_id == announced.index_id != 0:
            return received
        cursor = self._state.cursor(device_id)
        if cursor.index_id != announced.index_id or announced.index_id == 0:
            cursor = IndexState(announced.index_id, 0)
        self._pending.start(device_id, cursor)
        return cursor

    def drop_index(self, device_id: DeviceID) -> None:
        """Forget what is pending from a peer that may announce nothing."""
        self._writer.heard.discard(device_id)
        self._pending.start(device_id, IndexState())

    async def prepare_index(self, device_id: DeviceID, announced: IndexState) -> None:
        """Do what takes long of `start_index`, piece by piece: drop what is pending of another index of the peer."""
        if not self._pending.received(device_id).index_id == announced.index_id != 0:
            await self._pending.empty(device_id)

    async def begin_index(self, device_id: DeviceID, announced: IndexState) -> None:
        """Write to the log that a peer has another index than before, if it has. This comes before `start_index`.

        Raises StoreError or DataError.
        """
        await self._writer.begin_index(device_id, announced.index_id)

    async def take_index(self, device_id: DeviceID, index_id: int, event: IndexReceived) -> bool:
        """Take an index message of a peer. Raises RemoteProtocolError or FolderRefused; then nothing was kept.

        Return whether the whole message was taken. If not, what follows must not be taken either: the peer's part of
        the local disk is full, and the peer has to send the rest again over another connection, after `index_room`.
        """
        taken = await self._index_in.take(device_id, index_id, event)
        if taken.lowest is not None:
            self._puller.rescan_from(device_id, taken.lowest)
        self._puller.wake()
        if not taken.complete:
            self._held_back.add(device_id)
        return taken.complete

    async def skip_index(self, device_id: DeviceID, event: IndexReceived) -> None:
        """Drop an index message that comes after one that was not taken as a whole.

        Raises RemoteProtocolError or FolderRefused.
        """
        await self._index_in.skip(device_id, event)

    async def index_room(self, device_id: DeviceID) -> None:
        """Wait until more of a peer's index can be taken."""
        await self._index_in.until_room(device_id)

    @property
    def held_back(self) -> Mapping[DeviceID, int]:
        """The peers whose indexes wait for room on the local disk, with the bytes that they take there."""
        return {device_id: self._pending.held_by(device_id) for device_id in self._held_back}

    def announcing_devices(self) -> list[DeviceID]:
        """Return all devices of whose indexes anything is known here."""
        return self._pending.devices()

    async def forget_device(self, device_id: DeviceID) -> None:
        """Forget what is pending from a device that is not accepted any more."""
        self._writer.heard.discard(device_id)
        await self._pending.forget(device_id)
        self._puller.rescan()
