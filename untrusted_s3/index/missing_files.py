"""The files of a folder's state whose objects are missing or damaged (docs/format.md, "Checkpoints")."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.vector import is_newer
from untrusted_s3.index.database import Database
from untrusted_s3.index.entry import Removal


@dataclass(frozen=True, slots=True)
class MissingFile:
    """A file that was taken back because its object is missing or damaged, and that has not come again.

    Attributes:
        name_hash: The hash of its encrypted name.
        name: Its encrypted name.
        version: The version that the folder had.
        object_name: The name of the object.
    """

    name_hash: bytes
    name: str
    version: pb.Vector
    object_name: str


class MissingFiles:
    """The tables `missing` and `condemned` of a state."""

    def __init__(self, connection: Database) -> None:
        self._connection = connection
        # Mostly nothing is condemned, and this is asked several times for each file that comes in.
        self._any_condemned: bool | None = None

    def add(self, removal: Removal, has: tuple[str, bytes] | None) -> int:
        """Note that the object of a removal is missing or damaged.

        `has` are the name and the version that the folder has under the name of a removal, which may name another one
        itself. Where a newer version is missing already, that stays. Return by how many files `missing` grows.
        """
        key, object_name = removal.name_hash, removal.missing_object
        self._any_condemned = True
        self._connection.execute("INSERT OR IGNORE INTO condemned VALUES (?, ?)", (key, object_name))
        if removal.name:
            has = removal.name, removal.version
        if has is None:
            return 0
        try:
            if self.has_newer(key, pb.Vector.FromString(has[1])):
                return 0
        except (DecodeError, TypeError) as error:
            raise self._connection.damaged(f"the version of {key.hex()} cannot be read") from error
        before = self.forget(key)
        self._connection.execute("INSERT INTO missing VALUES (?, ?, ?, ?)", (key, *has, object_name))
        return 1 - before

    def forget(self, key: bytes) -> int:
        """Take the name with this hash off `missing`. Return how many files that are."""
        return int(self._connection.execute("DELETE FROM missing WHERE name_hash = ?", (key,)).rowcount)

    def has_newer(self, key: bytes, version: pb.Vector) -> bool:
        """Return whether a newer version than `version` is missing."""
        missing = self._version(key)
        return missing is not None and is_newer(pb.Vector.FromString(missing), version)

    def has(self, key: bytes, version: pb.Vector | None = None) -> bool:
        """Return whether a file is missing, in `version` or a newer one."""
        missing = self._version(key)
        return missing is not None and (version is None or not is_newer(version, pb.Vector.FromString(missing)))

    def _version(self, key: bytes) -> bytes | None:
        """Return the serialized version in which a file is missing."""
        row = self._connection.execute("SELECT version FROM missing WHERE name_hash = ?", (key,)).fetchone()
        return row[0] if row is not None else None

    def files(self, limit: int) -> Iterator[MissingFile]:
        """Yield the files in `missing`; at most `limit`."""
        rows = self._connection.execute("SELECT name_hash, name, version, object_name FROM missing LIMIT ?", (limit,))
        for key, name, version, object_name in rows:
            try:
                yield MissingFile(key, name, pb.Vector.FromString(version), object_name)
            except (DecodeError, TypeError) as error:
                raise self._connection.damaged(f"the version of {key.hex()} cannot be read") from error

    def condemned(self, key: bytes) -> frozenset[str]:
        """Return the names of the objects in `condemned` of the name with this hash."""
        if self._any_condemned is None:
            found = self._connection.execute("SELECT EXISTS (SELECT 1 FROM condemned)").fetchone()
            self._any_condemned = bool(found[0])
        if not self._any_condemned:
            return frozenset()
        rows = self._connection.execute("SELECT object_name FROM condemned WHERE name_hash = ?", (key,)).fetchall()
        return frozenset(row[0] for row in rows)
