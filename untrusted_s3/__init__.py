"""A Syncthing untrusted device that keeps encrypted folders in S3 and owns no disk.

The names in `__all__` are the public surface, which docs/python-api.md describes. Everything else may change at any
time. Each name is loaded when it is first used, so that importing the package is cheap, and so that a gateway does not
load what can decrypt.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from untrusted_s3.errors import (
        BlockDamaged,
        DataError,
        FolderRemovalUnfinished,
        NoSuchFolder,
        StoreError,
        StoreRefused,
        StoreUnreachable,
        UntrustedS3Error,
        UsageError,
        WrongPassword,
    )
    from untrusted_s3.index.state import FolderTotals
    from untrusted_s3.settings import ReadSettings
    from untrusted_s3.store.connection import S3Credentials
    from untrusted_s3.store.layout import StoreLocation
    from untrusted_s3.store.s3 import S3Bucket
    from untrusted_s3.vault.entry import DamagedEntry, Entry, Kind, Version
    from untrusted_s3.vault.folder import Folder, open_folder
    from untrusted_s3.vault.reading import Block, BlockReader

__version__ = "0.1.0"

__all__ = [
    "Block",
    "BlockDamaged",
    "BlockReader",
    "DamagedEntry",
    "DataError",
    "Entry",
    "Folder",
    "FolderRemovalUnfinished",
    "FolderTotals",
    "Kind",
    "NoSuchFolder",
    "ReadSettings",
    "S3Bucket",
    "S3Credentials",
    "StoreError",
    "StoreLocation",
    "StoreRefused",
    "StoreUnreachable",
    "UntrustedS3Error",
    "UsageError",
    "Version",
    "WrongPassword",
    "__version__",
    "open_folder",
]

_MODULES = {
    "Block": "vault.reading",
    "BlockReader": "vault.reading",
    "DamagedEntry": "vault.entry",
    "Entry": "vault.entry",
    "Folder": "vault.folder",
    "FolderTotals": "index.state",
    "Kind": "vault.entry",
    "ReadSettings": "settings",
    "S3Bucket": "store.s3",
    "S3Credentials": "store.connection",
    "StoreLocation": "store.layout",
    "Version": "vault.entry",
    "open_folder": "vault.folder",
}


if not TYPE_CHECKING:  # else every attribute would exist for type checkers

    def __getattr__(name: str) -> object:
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
