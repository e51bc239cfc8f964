"""`untrusted-s3 status`: show what a running gateway does."""

from __future__ import annotations

import http.client
import json
from typing import Any

import click

from untrusted_s3.addresses import HostPort
from untrusted_s3.cli.advice import (
    CONFLICTS_ADVICE,
    LIMIT_ADVICE,
    LIMIT_COMMANDS,
    LOST_ADVICE,
    NO_FOLDER_ADVICE,
    REFUSAL_ADVICE,
    REFUSED_INDEX_ADVICE,
)
from untrusted_s3.cli.options import NO_HTTP, common_options, http_option, json_option, parse_http
from untrusted_s3.cli.output import counted, print_json, print_table, size_text
from untrusted_s3.errors import GatewayUnreachable, UsageError

_TIMEOUT = 10.0
_WILDCARDS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


@click.command()
@http_option("Where the gateway serves HTTP.")
@json_option
@common_options
def status(http: str, as_json: bool) -> None:
    """Show what a running gateway does."""
    if http == NO_HTTP:
        raise UsageError("--http none: a gateway that serves no HTTP cannot be asked for its status")
    answer = fetch_status(parse_http(http))
    if as_json:
        print_json(answer)
    else:
        _print_status(answer)


def fetch_status(address: HostPort) -> Any:
    """Return the answer to GET /api/status. Raises GatewayUnreachable."""
    connection = http.client.HTTPConnection(_WILDCARDS.get(address.host, address.host), address.port, timeout=_TIMEOUT)
    try:
        # The gateway answers names only that it knows, against web pages with a host name of their own.
        connection.request("GET", "/api/status", headers={"Host": "localhost"})
        response = connection.getresponse()
        answer = json.loads(response.read())
        if response.status != http.client.OK or "device_id" not in answer:
            raise ValueError(f"HTTP status {response.status}")
        return answer
    except (OSError, http.client.HTTPException, ValueError, TypeError) as error:
        raise GatewayUnreachable(
            f"no gateway answers at {address} ({error or type(error).__name__}): start it with untrusted-s3 serve, or"
            " name its address with --http"
        ) from error
    finally:
        connection.close()


def trusted(source: Any) -> str:
    """Return in a word whether a device encrypts for the gateway."""
    return "trusted" if source["trusted"] else "untrusted"


def _print_refused(peers: Any) -> None:
    """Print which folders of devices are refused, why, and what to do."""
    refused = [(peer, folder) for peer in peers for folder in peer.get("refused_folders", ())]
    if refused:
        click.echo()
        rows = [
            (folder["id"], folder["label"], peer["name"] or peer["device_id"], folder["reason"])
            for peer, folder in refused
        ]
        print_table(("REFUSED FOLDER", "LABEL", "DEVICE", "REASON"), rows)
    refusing = [(peer, folder) for peer in peers for folder in peer.get("refused_indexes", ())]
    if refusing:
        click.echo()
        index_rows = [
            (folder["id"], peer["name"] or peer["device_id"], source["device_id"], source["entries"], trusted(source))
            for peer, folder in refusing
            for source in folder["entries_from"] or [{"device_id": "not known", "entries": 0, "trusted": True}]
        ]
        headers = ("INDEX NOT DECRYPTED", "BY DEVICE", "ENTRIES FROM", "ENTRIES", "KIND")
        print_table(headers, index_rows)
        click.echo(f"\n{REFUSED_INDEX_ADVICE}", err=True)
    for kind in sorted({folder["kind"] for _, folder in refused} & REFUSAL_ADVICE.keys()):
        click.echo(f"\n{REFUSAL_ADVICE[kind]}", err=True)
    if any(peer["connected"] and not peer.get("folders", True) and not peer.get("refused_folders") for peer in peers):
        click.echo(f"\n{NO_FOLDER_ADVICE}", err=True)


def _print_dissents(folders: Any) -> None:
    """Print of which folders devices have different versions of files, and what to do."""
    rows = []
    for folder in folders:
        if not folder.get("disputed_files"):
            continue
        counts = folder["conflicting_files"], folder["disputed_files"]
        devices = [(one["name"] or one["device_id"], one["dissents"]) for one in folder["dissents_of"]]
        if more := folder["dissenting_devices"] - len(devices):
            devices.append((f"and {more:,} more", ""))
        rows += [(folder["id"], folder["label"], *counts, *device) for device in devices]
    if rows:
        click.echo()
        print_table(("FOLDER", "LABEL", "FILES IN CONFLICT", "FILES THAT DIFFER", "DEVICE", "OTHER VERSIONS"), rows)
    if any(folder.get("conflicting_files") for folder in folders):
        click.echo(f"\n{CONFLICTS_ADVICE}", err=True)


