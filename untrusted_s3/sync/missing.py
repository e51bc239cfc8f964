"""Objects of a folder that turn out to be missing or damaged: their entries are taken back, so that devices see that we
lack the files and send them again.

A read that fails is only a hint, and so are bytes with another CRC-32C than the log says. What counts is what the store
answers when it is asked for the object itself: that it does not exist, has another size, is shorter than it says, or
has the wrong bytes twice. A store that does not answer, or refuses, says nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import crc32c
import structlog

from untrusted_s3.errors import AnswerTooShort, DataError, NoSuchKey, StoreError
from untrusted_s3.index.entry import Entry, NamedObject, Removal
from untrusted_s3.index.renewal import Plan, without_objects
from untrusted_s3.index.state import FolderState
from untrusted_s3.objects.checksums import crc32c_of_range
from untrusted_s3.objects.missing import find_missing
from untrusted_s3.settings import SyncSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.sync.served_parts import WrongPart

_logger = structlog.get_logger()
_MAX_SUSPECTS = 1000


@dataclass(frozen=True, slots=True)
class FailedRead:
    """A read of an object that failed."""

    key: str
    start: int
    size: int


class MissingObjects:
    """Notices what is missing in one folder, and takes it back.

    Attributes:
        noticed: The objects that are missing and that the folder still names.
    """

    def __init__(
        self,
        folder_id: str,
        bucket: Bucket,
        keys: FolderKeys,
        state: FolderState,
        renew: Callable[[Plan], Awaitable[None]],
        settings: SyncSettings,
        read_size: int,
    ) -> None:
        """`renew` renews the log by a plan. Raises StoreError or DataError.

        `read_size` bytes of a suspected object are in memory at once.
        """
        self.noticed: dict[NamedObject, None] = {}
        self._folder_id = folder_id
        self._bucket = bucket
        self._keys = keys
        self._state = state
        self._renew = renew
        self._settings = settings
        self._read_size = read_size
        self._suspects: dict[str, FailedRead | WrongPart] = {}
        self._wanted = asyncio.Event()
        self._last_list = self._last_renewal = float("-inf")
        self._more = False  # whether the last look left some out
        self._pause = settings.missing_pause

    def suspect(self, suspect: FailedRead | WrongPart) -> None:
        """Look at an object of which a read has failed or given the wrong bytes."""
        if len(self._suspects) < _MAX_SUSPECTS:
            self._suspects[suspect.key] = suspect
            self._wanted.set()

    async def look_at_all(self) -> None:
        """Take back everything that is missing; no device may have been told of an entry.

        Raises StoreError or DataError.
        """
        self._more = True
        while self._more:
            await self._look_at_all()
            if self.noticed:
                await self._take_back()

    async def run(self) -> None:
        """Look at suspects and take back what is missing, until cancelled."""
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                await self._look()
                if self.noticed:
                    await self._look_at_all()
                while self.noticed:
                    await self._take_back()
                    if self._more:
                        await self._look_at_all()
            except (StoreError, DataError) as error:
                _logger.warning("missing objects not taken back", folder=self._folder_id, error=str(error))
                await asyncio.sleep(self._settings.missing_pause)
                if self.noticed:
                    self._wanted.set()

    async def _look(self) -> None:
        while self._suspects:
            suspect = self._suspects.pop(next(iter(self._suspects)))
            named = self._named(suspect.key)
            if named is None or named in self.noticed:
                continue
            if await self._is_missing(suspect, named.size):
                self._note(named)

    def _named(self, key: str) -> NamedObject | None:
        """Return the object with this key if the folder names it."""
        parsed = self._keys.parse_object(key)
        if parsed is None:
            return None
        objects = self._state.objects_of(parsed[0])
        return next((named for named in objects if named.object_name == parsed[1]), None)

    async def _is_missing(self, suspect: FailedRead | WrongPart, size: int) -> bool:
        try:
            if await self._bucket.size(suspect.key) != size:
                return True
            if isinstance(suspect, WrongPart):
                return await self._is_wrong(suspect)
            await self._bucket.get(suspect.key, suspect.start, suspect.size)
        except (NoSuchKey, AnswerTooShort):
            return True
        except StoreError:
            pass
        return False

    async def _is_wrong(self, part: WrongPart) -> bool:
        """Return whether a part has the wrong bytes twice. Its trailer may be all that is not as expected."""
        if part.data_end < part.end:
            trailer = await self._bucket.get(part.key, part.data_end, part.end - part.data_end)
            if crc32c.crc32c(trailer, part.passed) == part.checksum:
                return False
        for _ in range(2):
            found = await crc32c_of_range(self._bucket, part.key, part.start, part.end, self._read_size)
            if found == part.checksum:
                return False
        return True

    async def _look_at_all(self) -> None:
        """Compare all entries with a listing, but not often: where one object is missing, others may be.

        When very many are, the rest has its turn after these are taken back.
        """
        now = asyncio.get_running_loop().time()
        if now - self._last_list < self._settings.object_list_interval and not self._more:
            return
        self._last_list = now
        limit = self._settings.missing_at_once
        found = await find_missing(self._bucket, self._keys, self._state.objects(), limit)
        self._more = len(found) >= limit
        for named in found:
            self._note(named)

    def _note(self, named: NamedObject) -> None:
        if named not in self.noticed:
            self.noticed[named] = None
            key = self._keys.object_of(named.name_hash, named.object_name)
            if len(self.noticed) <= self._settings.missing_logged:
                _logger.error("object missing or damaged", folder=self._folder_id, key=key)

    async def _take_back(self) -> None:
        """Renew the log. What is noticed soon after that waits, ever longer."""
        settings, now = self._settings, asyncio.get_running_loop().time
        quiet = now() - self._last_renewal
        if quiet > settings.max_missing_pause + self._pause:
            self._pause = settings.missing_pause
        else:
            await asyncio.sleep(max(self._pause - quiet, 0))
            await self._look()
            self._pause = min(2 * self._pause, settings.max_missing_pause)
        count = len(self.noticed)
        await self._renew(self._plan)
        self._last_renewal = now()
        self.noticed.clear()
        _logger.error("files taken back, for their objects are missing", folder=self._folder_id, files=count)

    def _plan(self, state: FolderState) -> tuple[list[Removal], list[Entry]]:
        keys = dict.fromkeys(named.name_hash for named in self.noticed)
        return without_objects(filter(None, map(state.row, keys)), self.noticed)
