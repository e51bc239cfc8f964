"""A stored folder that is attacked, and the plans that mend it."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from tests.file_infos import device
from tests.simulated import SimulatedBucket, SimulatedStore
from tests.vault.stored_folder import FOLDER_ID, StoredFolder, stored_folder
from tests.vault.stored_folder import Change as InfoChange
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.log import FolderLog
from untrusted_s3.index.state import FolderState
from untrusted_s3.settings import LogSettings
from untrusted_s3.vault.opener import Opener
from untrusted_s3.way_back.change import Change
from untrusted_s3.way_back.plan import Plan, carry_out
from untrusted_s3.way_back.retraction import Retraction
from untrusted_s3.way_back.suspects import Suspects

HONEST, ATTACKER, OTHER = (device(number) for number in (11, 12, 13))


def by(source: DeviceID | None, *entries: Entry) -> list[Entry]:
    """Return entries as a device's."""
    return [dataclasses.replace(entry, source=source) for entry in entries]


def forged(
    name: str, version: int, *, deleted: bool = False, kind: pb.FileInfoType = pb.DIRECTORY, seed: int = 0
) -> Entry:
    """Return an entry with garbage inside."""
    message = pb.FileInfo(
        name=name,
        type=pb.FILE if deleted else kind,
        deleted=deleted,
        version=pb.Vector(counters=[pb.Counter(id=1, value=version)]),
        encrypted=bytes([seed]) * 200,
    )
    return Entry(FileInfo(message.SerializeToString(), message), None, ATTACKER)


def of_version(value: int) -> InfoChange:
    """Return a change of a real file info that gives it a version."""

    def change(message: pb.FileInfo) -> None:
        message.version.counters[0].value = value

    return change


def version_of(entry: Entry) -> int:
    """Return the value of the one counter of an entry's version."""
    return entry.file_info.message.version.counters[0].value


class Attacked:
    """A folder of a gateway, and a command that mends it with a state and a client of its own."""

    def __init__(self, stored: StoredFolder, directory: Path) -> None:
        self.stored = stored
        self.directory = directory
        self.opener = Opener(stored.key, FOLDER_ID)

    @classmethod
    async def create(cls, directory: Path, bucket: SimulatedBucket | None = None) -> Attacked:
        """Return a folder without entries."""
        return cls(await stored_folder(bucket or SimulatedBucket(), directory), directory)

    def name(self, path: str) -> str:
        """Return the encrypted name of a path."""
        return self.stored.key.encrypt_name(path)

    async def contents(self) -> dict[str, Entry]:
        """Return what the folder has by path; entries whose names do not decrypt by these."""
        async with self.loaded() as state:
            entries = [state.entry_at(sequence) for sequence, _, _ in state.named_file_infos()]
        return {self.opener.path(entry.file_info.name) or entry.file_info.name: entry for entry in entries}

    async def retract(
        self,
        make_suspects: Callable[[FolderState], Suspects],
        *,
        with_password: bool = False,
        bucket: SimulatedBucket | None = None,
        settings: LogSettings | None = None,
    ) -> tuple[dict[str, Change], Retraction]:
        """Take entries back, as the command does. Return the changes by path, and the plan."""
        bucket = bucket or self.client()
        settings = settings or LogSettings()
        with self._state() as state, self._state() as replayed:
            log = self.log(bucket, state, settings)
            await log.load()
            opener = self.opener if with_password else None
            plan = Retraction(bucket, self.stored.keys, make_suspects(state), replayed, opener, settings)
            return await self._carry_out(log, plan), plan

    async def carry_out(self, make_plan: Callable[[SimulatedBucket], Plan]) -> dict[str, Change]:
        """Make the changes of a plan. Return them by path."""
        bucket = self.client()
        with self._state() as state:
            log = self.log(bucket, state, LogSettings())
            await log.load()
            return await self._carry_out(log, make_plan(bucket))

    def log(self, bucket: SimulatedBucket, state: FolderState, settings: LogSettings) -> FolderLog:
        """Return the log as another client of the store has it."""

        def now() -> float:
            return self.stored.now

        return FolderLog(bucket, self.stored.keys, state, DeviceID(bytes(32)), settings, now, time_of_day=now)

    async def _carry_out(self, log: FolderLog, plan: Plan) -> dict[str, Change]:
        changes: list[Change] = []
        await carry_out(log, plan, changes.append)
        found = {self.opener.path(change.name) or change.name: change for change in changes}
        assert len(found) == len(changes), "a name was changed twice"
        return found

    @contextlib.asynccontextmanager
    async def loaded(self) -> AsyncIterator[FolderState]:
        """Provide the state at the end of the log."""
        with self._state() as state:
            await self.log(self.client(), state, LogSettings()).load()
            yield state

    def client(self) -> SimulatedBucket:
        """Return another client of the store."""
        return SimulatedBucket(self.store)

    @property
    def store(self) -> SimulatedStore:
        """The store."""
        assert isinstance(self.stored.bucket, SimulatedBucket)
        return self.stored.bucket.store

    @contextlib.contextmanager
    def _state(self) -> Iterator[FolderState]:
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            state = FolderState(Path(directory, "state.sqlite"))
            try:
                yield state
            finally:
                state.close()
