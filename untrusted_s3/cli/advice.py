"""What the user can type to mend an error.

Lower layers say what is wrong and know neither commands nor options; these are named here and in the commands.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Any, Final

from untrusted_s3.errors import (
    AddressUnavailable,
    BucketUnprotected,
    ConditionalWritesUnsupported,
    DeletionDenied,
    EmbeddedStoreAbsent,
    EmbeddedStoreInUse,
    EmbeddedStoreMissing,
    FolderNotAllowed,
    FolderRemovalUnfinished,
    IdentityFolderUnusable,
    InvalidEndpoint,
    LifecycleRuleMissing,
    NoSuchBucket,
    NoSuchFolder,
    NotEncrypted,
    OtherPassword,
    PathTaken,
    StateFolderInUse,
    StateFolderUnusable,
    WrongPassphrase,
)

_PORT_OPTIONS = {"devices": "--listen", "http": "--http"}


def _other_port(error: AddressUnavailable) -> str:
    return f"stop what uses the port, or choose another with {_PORT_OPTIONS[error.purpose]}"


def _remove_again(error: FolderRemovalUnfinished) -> str:
    return f"run untrusted-s3 folders remove {shlex.quote(error.folder_id)} again"


_ADVICE: Final[Mapping[type, str | Callable[[Any], str]]] = {
    AddressUnavailable: _other_port,
    BucketUnprotected: 'docs/keeping-a-store-healthy.md, "Against a stolen gateway", says how to set it up',
    ConditionalWritesUnsupported: (
        "use another store, or, if this gateway is the only one on the bucket, add --single-writer"
    ),
    DeletionDenied: (
        "run the command with other credentials: it needs s3:DeleteObject and s3:AbortMultipartUpload. A gateway needs"
        " neither"
    ),
    EmbeddedStoreAbsent: (
        "run the command where you run untrusted-s3 serve, name that place with --data, or name a bucket with --store"
    ),
    EmbeddedStoreInUse: "stop that process, or choose another folder with --data",
    EmbeddedStoreMissing: ("install it with: pip install 'untrusted-s3[embedded]', or name an S3 bucket with --store"),
    FolderRemovalUnfinished: _remove_again,
    IdentityFolderUnusable: "choose another directory with --identity",
    InvalidEndpoint: "correct --endpoint-url",
    LifecycleRuleMissing: "untrusted-s3 doctor --set-lifecycle adds one",
    NoSuchBucket: "check --store, or create the bucket with --create-bucket",
    NoSuchFolder: "untrusted-s3 folders list shows the folders",
    PathTaken: "--overwrite replaces files and symlinks",
    StateFolderInUse: "stop that gateway, or choose another folder with --state",
    StateFolderUnusable: "choose another with --state",
    WrongPassphrase: (
        "give the one that the identity was made with; if it is lost, choose another --identity-name and accept the"
        " new device ID at every peer: no data is lost"
    ),
}

# What to do about folders of devices that are refused, by the kind of the refusal.
REFUSAL_ADVICE: Final[Mapping[str, str]] = {
    FolderNotAllowed.kind: (
        "Let a device share more folders with: untrusted-s3 peers add DEVICE_ID --folders FOLDER,FOLDER (or"
        " --all-folders); let it write with --read-write, and encrypt with --trusted"
    ),
    NotEncrypted.kind: (
        "A folder without a password: on the device, in Syncthing, edit the folder, open Sharing and set an encryption"
        " password for the gateway"
    ),
    OtherPassword.kind: (
        "Another password: correct it on the device, where the folder's Sharing has it. If you really mean to change"
        ' the password, docs/devices-and-folders.md, "A changed password", has the ways'
    ),
}
REFUSED_INDEX_ADVICE: Final = (
    "A device closes each connection because an entry of the folder does not decrypt. Somebody without the password has"
    " made it, most likely an untrusted device in the list. Stop that device with: untrusted-s3 peers add DEVICE_ID"
    " --read-only (or peers remove); then take its entries back with: untrusted-s3 folders retract FOLDER --device"
    " DEVICE_ID. With the password, --undecryptable finds the entries themselves"
)
LOST_ADVICE: Final = (
    "Devices that still have what the log has lost send it again. When you have taken note, untrusted-s3 folders losses"
    " FOLDER --clear ends this report; docs/http.md says what is meant"
)
# What to do about files that wait for room, and how to raise a limit, by its kind.
LIMIT_ADVICE: Final = (
    "Files wait for room: they come in when files are deleted on a device, or when you raise the limit:"
)
LIMIT_COMMANDS: Final[Mapping[str, str]] = {
    "folder": "untrusted-s3 folders set FOLDER --quota SIZE",
    "device": "untrusted-s3 peers set DEVICE_ID --quota SIZE",
    "store": "untrusted-s3 serve --max-store SIZE",
}
NO_FOLDER_ADVICE: Final = (
    "A device is connected and shares no folder: share one with the gateway in Syncthing, with an encryption password;"
    " or offer the device a folder that the store has: untrusted-s3 peers add DEVICE_ID --share FOLDER"
)

CONFLICTS_ADVICE: Final = (
    "Files are in conflict: two devices have changed a file without seeing each other's change, and one of them stays"
    " with its own version. The store has both. The devices settle it themselves, with the usual conflict copies: let"
    " each of them be connected for some minutes, two or three times. With the password, untrusted-s3 ls --conflicts"
    " lists the versions that lose, and untrusted-s3 restore --conflicts brings them"
)


def advise(error: BaseException) -> str | None:
    """Return what to do about an error, or None if its message says all."""
    for kind in type(error).__mro__:
        advice = _ADVICE.get(kind)
        if advice is not None:
            return advice if isinstance(advice, str) else advice(error)
    return None


def explain(error: BaseException) -> str:
    """Return an error's message and the advice on it, on one line."""
    advice = advise(error)
    return f"{error}; {advice}" if advice else str(error)
