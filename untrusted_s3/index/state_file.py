"""The SQLite file with a folder's state (index/state.py).

Its schema is also the format of checkpoints (docs/format.md, "Checkpoints").
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

from untrusted_s3.accounts import Account, ByteCache
from untrusted_s3.bep.cluster_config import IndexState
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import StateDamaged, StateFolderUnusable
from untrusted_s3.index.claim_tables import ClaimTables
from untrusted_s3.index.database import is_damage, open_database, remove_database
from untrusted_s3.index.devices import Devices
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.missing_files import MissingFiles
from untrusted_s3.index.row import CurrentVersion
from untrusted_s3.index.schema import COUNTERS, META, SCHEMA, STATE_VERSION, FolderTotals
from untrusted_s3.index.source_bytes import ENTRIES_AT_ONCE, SourceBytes
from untrusted_s3.index.state_copy import write_copy
from untrusted_s3.units import MIB

# Bytes of parsed entries that are kept where no account is given.
_PARSED_ENTRIES = 4 * MIB


class StateFile:
    """The state of one folder after the log segment at `position`, to be read.

    Attributes:
        path: The SQLite file.
        on_change: Called when what the state says has changed.
    """

    def __init__(
        self,
        path: Path,
        on_damage: Callable[[], None] = lambda: None,
        parsed: Account | None = None,
    ) -> None:
        """Open the state, or make an empty one at position 0. Raises StateFolderUnusable.

        `parsed` bounds the memory for parsed entries that are kept; very large ones are not. All methods raise
        StateDamaged, after a call of `on_damage`, when the file turns out to be damaged.
        """
        self.path = path
        self.on_change: Callable[[], object] = lambda: None
        self._on_damage = on_damage
        # By sequence numbers, which are never used again, and numbers of dissents. Peers ask for one block of a file
        # after the other.
        account = parsed if parsed is not None else Account(_PARSED_ENTRIES)
        self._parsed: ByteCache[tuple[int, int], Entry] = ByteCache(account, path)
        try:
            self._open()
        except BaseException:
            self._parsed.close()
            raise

    def _open(self) -> None:
        self._connection = open_database(self.path, SCHEMA, STATE_VERSION)
        self._connection.on_damage = self._on_damage
        meta = dict(self._connection.execute("SELECT key, value FROM meta").fetchall())
        if meta.keys() != META or not all(type(value) is int and value >= 0 for value in meta.values()):
            raise self._connection.damaged("the table meta")
        self._meta: dict[str, int] = meta
        self._missing = MissingFiles(self._connection)
        self._devices = Devices(self._connection)
        self._claims = ClaimTables(self._connection, self._devices)
        self._source_bytes = SourceBytes(self._connection)
        # By hashes of names: what `StateQueries.look_up` has read, with None for a name that the folder lacks.
        self._looked_up: dict[bytes, CurrentVersion | None] = {}
        self._parsed.clear()
        self._opened = object()  # what was kept of another file is not found any more

    def replace(self, path: Path) -> None:
        """Replace this state by the file at `path`, which `write_copy` of another state has made."""
        self._connection.close()
        remove_database(self.path)
        path.replace(self.path)
        self._open_again()

    def clear(self) -> None:
        """Make the state empty: that of position 0."""
        self._connection.close()
        remove_database(self.path)
        self._open_again()

    def _open_again(self) -> None:
        try:
            self._open()
        except StateFolderUnusable:
            self._on_damage()  # without a file, nothing can be done here any more
            raise
        self.on_change()

    def close(self) -> None:
        """Close the file."""
        self._parsed.close()
        self._connection.close()

    @property
    def position(self) -> int:
        """The position of the last segment applied; 0 for none."""
        return self._meta["position"]

    @property
    def sequence(self) -> int:
        """The highest sequence number announced by any gateway of this store."""
        return self._meta["sequence"]

    @property
    def time_ms(self) -> int:
        """When the last segment applied was written, by the store's clock, in milliseconds since 1970 UTC."""
        return self._meta["time_ms"]

    @property
    def append_id(self) -> int:
        """The first 63 bits of the append id of the last segment applied; 0 where they are not known."""
        return self._meta["append_id"]

    @property
    def index_id(self) -> int:
        """The id of the folder's index since the last renewal. 0 for none yet: then the one of its record holds."""
        return self._meta["index_id"]

    @property
    def missing_count(self) -> int:
        """The number of files in `missing`."""
        return self._meta["missing"]

    @property
    def disputed_count(self) -> int:
        """The number of names with dissents."""
        return self._meta["disputed"]

    @property
    def file_size(self) -> int:
        """The size of the SQLite file in bytes, which is about that of a checkpoint."""
        pages, page_size = (
            self._connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size")
        )
        return int(pages * page_size)

    @property
    def totals(self) -> FolderTotals:
        """What the folder holds; kept up to date, not counted."""
        return FolderTotals(*(self._meta[key] for key in (*COUNTERS, "bytes")))

    @property
    def data_bytes(self) -> int:
        """`bytes` of `totals`."""
        return self._meta["bytes"]

    def count_sources(self, entries: int = ENTRIES_AT_ONCE) -> bool:
        """Count so many entries more for `bytes_from`. Return whether there are more."""
        return self._source_bytes.count_some(entries)

    def bytes_from(self, device_id: DeviceID) -> int:
        """Return the bytes of the current versions that are from a device.

        They are kept, but the first call counts those that `count_sources` has not: two seconds for a million entries.
        """
        number = self._devices.find(device_id)
        return self._source_bytes.of(number) if number is not None else 0

    @property
    def generation(self) -> object:
        """Another object whenever the file was replaced by another state's."""
        return self._opened

    def damaged(self, what: str) -> StateDamaged:
        """Note that the file turned out to be damaged, and return the error to raise."""
        return self._connection.damaged(what)

    def known_index(self, device_id: DeviceID) -> int | None:
        """Return the id of a device's index, to which its claims belong, also after a renewal; None if not known."""
        return self._devices.index_id(device_id)

    def cursor(self, device_id: DeviceID) -> IndexState:
        """Return how much of a device's index the log reflects."""
        row = self._connection.execute(
            "SELECT index_id, sequence FROM cursors WHERE device_id = ?", (device_id.raw,)
        ).fetchone()
        return IndexState(int(row[0]), row[1]) if row else IndexState()

    def write_copy(self, path: Path) -> int:
        """Write the state as one compact SQLite file and return its position.

        May run in a thread beside the other methods: it uses another connection. Raises StateDamaged, without a call of
        `on_damage`, when the file turns out to be damaged.
        """
        opened = self._opened
        try:
            return write_copy(self.path, path)
        except sqlite3.DatabaseError as error:
            if is_damage(error) and self._opened is opened:
                raise StateDamaged(f"the local state is damaged ({error}) and is made again from the store") from error
            raise
