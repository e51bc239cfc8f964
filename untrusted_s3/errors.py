"""Every error that this program raises on purpose, with the exit code the command line gives it.

A message says what is wrong and, where the reader can do something, what to do.

Exit codes: 0 all well; 1 something wrong in the data, or a fault of our own; 2 usage or configuration; 3 the store
cannot be reached or refuses; 4 wrong password; 5 no gateway answers.
"""

from __future__ import annotations


class UntrustedS3Error(Exception):
    """The base of all our errors."""

    exit_code = 1


# Usage and configuration


class UsageError(UntrustedS3Error):
    """An option, a file or a setting that the user has to change."""

    exit_code = 2


class InvalidDeviceID(UsageError):
    """A text that is no Syncthing device ID; the message tells which part is wrong."""


class WrongPassword(UntrustedS3Error):
    """A password or passphrase that does not open what it should."""

    exit_code = 4


# A running gateway


class GatewayUnreachable(UntrustedS3Error):
    """No gateway answers HTTP at that address."""

    exit_code = 5


# The store


class StoreError(UntrustedS3Error):
    """The store answered with a refusal, or not at all."""

    exit_code = 3


class StoreUnreachable(StoreError):
    """No answer from the store: a network fault, or the server is down. Worth another try."""


class StoreRefused(StoreError):
    """The store answered and will not do it: credentials, rights, a missing bucket, a clock that is off."""


class ConditionalWritesUnsupported(StoreRefused):
    """The store does not keep two concurrent `If-None-Match: *` PUTs apart."""


class NoSuchKey(StoreError):
    """There is no object under that key."""


class PreconditionFailed(StoreError):
    """A conditional PUT found the key taken (HTTP 412, or 409 in a race)."""


class UploadLost(StoreError):
    """A multipart upload is gone, or a part of it is another: somebody else was there. Worth another try."""


class PreviousObjectGone(StoreError):
    """The object that unchanged data was to come from is not there any more."""


# The bucket's contents


class DataError(UntrustedS3Error):
    """Something in the bucket is not what the format says."""


class NotRestored(UntrustedS3Error):
    """Something could not be written to the local disk; the message says why, not what."""


class DecryptionFailed(DataError):
    """A ciphertext, name or token that the key did not make: altered, cut short, or made with another key."""


class InconsistentFileInfo(DataError):
    """A file info whose outside, which anybody can write, does not fit the real one that is encrypted in it."""


class BlockDamaged(DataError):
    """A block of a file that cannot be read from the store, or is not what its file info says.

    `path` is the plain name, `offset` where the block begins in the plain file, `reason` what is wrong.
    """

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(f"{path!r} is damaged at byte {offset}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason


# Local state


class StateDamaged(UntrustedS3Error):
    """A file of the local state cannot be used any more; what it held is in the store."""


# A real Syncthing beside us


class SyncthingFailed(UntrustedS3Error):
    """Syncthing refused, died, or did not get there in time."""


class CheckFailed(UntrustedS3Error):
    """Something that a real Syncthing made or kept is not as our own code makes or expects it."""


# The protocol


class ProtocolError(UntrustedS3Error):
    """The Block Exchange Protocol was not kept."""


class LocalProtocolError(ProtocolError):
    """We were about to break the protocol: a bug of ours. Nothing was sent."""


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; the connection must be closed."""


class TLSFailed(RemoteProtocolError):
    """TLS could not be set up with the peer, or broke."""


class TooManyConnections(ProtocolError):
    """A connection of a device that is not accepted (yet) made room for a newer one."""


class FolderRefused(ProtocolError):
    """A folder cannot be shared with this peer, though the connection may go on."""


class BlockUnavailable(ProtocolError):
    """No connected peer gives us a block now; worth another try later."""


class PullStopped(UntrustedS3Error):
    """A file was given up in order: its content is not wanted any more, or the gateway stops."""
