"""What a device knows of a name, and what an untrusted device sees of it."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from tests.claims.vector import EMPTY, Vector, total

FILE: Final = 0
DIRECTORY: Final = 1

# Local flags (v2.1.3 lib/protocol/bep_fileinfo.go). Each makes an entry invalid for others.
IGNORED: Final = 1
RECEIVE_ONLY: Final = 2
REMOTE_INVALID: Final = 4
# Flags that put a file in conflict with what comes after it.
CONFLICTING: Final = IGNORED | RECEIVE_ONLY

# The modification time that each encrypted file info has (v2.1.3 lib/protocol/encryption.go, encryptFileInfo).
ENCRYPTED_MODIFIED: Final = 1_234_567_890


class Version(NamedTuple):
    """A FileInfo.

    Attributes:
        modified: The modification time in seconds; of a deletion its time.
        content: Names the blocks of a file. None for directories, deletions and ignored files.
        previous: The content that this one was made from, if its author knew it.
        author: The device that made the version.
        flags: Why it is invalid, or 0.
    """

    vector: Vector
    modified: int
    kind: int
    deleted: bool
    content: int | None
    previous: int | None
    author: int
    flags: int = 0

    def but(self, **changes: Any) -> Version:
        """Return it with other fields."""
        return self._replace(**changes)

    def sent(self) -> Version:
        """Return it as other devices receive it (v2.1.3 lib/model/indexhandler.go, prepareFileInfoForIndex)."""
        if not self.flags:
            return self
        vector = EMPTY if self.flags & RECEIVE_ONLY else self.vector
        return self._replace(vector=vector, flags=REMOTE_INVALID)


class Seen(NamedTuple):
    """What an untrusted device can compare."""

    number: int
    kind: int
    deleted: bool
    content: int | None

    def has_same_content(self, other: Seen) -> bool:
        """Return whether two versions have the same data: then they differ in their metadata at most."""
        return self.content is not None and self.content == other.content


class Announced(NamedTuple):
    """An encrypted FileInfo.

    Attributes:
        number: The one counter of its version, the sum of the real ones.
        content: Stands for the tokens of its blocks. Equal ones of one name have equal tokens.
        real: The encrypted part. Only trusted devices may read it. Two devices that encrypt the same version get
            different bytes, so that an untrusted device cannot even compare them.
    """

    name: str
    number: int
    kind: int
    deleted: bool
    content: int | None
    invalid: bool
    real: Version

    @property
    def seen(self) -> Seen:
        """What an untrusted device can compare."""
        return Seen(self.number, self.kind, self.deleted, self.content)


def encrypt(name: str, version: Version) -> Announced:
    """Return what an untrusted device sees of a version that was `sent`."""
    return Announced(
        name, total(version.vector), version.kind, version.deleted, version.content, version.flags != 0, version
    )


class Entry(NamedTuple):
    """An index entry that a device with the password sends or reads."""

    sequence: int
    name: str
    version: Version


class EncryptedEntry(NamedTuple):
    """An index entry as an untrusted device sends and receives it."""

    sequence: int
    announced: Announced


def parent(name: str) -> str | None:
    """Return the directory that holds a name, or None at the top."""
    directory, slash, _ = name.rpartition("/")
    return directory if slash else None


def original(name: str) -> str:
    """Return the name of which this is a conflict copy, or the name itself."""
    return name.partition(".conflict-")[0]


def is_conflict(name: str) -> bool:
    """Return whether a name is that of a conflict copy."""
    return ".conflict-" in name
