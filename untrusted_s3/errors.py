"""The errors that this program raises on purpose, and its exit codes.

A message says what is wrong. What the user can type to mend it is added by `cli/advice.py`, which goes by an error's
class and attributes.

`python -m untrusted_s3.errors` prints docs/exit-codes.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Final, Literal

SUCCESS: Final = 0
FAILED: Final = 1
USAGE: Final = 2
STORE_FAILED: Final = 3
WRONG_PASSWORD: Final = 4
NO_GATEWAY: Final = 5
INTERRUPTED: Final = 130  # 128 + SIGINT
BROKEN_PIPE: Final = 141  # 128 + SIGPIPE
TERMINATED: Final = 143  # 128 + SIGTERM

EXIT_CODES: Final[Mapping[int, str]] = {
    SUCCESS: "success",
    FAILED: "damaged data, files or output that cannot be written, or an internal error",
    USAGE: "wrong usage or configuration",
    STORE_FAILED: "the store cannot be reached or refuses",
    WRONG_PASSWORD: "wrong password",
    NO_GATEWAY: "no gateway answers",
    INTERRUPTED: "interrupted",
    BROKEN_PIPE: "the reader of the output is gone",
    TERMINATED: "terminated",
}


class UntrustedS3Error(Exception):
    """The base of all errors of this program."""

    exit_code: ClassVar[int] = FAILED


# Usage and configuration


class UsageError(UntrustedS3Error):
    """An option, a file or a setting that the user has to change."""

    exit_code = USAGE


class InvalidDeviceID(UsageError):
    """A text that is not a Syncthing device ID."""


class InvalidEndpoint(UsageError):
    """A text that is not the URL of an S3 server."""


class NoSuchFolder(UsageError):
    """The store has no folder of that ID."""


class BeforeHistory(UsageError):
    """A time before the beginning of a folder's stored history."""


class FolderRemovalUnfinished(UsageError):
    """The removal of a folder was interrupted: the folder cannot be opened, only removed.

    Attributes:
        folder_id: The folder's ID.
    """

    def __init__(self, folder_id: str) -> None:
        super().__init__(f"the removal of the folder {folder_id!r} was not finished")
        self.folder_id = folder_id


class AddressUnavailable(UsageError):
    """The gateway cannot listen on an address: mostly because the port is in use.

    Attributes:
        address: The address, as in 127.0.0.1:8385 or tcp://0.0.0.0:22001.
        purpose: Who connects there: devices, or clients of HTTP.
    """

    def __init__(self, address: str, purpose: Literal["devices", "http"], reason: str) -> None:
        super().__init__(f"cannot listen on {address}: {reason}")
        self.address = address
        self.purpose = purpose


class IdentityFolderUnusable(UsageError):
    """No identity can be kept in a folder."""


class StateFolderUnusable(UsageError):
    """The folder of the local state cannot be written to."""


class StateFolderInUse(UsageError):
    """Another process uses the folder of the local state."""


class EmbeddedStoreAbsent(UsageError):
    """A folder has no embedded store."""


class EmbeddedStoreMissing(UsageError):
    """The program of the embedded store is not installed."""


class EmbeddedStoreInUse(UsageError):
    """Another process uses the folder of the embedded store."""


class WrongPassword(UntrustedS3Error):
    """A password that does not open the folder."""

    exit_code = WRONG_PASSWORD


class WrongPassphrase(WrongPassword):
    """A passphrase that does not open the identity in the store."""


# A running gateway


class GatewayUnreachable(UntrustedS3Error):
    """No gateway answers HTTP at an address."""

    exit_code = NO_GATEWAY


# The store


class StoreError(UntrustedS3Error):
    """The store refused a request, or did not answer."""

    exit_code = STORE_FAILED


class StoreUnreachable(StoreError):
    """The store did not answer: a network failure, or the server is down. Worth another try."""


class StoreBusy(StoreUnreachable):
    """The store wants fewer requests (429, or 503 SlowDown).

    Attributes:
        pause: For how many seconds it wants none; 0 if it does not say.
    """

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class AnswerTooShort(StoreUnreachable):
    """An answer of the store has fewer bytes than were asked for: it broke off, or the object is shorter."""


class StoreRefused(StoreError):
    """The store refused a request: credentials, rights, a missing bucket, a wrong clock."""


class RequestRefused(StoreRefused):
    """The store refused a request for one object. Requests for others may succeed."""


class ObjectArchived(RequestRefused):
    """The object is in a storage class that cannot be read at once, such as Glacier."""


class NoSuchBucket(StoreRefused):
    """The bucket does not exist."""


class StoreRedirects(StoreRefused):
    """The store answers with a redirect, which is not followed: the region or the endpoint is wrong."""


class AnswerTooLong(RequestRefused):
    """An answer of the store has more bytes than were asked for or than such an answer may have."""


class AccessDenied(RequestRefused):
    """The store denies a request: the credentials lack a right, or are wrong."""


class DeletionDenied(AccessDenied):
    """The store denies a deletion to these credentials. They may be meant to delete nothing."""


class ChecksumWanted(StoreRefused):
    """The store refuses a write, perhaps because it lacks a checksum. Worth another try, with one."""


class BucketUnprotected(StoreRefused):
    """A thief of the credentials can destroy what is in the bucket, or it cannot be found out."""


class CredentialsRefused(StoreRefused):
    """The store does not accept the credentials: unknown, wrong, expired or revoked."""


class OperationUnsupported(StoreRefused):
    """The store says that it does not implement what a request asks for."""


class ConditionalWritesUnsupported(StoreRefused):
    """The store lets two concurrent `If-None-Match: *` PUTs of one key succeed."""


