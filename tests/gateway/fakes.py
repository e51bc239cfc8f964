"""Folders and sessions as far as the gateway sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from types import SimpleNamespace
from typing import Any, cast

from untrusted_s3.errors import DataError, IndexClaimed, StateDamaged
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.healing import Healed
from untrusted_s3.sync.session import Session

Work = Callable[[], Coroutine[Any, Any, None]]


class FakeFolder:
    """A folder whose tasks only wait.

    Attributes:
        open_error: What `open` raises.
        may_open: What `open` waits for.
        flush_error: What `flush` raises.
        task_error: What the task "fail" raises once it is set.
        healed: What `heal` returns or raises.
        remains: Up to which position the store has something of its log.
        missing_files: How many files' objects are missing.
        damaged_log: What of its log is damaged.
        on_renewed: What it calls when its index is renewed.
        heeds_claims: What it asks before it believes a device.
        heard: What was done with the folder, in order.
        running: The tasks that run now.
    """

    def __init__(self, record: FolderRecord, open_error: Exception | None = None) -> None:
        self.record = record
        self.open_error = open_error
        self.may_open: asyncio.Event | None = None
        self.flush_error: Exception | None = None
        self.task_error: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.error: str | None = None
        self.healed: Healed | Exception = Healed((), 0, 0)
        self.position = 5
        self.remains = 0
        self.missing_files = 0
        self.damaged_log: list[str] = []
        self.on_renewed: Callable[[], object] = lambda: None
        self.heeds_claims: Callable[[], bool] = lambda: True
        self.heard: list[str] = []
        self.running: set[str] = set()
        self._loss: DataError | None = None
        self._damage = asyncio.Event()

    @property
    def as_folder(self) -> Folder:
        """The same object, typed as what it stands for."""
        return cast(Folder, self)

    @property
    def damaged(self) -> bool:
        return (self._damage.is_set() and self._loss is None) or isinstance(self.open_error, StateDamaged)

    def damage(self) -> None:
        """The local state cannot be used from now on."""
        self._damage.set()

    def lose(self, error: DataError) -> None:
        """The store turns out to have lost a part of the log."""
        self._loss = error
        self._damage.set()

    async def heal(self, claim: IndexClaimed | None = None) -> Healed:
        self.heard.append(f"heal, {claim}" if claim is not None else "heal")
        if isinstance(self.healed, Exception):
            raise self.healed
        self.open_error = None
        return self.healed

    async def log_remains(self, position: int) -> bool:
        return 0 < self.remains <= position

    def read_failed(self, key: str, start: int, size: int) -> bool:
        self.heard.append(f"read failed: {key}")
        return key.startswith(f"folders/{self.record.folder_id}/")

    async def look_for_missing(self) -> None:
        self.heard.append("look for missing")

    def distrust_checkpoints(self) -> None:
        self.heard.append("distrust checkpoints")

    def block_read(self, key: str, offset: int, block: memoryview) -> None:
        self.heard.append(f"block read: {key}")

    async def open(self) -> None:
        if self.may_open is not None:
            await self.may_open.wait()
        self.heard.append("open")
        if self.open_error is not None:
            raise self.open_error

    def tasks(self) -> Mapping[str, Work]:
        return {"wait": self._wait, "fail": self._fail}

    async def until_damaged(self) -> None:
        await self._damage.wait()
        raise self._loss or StateDamaged("a file is damaged")

    def discard(self) -> None:
        self.heard.append("discard")

    def close(self) -> None:
        self.heard.append("close")

    async def drain(self) -> None:
        self.heard.append("drain")

    async def flush(self) -> None:
        self.heard.append("flush")
        if self.flush_error is not None:
            raise self.flush_error

    async def _wait(self) -> None:
        self.running.add("wait")
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.running.remove("wait")

    async def _fail(self) -> None:
        self.running.add("fail")
        try:
            await asyncio.shield(self.task_error)
        finally:
            self.running.remove("fail")


class FakeSession:
    """A session that notes what it is told."""

    def __init__(self, *shared_folders: str) -> None:
        self.heard: list[str] = []
        self.shared_folders = list(shared_folders)
        self.transport = SimpleNamespace(abort=lambda: self.heard.append("abort"))

    @property
    def as_session(self) -> Session:
        """The same object, typed as what it stands for."""
        return cast(Session, self)

    def folder_opened(self) -> None:
        self.heard.append("folder opened")

    def end(self, reason: str) -> None:
        self.heard.append(f"end: {reason}")

    def say_close(self, reason: str) -> None:
        self.heard.append(f"close: {reason}")
