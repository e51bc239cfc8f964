"""Where a gateway's identity comes from: a folder, secret files, the environment, or the store under a passphrase."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.options import ENVIRONMENT_PREFIX, option
from untrusted_s3.errors import UsageError
from untrusted_s3.identity import certificate as identities
from untrusted_s3.identity import sealed as sealed_identity
from untrusted_s3.identity.certificate import Identity
from untrusted_s3.store.bucket import Bucket

# Secrets are no options: a command line is there for all to see.
CERTIFICATE_VARIABLE = ENVIRONMENT_PREFIX + "IDENTITY_CERT_PEM"
KEY_VARIABLE = ENVIRONMENT_PREFIX + "IDENTITY_KEY_PEM"
PASSPHRASE_VARIABLE = ENVIRONMENT_PREFIX + "IDENTITY_PASSPHRASE"

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class IdentityOptions:
    """The one source that is set, else the folder: two files, two texts in PEM form, or a name in the store. Either the
    passphrase of that name or its file may be there."""

    directory: Path
    files: tuple[Path, Path] | None = None
    texts: tuple[str, str] | None = field(default=None, repr=False)
    name: str | None = None
    passphrase_file: Path | None = None
    passphrase: str | None = field(default=None, repr=False)

    @property
    def in_store(self) -> bool:
        """Whether it takes the store to know the identity."""
        return self.name is not None

    async def open(self, bucket: Bucket) -> Identity:
        """The identity; made at first use in a folder or in the store.

        Raises UsageError; and WrongPassword, DataError or StoreError for one in the store.
        """
        if self.name is None:
            return self.open_local()
        return await sealed_identity.open_or_create(bucket, self.name, self._read_passphrase())

    def open_local(self) -> Identity:
        """As `open`, for an identity that is not in the store."""
        if self.files is not None:
            return identities.load_files(*self.files)
        if self.texts is not None:
            certificate, key = (_pem(text) for text in self.texts)
            return identities.parse(
                certificate, key, (CERTIFICATE_VARIABLE, KEY_VARIABLE), "set both from one identity"
            )
        return identities.load_or_create(self.directory)

    def local_device_id(self) -> DeviceID | None:
        """The device ID of an identity that is not in the store, or None where none is made yet. Raises UsageError."""
        if self.files is None and self.texts is None and not any(self.directory.glob("*.pem")):
            return None
        return self.open_local().device_id

    async def stored_device_id(self, bucket: Bucket) -> DeviceID | None:
        """The device ID of an identity in the store, or None where none is made yet. It takes no passphrase.

        Raises UsageError, DataError or StoreError.
        """
        assert self.name is not None
        record = await sealed_identity.read(bucket, self.name)
        return record.device_id if record is not None else None

    def _read_passphrase(self) -> str:
        if self.passphrase_file is None and self.passphrase is None:
            raise UsageError(f"--identity-name needs --identity-passphrase-file or {PASSPHRASE_VARIABLE}")
        if self.passphrase_file is None:
            return self.passphrase or ""
        try:
            # An editor or `echo` ends a file with a line break.
            return self.passphrase_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            fault = error.strerror if isinstance(error, OSError) else "it is no text in UTF-8"
            raise UsageError(f"cannot read the passphrase from {self.passphrase_file}: {fault}") from None


def identity_options(function: Function) -> Function:
    """--identity and the options and variables of the other sources, given to the command as one IdentityOptions named
    `identity`. The command also needs `store_options`, for the default."""

    @functools.wraps(function)
    def wrapper(
        *args: Any,
        identity: Path | None,
        identity_cert: Path | None,
        identity_key: Path | None,
        identity_name: str | None,
        identity_passphrase_file: Path | None,
        **parameters: Any,
    ) -> Any:
        certificate, key, passphrase = (
            os.environ.get(name) or None for name in (CERTIFICATE_VARIABLE, KEY_VARIABLE, PASSPHRASE_VARIABLE)
        )
        _check_alone(
            {
                "--identity": identity,
                "--identity-cert": identity_cert or identity_key,
                CERTIFICATE_VARIABLE: certificate or key,
                "--identity-name": identity_name,
            }
        )
        _check_alone({"--identity-passphrase-file": identity_passphrase_file, PASSPHRASE_VARIABLE: passphrase})
        if (identity_passphrase_file or passphrase) and identity_name is None:
            raise UsageError("a passphrase for the identity needs --identity-name: which identity in the store?")
        options = IdentityOptions(
            identity or parameters["store"].data / "identity",
            _both("--identity-cert", identity_cert, "--identity-key", identity_key),
            _both(CERTIFICATE_VARIABLE, certificate, KEY_VARIABLE, key),
            identity_name,
            identity_passphrase_file,
            passphrase,
        )
        return function(*args, identity=options, **parameters)

    file = click.Path(dir_okay=False, path_type=Path)
    decorators = [
        option(
            "--identity",
            type=click.Path(file_okay=False, path_type=Path),
            help="Where certificate and private key are; made at first use.  [default: DATA/identity]",
        ),
        option("--identity-cert", type=file, help="The certificate as a file of any name; goes with --identity-key."),
        option("--identity-key", type=file, help="The private key as a file of any name; goes with --identity-cert."),
        option("--identity-name", metavar="NAME", help="An identity in the store, sealed; made at first use."),
        option("--identity-passphrase-file", type=file, help="The passphrase of --identity-name."),
    ]
    decorated: Callable[..., Any] = wrapper
    for decorate in reversed(decorators):
        decorated = decorate(decorated)
    return cast(Function, decorated)


Value = TypeVar("Value")


def _both(first_name: str, first: Value | None, second_name: str, second: Value | None) -> tuple[Value, Value] | None:
    if first is not None and second is not None:
        return first, second
    if first is None and second is None:
        return None
    given, missing = (first_name, second_name) if second is None else (second_name, first_name)
    raise UsageError(f"{given} needs {missing} too: an identity is a certificate and its private key")


def _check_alone(sources: dict[str, object]) -> None:
    given = [name for name, value in sources.items() if value]
    if len(given) > 1:
        raise UsageError(f"{given[0]} and {given[1]} are both set: choose one")


def _pem(text: str) -> bytes:
    r"""A text in PEM form; some platforms put a backslash and an n in the place of a line break."""
    return text.replace("\\n", "\n").encode(errors="surrogateescape")