class LifecycleRuleMissing(StoreRefused):
    """No lifecycle rule of the bucket ends unfinished multipart uploads."""


class NoSuchKey(StoreError):
    """No object has that key."""


class PreconditionFailed(StoreError):
    """A conditional PUT found the key taken (HTTP 412, or 409 in a race)."""


class UploadLost(StoreError):
    """A multipart upload is gone, or another writer changed a part of it. Worth another try."""


class PreviousObjectGone(StoreError):
    """The object that unchanged data was to be copied from is gone."""


class ObjectIsGarbage(StoreError):
    """An object that an entry is to name is on the list of what is to be deleted. Worth another try, without it."""


class LogTrimmed(StoreError):
    """A part of the log was cleaned up while it was read. Worth another try."""


# The bucket's contents


class DataError(UntrustedS3Error):
    """Something in the bucket does not follow the format."""


class UnknownFormat(DataError):
    """Something of a format version that this program does not read."""


class SegmentDamaged(DataError):
    """A segment of a folder's log is not what was written there: altered, cut short, or something else."""


class SegmentsMissing(DataError):
    """Segments of a folder's log are missing, though later ones exist."""


class LogWentBack(DataError):
    """The store has lost the end of a folder's log, or has another one: it was put back to an earlier time."""


class IndexClaimed(LogWentBack):
    """A device says that it knows more of a folder's index than the log has. It may lie.

    Attributes:
        index_id: The id of the folder's index.
        sequence: Up to which sequence number the device says that it knows it.
        known: Up to which one the log has it.
    """

    def __init__(self, message: str, index_id: int, sequence: int, known: int) -> None:
        super().__init__(message)
        self.index_id = index_id
        self.sequence = sequence
        self.known = known


class HealingDelayed(DataError):
    """A folder's log has to be healed, which is not done again so soon."""


class DecryptionFailed(DataError):
    """A ciphertext, name or token that the key did not make: altered, cut short, or made with another key."""


class InconsistentFileInfo(DataError):
    """A file info whose unencrypted part, which anybody can write, contradicts the encrypted one."""


class BlockDamaged(DataError):
    """A block of a file that cannot be read from the store, or differs from its file info.

    Attributes:
        path: The plain name of the file.
        offset: Where the block begins in the plain file.
        reason: What is wrong.
    """

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(f"{path!r} is damaged at byte {offset}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason


# Local files


class NotRestored(UntrustedS3Error):
    """A file, directory or symlink could not be written to the local disk. The message says why, but not which."""


class PathTaken(NotRestored):
    """Something else is where a file or symlink is to be restored, and may not be replaced."""

    def __init__(self) -> None:
        super().__init__("something else is there")


class DiskFull(NotRestored):
    """The local disk is full, or the quota of this user on it is used up."""


class OutputFailed(UntrustedS3Error):
    """Standard output is closed, or takes no more."""


class LocalDiskFailed(UntrustedS3Error):
    """The local state cannot be written now: the disk is full, or fails. Worth another try; nothing is lost."""


class StateDamaged(UntrustedS3Error):
    """A file of the local state is damaged. What it held is in the store."""


class EntryMisplaced(StateDamaged):
    """The local state has an entry under the hash of another name."""


# A real Syncthing as a child process


class SyncthingFailed(UntrustedS3Error):
    """Syncthing refused a command, ended, or took too long."""


class CheckFailed(UntrustedS3Error):
    """Something that a real Syncthing made or kept differs from what our own code makes or expects."""


# The protocol


class ProtocolError(UntrustedS3Error):
    """A violation of the Block Exchange Protocol."""


class LocalProtocolError(ProtocolError):
    """An internal error: the caller was about to violate the protocol. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer violated the protocol; the connection must be closed."""


class TLSFailed(RemoteProtocolError):
    """The TLS handshake with the peer failed, or the TLS connection broke."""


class DialFailed(ProtocolError):
    """A peer's address could not be connected to."""


class TooManyConnections(ProtocolError):
    """A connection of a device that is not accepted (yet) was closed in favour of a newer one."""


class FileInfoRefused(ProtocolError):
    """A file info that breaks a rule. It is left out; the rest of its message can be taken.

    Attributes:
        name: The encrypted name.
        sequence: The peer's sequence number.
        reason: What is wrong.
    """

    def __init__(self, name: str, sequence: int, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.sequence = sequence
        self.reason = reason


class FolderRefused(ProtocolError):
    """A folder cannot be shared with this peer, though the connection may go on.

    Attributes:
        kind: What is wrong, for programs: one of the texts in docs/http.md.
    """

    kind: ClassVar[str] = "other"


class NotEncrypted(FolderRefused):
    """The peer would send plaintext."""

    kind = "not encrypted"


class OtherPassword(FolderRefused):
    """The peer uses another encryption password than the stored data."""

    kind = "other password"


class FolderNotAllowed(FolderRefused):
    """The operator does not let the peer share the folder."""

    kind = "not allowed"


class FolderUnavailable(FolderRefused):
    """The folder is damaged or cannot be read now, and may be shared again later."""

    kind = "not open"


class BlockUnavailable(ProtocolError):
    """No connected peer can send a block now. Worth another try later."""


class WriteStopped(UntrustedS3Error):
    """The writing of an object was stopped: its content is no longer wanted, or the gateway stops."""


def exit_code_document() -> str:
    """Return docs/exit-codes.md."""
    lines = [
        "# Exit codes",
        "",
        "<!-- Made by: python -m untrusted_s3.errors -->",
        "",
        "| exit code | meaning |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()),
        "",
        "130, 141 and 143 are 128 and the number of the signal, as shells count: SIGINT, SIGPIPE and SIGTERM. A",
        "gateway that a signal stops in order ends with 0.",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(exit_code_document(), end="")
