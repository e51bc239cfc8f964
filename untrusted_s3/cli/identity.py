"""Options for a gateway's identity: a folder, secret files, the environment, or the store with a passphrase."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.cli.options import ENVIRONMENT_PREFIX, apply_options, current_invocation, option
from untrusted_s3.cli.secret import read_secret
from untrusted_s3.errors import UsageError
from untrusted_s3.identity import environment, files, sealed
from untrusted_s3.identity.certificate import Identity
from untrusted_s3.settings import IdentitySettings
from untrusted_s3.store.bucket import Bucket

# Secrets are not options, because every user of the machine can see a command line.
CERTIFICATE_VARIABLE = ENVIRONMENT_PREFIX + "IDENTITY_CERT_PEM"
KEY_VARIABLE = ENVIRONMENT_PREFIX + "IDENTITY_KEY_PEM"
PASSPHRASE_VARIABLE = ENVIRONMENT_PREFIX + "IDENTITY_PASSPHRASE"

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class IdentityOptions:
    """Where the identity is: in the one source that is set, else in `directory`.

    Attributes:
        directory: A folder with the certificate and the private key; made at first use.
        files: The certificate and the private key as files.
        texts: The certificate and the private key in PEM form.
        name: The name of a sealed identity in the store; made at first use.
        passphrase_file: A file with its passphrase.
        passphrase: Its passphrase. At most one of the two is set.
        settings: What options do not set.
    """

    directory: Path
    files: tuple[Path, Path] | None = None
    texts: tuple[str, str] | None = field(default=None, repr=False)
    name: str | None = None
    passphrase_file: Path | None = None
    passphrase: str | None = field(default=None, repr=False)
    settings: IdentitySettings = field(default_factory=IdentitySettings)

    @property
    def in_store(self) -> bool:
        """Whether the identity is in the store."""
        return self.name is not None

    async def open(self, bucket: Bucket) -> Identity:
        """Return the identity, wherever it is; make it at first use.

        Raises UsageError; for an identity in the store also WrongPassword, DataError or StoreError.
        """
        if self.name is None:
            return self.open_local()
        return await sealed.open_or_create(bucket, self.name, self._read_passphrase(), self.settings)

    def open_local(self) -> Identity:
        """Like `open`, for an identity that is not in the store."""
        if self.files is not None:
            return files.load_files(*self.files)
        if self.texts is not None:
            return environment.from_texts(*self.texts, (CERTIFICATE_VARIABLE, KEY_VARIABLE))
        return files.load_or_create(self.directory)

    def local_device_id(self) -> DeviceID | None:
        """Return the device ID of an identity that is not in the store; None if it does not exist yet.

        Raises UsageError.
        """
        if self.files is None and self.texts is None and not files.is_present(self.directory):
            return None
        return self.open_local().device_id

    async def stored_device_id(self, bucket: Bucket) -> DeviceID | None:
        """Return the device ID of an identity in the store; None if it does not exist yet. Needs no passphrase.

        Raises UsageError, DataError or StoreError.
        """
        assert self.name is not None
        record = await sealed.read(bucket, self.name)
        return record.device_id if record is not None else None

    def _read_passphrase(self) -> str:
        if self.passphrase_file is not None:
            return read_secret(self.passphrase_file, "passphrase")
        if self.passphrase is None:
            raise UsageError(f"--identity-name needs --identity-passphrase-file or {PASSPHRASE_VARIABLE}")
        return self.passphrase


def identity_options(function: Function) -> Function:
    """Add the options and variables of all sources, given to the command as IdentityOptions `identity`.

    The command also needs `store_options`, for the default directory.
    """

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
            current_invocation().settings.identity,
        )
        return function(*args, identity=options, **parameters)

    file = click.Path(dir_okay=False, path_type=Path)
    decorators = [
        option(
            "--identity",
            type=click.Path(file_okay=False, path_type=Path),
            help="Directory of the certificate and the private key; made at first use.  [default: DATA/identity]",
        ),
        option("--identity-cert", type=file, help="The certificate, a file of any name; needs --identity-key."),
        option("--identity-key", type=file, help="The private key, a file of any name; needs --identity-cert."),
        option("--identity-name", metavar="NAME", help="An identity in the store, sealed; made at first use."),
        option("--identity-passphrase-file", type=file, help="File with the passphrase of --identity-name."),
    ]
    return cast(Function, apply_options(decorators, wrapper))


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
