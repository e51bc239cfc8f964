"""Opening, creating and renewing folders, and their background tasks."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator, Callable

import pytest
from structlog.testing import capture_logs

from tests.file_infos import device
from tests.gateway.fakes import FakeFolder, FakeSession
from tests.simulated import Fault, SimulatedBucket
from tests.waiting import until
from untrusted_s3.bep.cluster_config import FolderOffer, IndexState
from untrusted_s3.errors import (
    DataError,
    FolderRefused,
    IndexClaimed,
    LogWentBack,
    OtherPassword,
    SegmentDamaged,
    SegmentsMissing,
    StateDamaged,
    StateFolderUnusable,
    StoreRefused,
    StoreUnreachable,
)
from untrusted_s3.gateway.folders import Folders
from untrusted_s3.gateway.pauses import Pauses
from untrusted_s3.gateway.sessions import Sessions
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.losses import Forgotten, LossRecord, LostSegments
from untrusted_s3.store.records import FolderRecord
from untrusted_s3.supervisor import Supervisor
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.healing import Healed

THEIRS, OTHER = device(1), device(2)
TOKEN = bytes(range(40))
DAMAGED = f"{2:020d}-{'a' * 32}"
LOSS = LossRecord(4, OTHER, 1_700_000_000, 0, (LostSegments(2, 3, 4, 5),), (DAMAGED,), Forgotten(9, 12, 7))


class Store:
    """Folders on a simulated bucket. `opened` are all folders that were made, `errors` what opening them raises.

    `bad` is what making a folder raises, by its ID.
    """

    def __init__(
        self,
        max_folders: int = 1000,
        folders_of_device: int = 1000,
        retry_delay: float = 5,
        renewal_pauses: Pauses | None = None,
        in_doubt: bool = False,
    ) -> None:
        self.bucket = SimulatedBucket()
        self.sessions = Sessions()
        self.supervisor = Supervisor(1000, 1000, sleep=self._never)
        self.opened: list[FakeFolder] = []
        self.errors: list[Exception | None] = []
        self.bad: dict[str, Exception] = {}
        self.healed = Healed((), 0, 0)
        self.pauses: list[float] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.folders = Folders(
            self.bucket,
            self._new_folder,
            self.supervisor,
            self.sessions,
            retry_delay=retry_delay,
            max_retry_delay=30,
            close_timeout=0.01,
            max_folders=max_folders,
            folders_of_device=folders_of_device,
            renewal_pauses=renewal_pauses,
            sleep=self._pause,
            in_doubt=in_doubt,
        )

    def add(self, *records: FolderRecord) -> None:
        for record in records:
            key = FolderKeys.of(record.folder_id).record
            self.bucket.store.put(key, json.dumps(record.to_json()).encode())

    def _new_folder(self, record: FolderRecord) -> Folder:
        if record.folder_id in self.bad:
            raise self.bad[record.folder_id]
        folder = FakeFolder(record, self.errors.pop(0) if self.errors else None)
        folder.healed = self.healed
        folder.may_open = self.may_open
        self.opened.append(folder)
        return folder.as_folder

    async def _never(self, seconds: float) -> None:
        await asyncio.get_running_loop().create_future()

    async def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await asyncio.sleep(0)
        await self.hold.wait()

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
    created = await store.folders.for_offer(offer(), THEIRS)
    assert json.loads(store.bucket.store.body(FolderKeys.of("f").record))["id"] == "f"
    assert session.heard == ["folder opened"]
    again = await asyncio.gather(*(store.folders.for_offer(offer(), THEIRS) for _ in range(3)))
    assert again == [created] * 3
    assert len(store.opened) == 1


async def test_offers_at_once_create_one_folder(store: Store) -> None:
    found = await asyncio.gather(*(store.folders.for_offer(offer(), THEIRS) for _ in range(3)))
    assert len(store.opened) == 1 and len(set(map(id, found))) == 1


async def test_an_offer_with_another_password_is_refused(store: Store) -> None:
    await store.folders.for_offer(offer(), THEIRS)
    with pytest.raises(FolderRefused):
        await store.folders.for_offer(offer(token=bytes(40)), THEIRS)
    assert len(store.opened) == 1


async def test_an_offer_of_a_folder_that_is_being_removed_is_refused(store: Store) -> None:
    store.add(record("f", removed=True))
    with pytest.raises(FolderRefused, match="remov"):
        await store.folders.for_offer(offer(), THEIRS)
    assert store.opened == []


async def test_who_uses_an_id_that_another_device_took_hears_of_that(store: Store) -> None:
    await store.folders.for_offer(offer(), THEIRS)
    with pytest.raises(OtherPassword, match=f"the device {THEIRS} has offered a folder with this ID before"):
        await store.folders.for_offer(offer(token=bytes(40)), OTHER)
    with pytest.raises(OtherPassword, match="another password: the device uses"):
        await store.folders.for_offer(offer(token=bytes(40)), THEIRS)
    await store.folders.for_offer(offer(), OTHER)


async def test_one_device_cannot_create_all_folders() -> None:
    store = Store(folders_of_device=2)
    store.add(record("old"))
    await store.folders.for_offer(offer("a"), THEIRS)
    await store.folders.for_offer(offer("b"), THEIRS)
    with pytest.raises(FolderRefused, match="has created 2 folders here and may create no more"):
        await store.folders.for_offer(offer("c"), THEIRS)
    await store.folders.for_offer(offer("c"), OTHER)
    for folder_id in ("a", "c", "old"):
        await store.folders.for_offer(offer(folder_id), THEIRS)
    assert store.folders.ids == ["a", "b", "c", "old"]
    await store.supervisor.stop()


async def test_there_is_a_bound_on_the_number_of_folders() -> None:
    store = Store(max_folders=2)
    await store.folders.for_offer(offer("a"), THEIRS)
    await store.folders.for_offer(offer("b"), THEIRS)
    with pytest.raises(FolderRefused, match="2 folders"):
        await store.folders.for_offer(offer("c"), THEIRS)
    await store.folders.for_offer(offer("a"), THEIRS)
    await store.supervisor.stop()


async def test_an_offer_while_the_store_is_away_can_be_made_again(store: Store) -> None:
    store.bucket.fault = lambda call: Fault.UNREACHABLE
    with pytest.raises(StoreUnreachable):
        await store.folders.for_offer(offer(), THEIRS)
    store.bucket.fault = lambda call: None
    await store.folders.for_offer(offer(), THEIRS)
    assert store.folders.ids == ["f"]


@pytest.mark.parametrize(
    ("error", "raised", "tasks"),
    [
        (StoreUnreachable("away"), StoreUnreachable, []),
        (DataError("a bad segment"), FolderRefused, ["folder f: open"]),
    ],
)
async def test_a_folder_that_cannot_be_opened_is_closed(
    store: Store, error: Exception, raised: type[Exception], tasks: list[str]
) -> None:
    store.errors = [error]
    with pytest.raises(raised):
        await store.folders.for_offer(offer(), THEIRS)
    assert store.opened[0].heard == ["open", "close"]
    assert (store.folders.ids, store.tasks) == ([], tasks)


async def test_damaged_local_state_is_found_at_the_start_and_loaded_from_the_store(store: Store) -> None:
    store.add(record("f"))
    store.errors = [StateDamaged("not a database")]
    await store.folders.open_all()
    damaged, renewed = store.opened
    assert damaged.heard == ["open", "close", "discard"]
    assert renewed.heard == ["distrust checkpoints", "open"]
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


async def test_a_state_that_is_damaged_again_and_again_is_loaded_ever_more_rarely() -> None:
    """Such as by a checkpoint that has an entry that cannot be read."""
    long, longer = 1e6, 1e9
    store = Store(renewal_pauses=Pauses(long, longer))
    store.add(record("f"))
    await store.folders.open_all()
    store.opened[0].damage()
    await until(lambda: len(store.opened) == 2 and store.tasks == names("f"))
    assert store.pauses == [], "damage happens"
    assert [folder.heard[0] for folder in store.opened] == ["open", "distrust checkpoints"]
    store.hold.clear()
    store.opened[1].damage()
    await until(lambda: len(store.pauses) == 1)
    (closed,) = store.folders.closed
    assert closed.error.startswith("the local state is damaged again, and is loaded from the store in ")
    assert long / 2 < store.pauses[0] <= long + 1, "but for rounding: it is the difference of two times"
    store.hold.set()
    await until(lambda: len(store.opened) == 3 and store.tasks == names("f"))
    store.opened[2].damage()
    await until(lambda: len(store.opened) == 4 and store.tasks == names("f"))
    assert long < store.pauses[1] <= 2 * long + 1
    await store.supervisor.stop()


async def test_who_offers_a_folder_that_is_just_renewed_comes_again(store: Store) -> None:
    session = FakeSession()
    await store.folders.for_offer(offer(), THEIRS)
    (damaged,) = store.opened
    store.may_open.clear()
    damaged.damage()
    await until(lambda: len(store.opened) == 2)
    store.sessions.add(session.as_session)
    with pytest.raises(FolderRefused, match="cannot open the folder now"):
        await store.folders.for_offer(offer(), THEIRS)
    store.may_open.set()
    await until(lambda: store.tasks == names("f"))
    assert "end: a folder is opened again" in session.heard


async def test_a_task_that_fails_because_of_the_damage_is_no_failure(store: Store) -> None:
    await store.folders.for_offer(offer(), THEIRS)
    (damaged,) = store.opened
    await until(lambda: damaged.running == {"wait", "fail"})
    damaged.damage()
    damaged.task_error.set_exception(StateDamaged("not a database"))
    await until(lambda: len(store.opened) == 2 and store.tasks == names("f"))
    assert store.supervisor.failing == []


async def test_a_folder_that_cannot_be_renewed_says_so_and_is_tried_again(store: Store) -> None:
    await store.folders.for_offer(offer(), THEIRS)
    (damaged,) = store.opened
    store.errors = [StoreUnreachable("away"), DataError("a bad segment")]
    store.hold.clear()
    damaged.damage()
    await until(lambda: store.pauses == [5])
    (closed,) = store.folders.closed
    assert closed.error == "the local state is damaged and cannot be loaded from the store: away"
    with pytest.raises(FolderRefused, match="cannot open the folder now"):
        await store.folders.for_offer(offer(), THEIRS)
    store.hold.set()
    await until(lambda: len(store.opened) == 4 and store.tasks == names("f"))
    assert store.pauses == [5, 10]
    assert store.folders.closed == []
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


DAMAGE = [
    DataError("a bad segment"),
    StoreUnreachable("away"),
    StoreRefused("no rights"),
    StateDamaged("not a database"),
    StateFolderUnusable("no room"),
    sqlite3.DatabaseError("disk image is malformed"),
    OSError(28, "no space"),
    KeyError("position"),
    RecursionError("deep"),
]


@pytest.mark.parametrize("when", ["made", "opened"])
@pytest.mark.parametrize("error", DAMAGE, ids=lambda error: type(error).__name__)
async def test_a_folder_that_cannot_be_opened_stops_no_other(store: Store, error: Exception, when: str) -> None:
    session = FakeSession("other")
    store.sessions.add(session.as_session)
    store.add(record("a"), record("bad"), record("c"))
    store.hold.clear()
    if when == "made":
        store.bad["bad"] = error
    else:
        # Damaged local state is tried again at once.
        store.errors = [None, error, *([error] if isinstance(error, StateDamaged) else [])]
    with capture_logs() as lines:
        await store.folders.open_all()
    assert store.folders.ids == ["a", "c"]
    (closed,) = store.folders.closed
    assert (closed.folder_id, closed.label, closed.damaged) == ("bad", "Label", True)
    assert str(error) in closed.error
    assert list(store.folders.problems()) == ["folder bad: not open"]
    assert store.tasks == sorted([*names("a", "c"), "folder bad: open"])
    assert [line["folder"] for line in lines if line["event"] == "folder cannot be opened"] == ["bad"]
    with pytest.raises(FolderRefused) as refusal:
        await store.folders.for_offer(offer("bad"), THEIRS)
    assert str(error) not in str(refusal.value)
    await store.folders.for_offer(offer("a"), THEIRS)
    store.bad.clear()
    store.hold.set()
    await until(lambda: store.folders.ids == ["a", "bad", "c"] and len(store.tasks) == len(names("a", "bad", "c")))
    assert store.folders.closed == [] and store.folders.problems() == {}
    await until(lambda: "end: a folder is opened again" in session.heard)


async def test_it_is_tried_again_with_growing_pauses(store: Store) -> None:
    store.add(record("f"))
    store.errors = [DataError("bad") for _ in range(6)]
    await store.folders.open_all()
    await until(lambda: store.folders.ids == ["f"])
    assert store.pauses == [5, 10, 20, 30, 30, 30]


@pytest.mark.parametrize("body", [b"no JSON", b"[]", b"{}", b'{"id": 5}', b"\xff\xfe", b"[" * 100_000])
async def test_a_record_that_cannot_be_read_stops_no_other(store: Store, body: bytes) -> None:
    session = FakeSession()
    store.sessions.add(session.as_session)
    store.add(record("a"), record("c"))
    key = FolderKeys.of("bad").record
    store.bucket.store.put(key, body)
    store.bucket.store.put("folders/My Photos/readme.txt", b"")
    store.bucket.store.put("folders/.DS_Store", b"")
    await store.folders.open_all()
    assert store.folders.ids == ["a", "c"]
    assert key in [closed.folder_id for closed in store.folders.closed]
    assert f"folder {key}: not open" in store.folders.problems()
    with pytest.raises(FolderRefused, match="cannot open the folder now"):
        await store.folders.for_offer(offer("bad"), THEIRS)
    await store.folders.look()
    assert store.folders.ids == ["a", "c"]


async def test_a_record_that_is_mended_is_noticed(store: Store) -> None:
    session = FakeSession()
    store.sessions.add(session.as_session)
    store.bucket.store.put(FolderKeys.of("bad").record, b"no JSON")
    await store.folders.open_all()
    with pytest.raises(FolderRefused):
        await store.folders.for_offer(offer("bad"), THEIRS)
    store.add(record("bad"))
    await store.folders.look()
    assert store.folders.ids == ["bad"] and store.folders.closed == []
    assert session.heard == ["end: a folder is opened again", "folder opened"]


async def test_a_folder_that_has_lost_its_record_alone_is_a_problem_until_that_is_back() -> None:
    store = Store(retry_delay=0)
    keys = FolderKeys.of("f")
    store.bucket.store.put(keys.segment(1), b"segment")
    with pytest.raises(FolderRefused, match="cannot open the folder now"):
        await store.folders.for_offer(offer(), THEIRS)
    for _ in range(2):
        await store.folders.look()
        assert "put the record back" in store.folders.problems()[f"folder {keys.record}: not open"]
    store.add(record("f"))
    await store.folders.look()
    assert (store.folders.ids, store.folders.problems()) == (["f"], {})
    await store.supervisor.stop()


async def test_a_lost_record_is_noticed_at_the_start() -> None:
    store = Store(retry_delay=0)
    keys = FolderKeys.of("f")
    store.bucket.store.put(keys.segment(1), b"segment")
    store.add(record("g"))
    await store.folders.open_all()
    assert (store.folders.ids, list(store.folders.problems())) == (["g"], [f"folder {keys.record}: not open"])
    del store.bucket.store.objects[keys.segment(1)]  # the folder is removed
    await store.folders.look()
    assert store.folders.problems() == {}
    await store.supervisor.stop()


async def test_a_record_that_an_offer_finds_damaged(store: Store) -> None:
    store.bucket.store.put(FolderKeys.of("f").record, b"no JSON")
    for _ in range(2):
        with pytest.raises(FolderRefused, match="cannot open the folder now"):
            await store.folders.for_offer(offer(), THEIRS)
    assert [closed.folder_id for closed in store.folders.closed] == [FolderKeys.of("f").record]
    assert store.bucket.store.body(FolderKeys.of("f").record) == b"no JSON"


@pytest.mark.parametrize("how", ["gone", "being removed", "another index"])
async def test_a_folder_that_is_removed_from_the_store_is_dropped(store: Store, how: str) -> None:
    sharing, other = FakeSession("f", "g"), FakeSession("g")
    store.add(record("f"), record("g"))
    await store.folders.open_all()
    for session in (sharing, other):
        store.sessions.add(session.as_session)
    await store.folders.look()
    assert store.folders.ids == ["f", "g"]
    if how == "gone":
        await store.bucket.delete(FolderKeys.of("f").record)
    elif how == "being removed":
        store.add(record("f", removed=True))
    else:
        store.add(FolderRecord("f", "Label", TOKEN, 0x9999))
    await store.folders.look()
    assert store.folders.ids == ["g"]
    assert store.tasks == names("g")
    assert store.opened[0].heard == ["open", "close", "discard"] and store.opened[0].running == set()
    assert (sharing.heard, other.heard) == (["end: a folder was removed"], [])
    (closed,) = store.folders.closed
    assert closed.folder_id == "f" and "remov" in closed.error
    assert store.folders.problems() == {}, "a removal is no problem"
    if how == "being removed":
        with pytest.raises(FolderRefused, match="remov"):
            await store.folders.for_offer(offer("f"), THEIRS)
    else:
        await store.folders.for_offer(offer("f"), THEIRS)
        assert store.folders.ids == ["f", "g"] and store.folders.closed == []


@pytest.mark.parametrize("body", [b"", b"no JSON", b"{}"])
async def test_a_damaged_record_of_an_open_folder_is_no_removal(store: Store, body: bytes) -> None:
    store.add(record("f"))
    await store.folders.open_all()
    store.bucket.store.put(FolderKeys.of("f").record, body)
    await store.folders.look()
    assert store.folders.ids == ["f"]


async def test_a_store_that_is_away_is_no_removal(store: Store) -> None:
    store.add(record("f"))
    await store.folders.open_all()
    store.bucket.fault = lambda call: Fault.UNREACHABLE
    with pytest.raises(StoreUnreachable):
        await store.folders.look()
    assert store.folders.ids == ["f"]


async def test_a_record_that_the_store_refuses_hides_no_removal_of_another(store: Store) -> None:
    store.add(record("f"), record("g"))
    await store.folders.open_all()
    store.bucket.fault = lambda call: Fault.UNREACHABLE if call.key == FolderKeys.of("f").record else None
    await store.bucket.delete(FolderKeys.of("g").record)
    with pytest.raises(StoreUnreachable):
        await store.folders.look()
    assert store.folders.ids == ["f"]


async def test_a_folder_that_cannot_be_flushed_holds_up_no_other(store: Store) -> None:
    store.add(record("f"), record("g"))
    await store.folders.open_all()
    store.opened[0].flush_error = sqlite3.OperationalError("disk full")
    with pytest.raises(sqlite3.OperationalError):
        await store.folders.flush()
    assert store.opened[1].heard == ["open", "flush"]


@pytest.mark.parametrize("kind", [LogWentBack, SegmentDamaged, SegmentsMissing])
async def test_a_folder_whose_log_went_back_is_healed_before_it_is_opened(store: Store, kind: type[DataError]) -> None:
    store.add(record("a"))
    store.errors = [kind("the end is gone")]
    with capture_logs() as lines:
        await store.folders.open_all()
    assert store.folders.ids == ["a"]
    assert store.opened[0].heard == ["open", "heal", "open"]
    assert {"log has lost segments, healing it", "log healed"} <= {line["event"] for line in lines}
    assert list(store.folders.lost("a")) == []


async def test_a_running_folder_whose_log_went_back_is_closed_healed_and_opened_again(store: Store) -> None:
    session, other = FakeSession("a"), FakeSession("b")
    for one in (session, other):
        store.sessions.add(one.as_session)
    store.add(record("a"), record("b"))
    await store.folders.open_all()
    first = store.opened[0]
    first.lose(SegmentsMissing("segment 2 is gone"))
    await until(lambda: len(store.opened) == 3)
    await until(lambda: store.folders.ids == ["a", "b"])
    assert first.heard[-1] == "close" and "discard" not in first.heard
    assert store.opened[2].heard[0] == "heal", "before it is opened, and without a look"
    assert session.heard[:2] == ["folder opened", "folder opened"] and "end: a folder is opened again" in session.heard
    assert not any(text.startswith("end") for text in other.heard), "only sessions that share the folder end"


async def test_what_a_log_has_lost_for_good_is_said(store: Store) -> None:
    store.add(record("a"))
    await store.folders.open_all()
    store.hold.clear()
    store.opened[0].lose(LogWentBack("the end is gone"))
    await until(lambda: bool(store.pauses))
    assert "being healed" in store.folders.closed[0].error
    store.healed = Healed((LOSS,), 1, 2)
    store.hold.set()
    await until(lambda: store.folders.ids == ["a"])
    assert "segments 2 to 3 with 5 entries" in store.folders.lost("a")[0]
    assert f"damaged: it is kept as folders/a/damaged/{DAMAGED}" in store.folders.lost("a")[1]
    assert f"7 entries that the gateway {OTHER} knew" in store.folders.lost("a")[2]


async def test_a_store_that_keeps_losing_is_healed_ever_more_rarely(store: Store) -> None:
    store.add(record("a"))
    await store.folders.open_all()
    store.opened[0].lose(LogWentBack("the end is gone"))
    await until(lambda: len(store.opened) == 2 and store.folders.ids == ["a"])
    store.opened[1].lose(LogWentBack("the end is gone again"))
    await until(lambda: any("It is healed in" in closed.error for closed in store.folders.closed))
    assert not any("heal" in folder.heard for folder in store.opened[2:])


async def test_a_device_is_believed_once_in_a_while(store: Store) -> None:
    store.add(record("a"))
    await store.folders.open_all()
    assert store.opened[0].heeds_claims()
    store.opened[0].lose(IndexClaimed("a device knows more", 7, 20, 15))
    await until(lambda: len(store.opened) == 2 and store.folders.ids == ["a"])
    assert not store.opened[1].heeds_claims()
    assert store.opened[1].heard[0] == "heal, a device knows more"


async def test_a_folder_that_is_removed_loses_its_log_first(store: Store) -> None:
    store.add(record("a"))
    await store.folders.open_all()
    store.add(record("a", removed=True))
    store.opened[0].lose(LogWentBack("the end is gone"))
    await until(lambda: "discard" in store.opened[0].heard)
    assert (store.folders.ids, len(store.opened)) == ([], 1)
    assert "removal" in store.folders.closed[0].error


@pytest.mark.parametrize(("remains", "kept"), [(1, True), (5, True), (6, False), (0, False)])
async def test_a_lost_record_is_written_again_unless_the_log_is_gone_too(
    store: Store, remains: int, kept: bool
) -> None:
    store.add(record("a"))
    await store.folders.open_all()
    store.opened[0].remains = remains
    del store.bucket.store.objects[FolderKeys.of("a").record]
    await store.folders.look()
    assert store.folders.ids == (["a"] if kept else [])
    assert (FolderKeys.of("a").record in store.bucket.store.objects) == kept


async def test_a_failed_read_is_told_to_the_folder(store: Store) -> None:
    store.add(record("a"), record("b"))
    await store.folders.open_all()
    key = FolderKeys.of("b").object("name", "0" * 32)
    store.folders.read_failed(key, 0, 5)
    assert f"read failed: {key}" in store.opened[1].heard


async def test_a_block_that_was_read_is_told_to_its_folder(store: Store) -> None:
    store.add(record("a"), record("strange/../one"))
    await store.folders.open_all()
    for folder in store.opened:
        key = FolderKeys.of(folder.record.folder_id).object("name", "0" * 32)
        store.folders.block_read(key, 0, memoryview(b"block"))
        assert folder.heard[-1] == f"block read: {key}"
    store.folders.block_read(FolderKeys.of("unknown").object("name", "0" * 32), 0, memoryview(b"block"))


@pytest.mark.parametrize("in_doubt", [False, True])
async def test_a_folder_of_a_store_in_doubt_is_compared_with_it_once(in_doubt: bool) -> None:
    store = Store(in_doubt=in_doubt)
    store.add(record("a"))
    await store.folders.open_all()
    assert store.opened[0].heard == ["open", "look for missing"][: 1 + in_doubt]
    store.opened[0].lose(SegmentsMissing("a part is gone"))
    await until(lambda: len(store.opened) == 2 and store.folders.get("a") is not None)
    assert "look for missing" not in store.opened[1].heard
    await store.supervisor.stop()


async def test_a_folder_with_missing_files_is_a_problem(store: Store) -> None:
    store.add(record("a"))
    await store.folders.open_all()
    assert store.folders.problems() == {}
    store.opened[0].missing_files = 3
    assert store.folders.problems() == {"folder a: files missing": "the objects of 3 files are missing or damaged"}
