"""`untrusted-s3 folders retract`: take bad entries of a folder back."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import is_encrypted_name
from untrusted_s3.cli.key_holder import PASSWORD_VARIABLE, read_password
from untrusted_s3.cli.options import StoreOptions, common_options, json_option, option, store_options
from untrusted_s3.cli.output import counted, print_problems
from untrusted_s3.cli.signals import run_interruptible
from untrusted_s3.cli.way_back import (
    DEFAULT_LIMIT,
    Report,
    WritableFolder,
    password_if_given,
    print_report,
    run,
    way_back_options,
    writable_folder,
)
from untrusted_s3.errors import UsageError
from untrusted_s3.index.state import FolderState
from untrusted_s3.problem import Problem
from untrusted_s3.store.records import PeerRecord, read_peers
from untrusted_s3.structured_logging import printable

if TYPE_CHECKING:
    from untrusted_s3.way_back.suspects import Named, Suspects


@click.command("retract")
@click.argument("folder_id", metavar="FOLDER")
@option(
    "--device",
    "devices",
    key="folders-retract-device",
    type=DeviceID.parse,
    multiple=True,
    metavar="ID",
    help="Take back what came from this device; may be repeated.",
)
@option(
    "--name",
    "names",
    key="folders-retract-name",
    multiple=True,
    help="Take back what this name has: an encrypted name, or with the password a path; may be repeated.",
)
@option(
    "--names-from",
    key="folders-retract-names-from",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Take back what the names in this file have, one a line; - is standard input.",
)
@option(
    "--undecryptable",
    key="folders-retract-undecryptable",
    is_flag=True,
    help="Take back all that does not decrypt. Needs the password.",
)
@way_back_options
@json_option
@store_options
@common_options
def retract(
    folder_id: str,
    devices: tuple[DeviceID, ...],
    names: tuple[str, ...],
    names_from: Path | None,
    undecryptable: bool,
    password_file: Path | None,
    limit: int | None,
    yes: bool,
    single_writer: bool,
    as_json: bool,
    store: StoreOptions,
) -> None:
    """Take bad entries of a folder back, for example after an attack.

    Each name gets the newest earlier version that is not from the device, not the named one, or decrypts; without one
    it is removed. Earlier versions are known as far back as the log goes. Then all devices compare their whole folder
    with the store again, and send what it lacks. No data are deleted. Gateways may run.

    First take the attacker away, or it announces everything again: untrusted-s3 peers remove. Without --yes, the
    command only shows what it would do. It can be repeated at any time.
    """
    if bool(devices) + bool(names or names_from is not None) + undecryptable != 1:
        raise UsageError("say what to take back: --device, --name and --names-from, or --undecryptable")
    wanted = [*names, *(_read_names(names_from) if names_from is not None else ())]
    password = read_password(folder_id, password_file) if undecryptable else password_if_given(folder_id, password_file)
    report = Report(limit if limit is not None or as_json else DEFAULT_LIMIT, None)
    work = _retract(store, folder_id, password, devices, wanted, report, apply=yes, single_writer=single_writer)
    spared, unknown = run_interruptible(work)
    print_report(
        folder_id,
        "taken back",
        report,
        apply=yes,
        as_json=as_json,
        more={"already_taken_back": spared, "unknown_names": unknown},
    )
    if spared:
        click.echo(f"left out, because it was taken back before: {counted(spared, 'name')}", err=True)
    print_problems("not in the folder", [Problem(name, "the folder has no such name") for name in unknown])


async def _retract(
    store: StoreOptions,
    folder_id: str,
    password: str | None,
    devices: tuple[DeviceID, ...],
    names: list[str],
    report: Report,
    *,
    apply: bool,
    single_writer: bool,
) -> tuple[int, list[str]]:
    """Return how many names a renewal has written already, and the names that the folder does not have."""
    from untrusted_s3.way_back.retraction import Retraction
    from untrusted_s3.way_back.suspects import FromDevices, Undecryptable

    async with writable_folder(store, folder_id, password, single_writer=single_writer) as folder:
        report.opener = folder.opener
        peers = {peer.device_id: peer for peer in await read_peers(folder.bucket)}
        unknown: list[str] = []
        suspects: Suspects
        if devices:
            _check_devices(devices, peers, apply=apply)
            suspects = FromDevices(devices)
        elif names:
            suspects, unknown = _named(folder, names)
        else:
            assert folder.opener is not None
            suspects = Undecryptable(folder.opener.decrypts)
        replayed = FolderState(folder.scratch / "replayed.sqlite")
        try:
            plan = Retraction(folder.bucket, folder.keys, suspects, replayed, folder.opener, store.settings.log)
            await run(folder, plan, report, apply=apply)
        finally:
            replayed.close()
        if not devices:
            _warn_of_sources(report, peers)
        return plan.spared, unknown


def _read_names(file: Path) -> list[str]:
    try:
        data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
        return [line for line in data.decode().split("\n") if line]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read names from {file}: {reason}") from None


def _named(folder: WritableFolder, names: list[str]) -> tuple[Named, list[str]]:
    """Return the rule for some names, and those that the folder does not have."""
    from untrusted_s3.way_back.suspects import Named

    given: dict[str, str] = {}
    for name in names:
        if is_encrypted_name(name):
            given[name] = name
        elif folder.opener is None:
            raise UsageError(
                f"{printable(name)!r} is not an encrypted name: to name paths, give the password with --password-file"
                f" or {PASSWORD_VARIABLE}"
            )
        else:
            given[folder.opener.encrypt_name(name.strip("/"))] = name
    named = Named(given, folder.state)
    return named, [given[name] for name in named.unknown]


def _check_devices(devices: tuple[DeviceID, ...], peers: dict[DeviceID, PeerRecord], *, apply: bool) -> None:
    """Raise UsageError, or warn in a dry run, if a device may announce its entries again."""
    for device in devices:
        peer = peers.get(device)
        if peer is None or peer.read_only:
            continue
        text = (
            f"{device} is still accepted and would announce its entries again: first run untrusted-s3 peers remove"
            f" {device}, or peers add {device} --read-only, and wait half a minute"
        )
        if apply:
            raise UsageError(text)
        click.echo(f"warning: {text}", err=True)


def _warn_of_sources(report: Report, peers: dict[DeviceID, PeerRecord]) -> None:
    for device, count in report.sources.items():
        peer = peers.get(device)
        if peer is not None and not peer.read_only:
            click.echo(
                f"warning: {count:,} of them came from {device}, which is still accepted and may announce them again:"
                f" untrusted-s3 peers remove {device}",
                err=True,
            )
