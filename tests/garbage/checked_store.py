"""A store that looks at each deletion, each aborted upload and each segment of a log."""

from __future__ import annotations

import enum
import itertools
from collections import Counter
from collections.abc import Callable
from contextvars import ContextVar

from tests.simulated import SimulatedClock, SimulatedStore
from untrusted_s3.index.segment import decode_segment
from untrusted_s3.store.format import UPLOAD_RETENTION
from untrusted_s3.store.layout import FolderKeys, name_key

KEYS = FolderKeys.of("folder")
# Whether what happens is upkeep. Writers may give up their own uploads.
BY_UPKEEP: ContextVar[bool] = ContextVar("BY_UPKEEP", default=False)


class Event(enum.Enum):
    """What a process that stands still may wait for."""

    RECORD_WRITTEN = enum.auto()
    RECORD_DELETED = enum.auto()
    OBJECT_DELETED = enum.auto()
    SEGMENT_WRITTEN = enum.auto()


def is_record(key: str) -> bool:
    """Return whether a key is that of a record of candidates."""
    return key.startswith(KEYS.garbage) and KEYS.parse_garbage(key) is not None


class EntryWithoutObjectError(AssertionError):
    """An entry within the history lacks its object."""


class UploadInUseError(AssertionError):
    """An upload was aborted that got parts."""


class _Watched(dict):  # type: ignore[type-arg]
    """Objects or uploads, of which none is removed unseen."""

    before: Callable[[str], None] = staticmethod(lambda key: None)

    def pop(self, key: str, *default: object) -> object:
        if key in self:
            self.before(key)
        return super().pop(key, *default)


class CheckedStore(SimulatedStore):
    """A store that knows what its log names."""

    def __init__(self, clock: SimulatedClock, *, enforce_lifetimes: bool = True) -> None:
        super().__init__(clock, enforce_lifetimes=enforce_lifetimes)
        self.objects, self.uploads = _Watched(), _Watched()
        self.objects.before = self._check_deletion
        self.uploads.before = self._check_abort
        self.happened: Counter[str] = Counter()
        self.failure: EntryWithoutObjectError | None = None
        self.on_event: Callable[[Event], None] = lambda event: None
        self.in_segment: dict[str, frozenset[str]] = {}
        self.named_at: dict[int, frozenset[str]] = {0: frozenset()}
        self.names: dict[bytes, frozenset[str]] = {}
        self._active: dict[str, list[float]] = {}  # when an upload was begun and got parts

    def put(self, key: str, body: bytes, *, if_none_match: bool = False, begun: float | None = None) -> None:
        again = key in self.ever_created and key.startswith(KEYS.objects)
        super().put(key, body, if_none_match=if_none_match, begun=begun)
        self.happened["written again"] += again
        self.happened["states kept"] += key.startswith(KEYS.kept)
        if key.startswith(KEYS.segments):
            self._note_segment(key, body)
            self.on_event(Event.SEGMENT_WRITTEN)
        elif is_record(key):
            self.on_event(Event.RECORD_WRITTEN)

    def copy_from(self, other: CheckedStore) -> None:
        """Hold what another store holds."""
        self.objects.update(other.objects)
        self.ever_created |= other.ever_created
        self.in_segment, self.named_at, self.names = other.in_segment.copy(), other.named_at.copy(), other.names.copy()

    def _note_segment(self, key: str, body: bytes) -> None:
        named: set[str] = set()
        if body:
            segment = decode_segment(body, key)
            for removal in segment.renewal.removals if segment.renewal is not None else ():
                self.names.pop(removal.name_hash, None)
            for entry in segment.entries:
                assert entry.claims is not None or segment.renewal is not None, "what becomes of dissents is not known"
                objects = frozenset(
                    KEYS.object(one.file_info.name, one.stored.object_name) for one in entry.versions if one.stored
                )
                self.names[name_key(entry.file_info.name)] = objects
                self.happened["dissents"] += len(entry.dissents)
                named |= objects
        self.in_segment[key] = frozenset(named)
        self.named_at[int(key.rpartition("/")[2])] = self.named_now
        for name in named:
            if name not in self.objects:
                self._fail(f"{key} names {name}, which is not there")

    def _fail(self, what: str) -> None:
        """Raise EntryWithoutObjectError, and note it: a fault of the call may raise something else instead."""
        self.failure = EntryWithoutObjectError(what)
        raise self.failure

    @property
    def named_now(self) -> frozenset[str]:
        """The objects of the folder's present state."""
        return frozenset(itertools.chain.from_iterable(self.names.values()))

    def named(self) -> set[str]:
        """Return all objects that any segment or checkpoint that is there names."""
        found = set(self.named_now)
        for key in self.objects:
            if key.startswith(KEYS.segments):
                found |= self.in_segment[key]
            elif key.startswith((KEYS.checkpoints, KEYS.kept)):
                found |= self.named_at[int(key.rpartition("/")[2].partition("-")[0])]
        return found

    def _check_deletion(self, key: str) -> None:
        if key.startswith(KEYS.objects):
            self.happened["objects deleted"] += 1
            if key in self.named():
                self._fail(f"{key} is deleted, and the log names it")
            self.on_event(Event.OBJECT_DELETED)
        elif is_record(key):
            self.on_event(Event.RECORD_DELETED)

    def begin_upload(self, key: str) -> str:
        upload_id = super().begin_upload(key)
        self._active[upload_id] = [self.clock()]
        return upload_id

    def add_part(self, upload_id: str, number: int, body: bytes) -> str:
        etag = super().add_part(upload_id, number, body)
        self._active[upload_id].append(self.clock())
        return etag

    def _check_abort(self, upload_id: str) -> None:
        """Check that nobody has worked on an upload for long, or that somebody came back to it too late."""
        if not BY_UPKEEP.get():
            self.happened["uploads given up"] += 1
            return
        self.happened["uploads aborted"] += 1
        pauses = [later - earlier for earlier, later in itertools.pairwise([*self._active[upload_id], self.clock()])]
        if max(pauses) <= UPLOAD_RETENTION:
            raise UploadInUseError(f"{upload_id} got parts after pauses of at most {max(pauses):.0f} s, and is aborted")
        self.happened["uploads aborted after parts"] += len(pauses) > 1
