"""Errors of all kinds whose texts must not leave the gateway."""

from __future__ import annotations

import inspect
import sqlite3
from collections.abc import Callable

import aiohttp
from yarl import URL

from untrusted_s3 import errors

PATH = "/home/somebody/state/f/state.sqlite"
SIGNATURE = "5ec4e7516na7u4e"
SIGNED_URL = f"https://store.example/b/k?X-Amz-Credential=AKIASECRET&X-Amz-Signature={SIGNATURE}"
TEXT = f"{PATH}: GET {SIGNED_URL} failed: no such table: entries"

# They need more than a text.
_MADE: dict[type[Exception], Callable[[], Exception]] = {
    errors.AddressUnavailable: lambda: errors.AddressUnavailable(SIGNED_URL, "http", TEXT),
    errors.BlockDamaged: lambda: errors.BlockDamaged(PATH, 1, TEXT),
    errors.PathTaken: errors.PathTaken,
    errors.FileInfoRefused: lambda: errors.FileInfoRefused(TEXT, 1, TEXT),
    errors.IndexClaimed: lambda: errors.IndexClaimed(TEXT, 1, 2, 1),
    errors.FolderRemovalUnfinished: lambda: errors.FolderRemovalUnfinished(TEXT),
}


def secret_errors() -> list[Exception]:
    """Return an error of every class of errors.py and of the libraries, with secrets in its text."""
    found: list[Exception] = [
        OSError(28, "No space left on device", PATH),
        PermissionError(13, TEXT, PATH),
        ConnectionResetError(TEXT),
        sqlite3.OperationalError(TEXT),
        sqlite3.DatabaseError(TEXT),
        aiohttp.ClientError(TEXT),
        aiohttp.InvalidURL(SIGNED_URL),
        aiohttp.ClientPayloadError(TEXT),
        aiohttp.TooManyRedirects(
            aiohttp.RequestInfo(URL(SIGNED_URL), "GET", None, URL(SIGNED_URL)),  # type: ignore[arg-type]
            (),
            message=TEXT,
        ),
        TimeoutError(TEXT),
        ValueError(TEXT),
        KeyError(TEXT),
        RuntimeError(TEXT),
    ]
    for _, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.UntrustedS3Error):
            found.append(_MADE[kind]() if kind in _MADE else kind(TEXT))
    return found


def leaks(text: str) -> list[str]:
    """Return what of the secrets is in a text. Violations of the protocol are told in our own words, without paths."""
    return [secret for secret in (SIGNATURE, "AKIASECRET") if secret in text]


def private(text: str) -> list[str]:
    """Return what of the secrets, paths and messages of libraries is in a text."""
    return [*leaks(text), *(word for word in (PATH, "no such table", "store.example", "No space") if word in text)]
