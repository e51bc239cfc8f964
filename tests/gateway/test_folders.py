"""Opening, creating and renewing folders, and their background tasks."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable

import pytest
from structlog.testing import capture_logs

from tests.connections.loopback import until
from tests.gateway.fakes import FakeFolder, FakeSession
from tests.simulated import Fault, SimulatedBucket
from untrusted_s3.bep.cluster_config import FolderOffer, IndexState
from untrusted_s3.errors import DataError, FolderRefused, StateDamaged, StoreUnreachable
from untrusted_s3.gateway.folders import Folders
from untrusted_s3.gateway.sessions import Sessions
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.supervisor import Supervisor
from untrusted_s3.sync.folder import Folder

TOKEN = bytes(range(40))


class Store:
    """Folders on a simulated bucket. `opened` are all folders that were made, `errors` what opening them raises."""

    def __init__(self, max_folders: int = 1000) -> None:
        self.bucket = SimulatedBucket()
        self.sessions = Sessions()
        self.supervisor = Supervisor(1000, 1000, sleep=self._never)
        self.opened: list[FakeFolder] = []
        self.errors: list[Exception | None] = []
        self.pauses: list[float] = []
        self.folders = Folders(
            self.bucket,
            self._new_folder,
            self.supervisor,
            self.sessions,
            retry_delay=5,
            max_folders=max_folders,
            sleep=self._pause,
        )

    def add(self, *records: FolderRecord) -> None:
        for record in records:
            key = FolderKeys.of(record.folder_id).record
            self.bucket.store.put(key, json.dumps(record.to_json()).encode())

    def _new_folder(self, record: FolderRecord) -> Folder:
        folder = FakeFolder(record, self.errors.pop(0) if self.errors else None)
        self.opened.append(folder)
        return folder.as_folder

    async def _never(self, seconds: float) -> None:
        await asyncio.get_running_loop().create_future()

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)

    @property
    def tasks(self) -> list[str]:
        return [task.name for task in self.supervisor.status()]


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    opened = Store()
    yield opened
    await opened.supervisor.stop()


def record(folder_id: str, *, removed: bool = False) -> FolderRecord:
    return FolderRecord(folder_id, "Label", TOKEN, 0x1234, removed)


def offer(folder_id: str = "f", token: bytes = TOKEN) -> FolderOffer:
    return FolderOffer(folder_id, "Label", token, paused=False, peer=IndexState(), known=IndexState())


def names(*folder_ids: str) -> list[str]:
    tasks = ("fail", "wait", "watch the local state")
    return [f"folder {folder_id}: {task}" for folder_id in folder_ids for task in tasks]


async def test_the_folders_of_the_store_are_opened_and_their_tasks_run(store: Store) -> None:
    store.add(record("b"), record("a"))
    await store.folders.open_all()
    assert store.folders.ids == ["a", "b"]
    assert [folder.record.folder_id for folder in store.folders] == ["a", "b"]
    assert len(store.folders) == 2
    assert store.tasks == names("a", "b")
    await until(lambda: all(folder.running == {"wait", "fail"} for folder in store.opened))
    assert store.folders.get("a") is not None
    assert store.folders.get("c") is None


async def test_a_folder_that_is_being_removed_is_not_opened(store: Store) -> None:
    store.add(record("a", removed=True), record("b"))
    with capture_logs() as lines:
        await store.folders.open_all()
    assert store.folders.ids == ["b"]
    assert [line["folder"] for line in lines if line["event"] == "folder not opened"] == ["a"]


async def test_an_offer_creates_a_folder_once(store: Store) -> None:
    session = FakeSession()
    store.sessions.add(session.as_session)
    created = await store.folders.for_offer(offer())
    assert json.loads(store.bucket.store.body(FolderKeys.of("f").record))["id"] == "f"
    assert session.heard == ["folder opened"]
    again = await asyncio.gather(*(store.folders.for_offer(offer()) for _ in range(3)))
    assert again == [created] * 3
    assert len(store.opened) == 1


async def test_offers_at_once_create_one_folder(store: Store) -> None:
    found = await asyncio.gather(*(store.folders.for_offer(offer()) for _ in range(3)))
    assert len(store.opened) == 1 and len(set(map(id, found))) == 1


async def test_an_offer_with_another_password_is_refused(store: Store) -> None:
    await store.folders.for_offer(offer())
    with pytest.raises(FolderRefused):
        await store.folders.for_offer(offer(token=bytes(40)))
    assert len(store.opened) == 1


async def test_an_offer_of_a_folder_that_is_being_removed_is_refused(store: Store) -> None:
    store.add(record("f", removed=True))
    with pytest.raises(FolderRefused, match="remov"):
        await store.folders.for_offer(offer())
    assert store.opened == []


async def test_there_is_a_bound_on_the_number_of_folders() -> None:
    store = Store(max_folders=2)
    await store.folders.for_offer(offer("a"))
    await store.folders.for_offer(offer("b"))
    with pytest.raises(FolderRefused, match="2 folders"):
        await store.folders.for_offer(offer("c"))
    await store.folders.for_offer(offer("a"))
    await store.supervisor.stop()


async def test_an_offer_while_the_store_is_away_can_be_made_again(store: Store) -> None:
    store.bucket.fault = lambda call: Fault.UNREACHABLE
    with pytest.raises(StoreUnreachable):
        await store.folders.for_offer(offer())
    store.bucket.fault = lambda call: None
    await store.folders.for_offer(offer())
    assert store.folders.ids == ["f"]


@pytest.mark.parametrize("error", [StoreUnreachable("away"), DataError("a bad segment")])
async def test_a_folder_that_cannot_be_opened_is_closed(store: Store, error: Exception) -> None:
    store.errors = [error]
    with pytest.raises(type(error)):
        await store.folders.for_offer(offer())
    assert store.opened[0].heard == ["open", "close"]
    assert (store.folders.ids, store.tasks) == ([], [])


async def test_damaged_local_state_is_found_at_the_start_and_loaded_from_the_store(store: Store) -> None:
    store.add(record("f"))
    store.errors = [StateDamaged("not a database")]
    await store.folders.open_all()
    damaged, renewed = store.opened
    assert damaged.heard == ["open", "close", "discard"]
    assert store.folders.get("f") is renewed.as_folder
    assert store.tasks == names("f")


async def test_damage_while_running_renews_the_folder(store: Store) -> None:
    session = FakeSession()
    store.add(record("f"), record("g"))
    await store.folders.open_all()
    store.sessions.add(session.as_session)
    damaged, other = store.opened
    await until(lambda: damaged.running == {"wait", "fail"})
    damaged.damage()
    await until(lambda: len(store.opened) == 3 and store.tasks == names("f", "g"))
    renewed = store.opened[2]
    assert store.folders.get("f") is renewed.as_folder
    assert damaged.heard == ["open", "discard"], "sessions may still use it: it is not closed"
    assert damaged.running == set()
    assert session.heard == ["end: a folder is opened again", "folder opened"]
    await until(lambda: renewed.running == {"wait", "fail"})
    assert other.heard == ["open"]
    assert store.folders.failures() == {}


async def test_a_task_that_fails_because_of_the_damage_is_no_failure(store: Store) -> None:
    await store.folders.for_offer(offer())
    (damaged,) = store.opened
    await until(lambda: damaged.running == {"wait", "fail"})
    damaged.damage()
    damaged.task_error.set_exception(StateDamaged("not a database"))
    await until(lambda: len(store.opened) == 2 and store.tasks == names("f"))
    assert store.supervisor.failing == []


async def test_a_folder_that_cannot_be_renewed_says_so_and_is_tried_again(store: Store) -> None:
    await store.folders.for_offer(offer())
    (damaged,) = store.opened
    store.errors = [StoreUnreachable("away"), DataError("a bad segment")]
    damaged.damage()
    await until(lambda: len(store.opened) == 4 and store.tasks == names("f"))
    assert store.pauses == [5, 5]
    assert damaged.error == "the local state is damaged and cannot be loaded from the store: a bad segment"
    assert store.folders.get("f") is store.opened[3].as_folder


async def test_a_failing_task_is_told_of_its_folder_and_others_go_on(store: Store) -> None:
    store.add(record("f"), record("g"))
    await store.folders.open_all()
    one, other = store.opened
    await until(lambda: one.running == other.running == {"wait", "fail"})
    with capture_logs():
        one.task_error.set_exception(ValueError("no"))
        await until(lambda: bool(store.supervisor.failing))
    assert store.supervisor.failing == ["folder f: fail"]
    assert store.folders.failures() == {"f": "internal error, see the log: ValueError: no"}
    assert one.running == {"wait"} and other.running == {"wait", "fail"}


async def test_before_a_stop_all_are_drained_flushed_and_closed(store: Store) -> None:
    store.add(record("f"), record("g"))
    await store.folders.open_all()
    steps: list[Callable[[], object]] = [store.folders.drain, store.folders.flush]
    for step in steps:
        result = step()
        assert asyncio.iscoroutine(result)
        await result
    store.folders.close()
    assert [folder.heard for folder in store.opened] == [["open", "drain", "flush", "close"]] * 2