def _print_losses(folders: Any) -> None:
    """Print what the store has lost of folders, and what to do."""
    rows = []
    for folder in folders:
        if missing := folder.get("missing_files"):
            rows.append((folder["id"], f"{counted(missing, 'file')}: their objects are missing or damaged"))
        rows.extend((folder["id"], text) for text in folder.get("lost", ()))
        if more := folder.get("lost_count", 0) - len(folder.get("lost", ())):
            rows.append((folder["id"], f"and {more:,} more, which were found before"))
    if rows:
        click.echo()
        print_table(("FOLDER", "LOST BY THE STORE"), rows)
    if any(folder.get("lost") for folder in folders):
        click.echo(f"\n{LOST_ADVICE}", err=True)


def _print_limits(answer: Any) -> None:
    """Print which quotas and limits there are and how much of them is used, and what to do where files wait."""
    folders, peers = answer["folders"], answer["peers"]
    found = [("folder", folder["id"], folder.get("quota"), folder["bytes"]) for folder in folders]
    found += [
        ("device", peer["name"] or peer["device_id"], peer.get("quota"), peer.get("used_bytes")) for peer in peers
    ]
    found.append(("store", "", answer.get("max_store"), answer.get("used_bytes")))
    rows = [(kind, name, size_text(size), size_text(used)) for kind, name, size, used in found if size is not None]
    if rows:
        click.echo()
        print_table(("LIMIT OF", "", "BYTES", "USED"), rows)
    kinds = {limit["kind"] for folder in folders for limit in folder.get("limits_reached", ())}
    if kinds:
        commands = ", ".join(LIMIT_COMMANDS[kind] for kind in LIMIT_COMMANDS if kind in kinds)
        click.echo(f"\n{LIMIT_ADVICE} {commands}", err=True)


def _print_scrubs(folders: Any) -> None:
    """Print how far the reading of all objects is, and what it has found."""
    rows = [
        (folder["id"], f"{scrub['progress']:.0%}", scrub["objects"], scrub["damaged"], scrub["finished"] or "never")
        for folder in folders
        if (scrub := folder.get("scrub")) is not None
    ]
    if rows:
        click.echo()
        print_table(("FOLDER", "SCRUBBED", "OBJECTS READ", "DAMAGED", "LAST ROUND ENDED"), rows)


def _print_status(answer: Any) -> None:
    click.echo(f"Device ID  {answer['device_id']}")
    click.echo(f"Store      {answer['store']}")
    click.echo(f"Version    {answer['version']}")
    if denied := answer.get("denied"):
        click.echo(f"Denied     {', '.join(denied)}: others have to clean up the store (untrusted-s3 gc --delete)")
    click.echo()
    folders = [
        (
            folder["id"],
            folder["label"],
            folder["state"],
            folder["files"],
            size_text(folder["bytes"]),
            folder["pending_files"],
            size_text(folder["pending_bytes"]),
            folder["error"] or "",
        )
        for folder in answer["folders"]
    ]
    print_table(("FOLDER", "LABEL", "STATE", "FILES", "SIZE", "PENDING", "PENDING SIZE", "ERROR"), folders)
    _print_limits(answer)
    _print_losses(answer["folders"])
    _print_scrubs(answer["folders"])
    _print_dissents(answer["folders"])
    click.echo()
    peers = [
        (
            peer["device_id"],
            peer["name"],
            "yes" if peer["connected"] else "no",
            "read" if peer.get("read_only") else "read, write",
            " ".join(peer.get("folders", ())),
            peer["address"] or "",
            peer["client"] or "",
            # Refused folders are shown below.
            "" if peer.get("refused_folders") else peer["error"] or "",
        )
        for peer in answer["peers"]
    ]
    print_table(("DEVICE ID", "NAME", "CONNECTED", "MAY", "FOLDERS", "ADDRESS", "CLIENT", "ERROR"), peers)
    _print_refused(answer["peers"])
    if answer["unknown_devices"]:
        click.echo()
        unknown = [
            (device["device_id"], device["name"], device["address"], device["last_seen"])
            for device in answer["unknown_devices"]
        ]
        print_table(("UNKNOWN DEVICE", "NAME", "ADDRESS", "LAST SEEN"), unknown)
        click.echo("\nAccept one with: untrusted-s3 peers add DEVICE_ID", err=True)
