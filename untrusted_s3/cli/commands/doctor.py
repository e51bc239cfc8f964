"""`untrusted-s3 doctor`: check whether the store does what a gateway needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import click
import uvloop

from untrusted_s3.cli.advice import explain
from untrusted_s3.cli.options import StoreOptions, common_options, json_option, option, store_options
from untrusted_s3.cli.output import print_json
from untrusted_s3.cli.store import open_bucket
from untrusted_s3.errors import BucketUnprotected, StoreError
from untrusted_s3.store import lifecycle, probe
from untrusted_s3.store.protection import ProtectionProbe
from untrusted_s3.store.s3 import S3Bucket

Check = tuple[str, bool, Callable[[S3Bucket], Awaitable[str]]]

# Name, whether a gateway needs it, probe
_CHECKS: tuple[Check, ...] = (
    ("rights", True, probe.probe_rights),
    ("records", True, probe.probe_records),
    ("clock", True, probe.probe_clock),
    ("conditional writes", True, probe.probe_conditional_writes),
    ("presigned ranges", True, probe.probe_presigned_ranges),
    ("presigned expiry", True, probe.probe_presigned_expiry),
    ("multipart copy", True, probe.probe_multipart),
    ("conditional completion", False, probe.probe_conditional_completion),
    ("lifecycle", False, lifecycle.probe_lifecycle),
)
_NAME_WIDTH = max(len(name) for name, _, _ in _CHECKS)


@click.command()
@option("--single-writer", is_flag=True, help="Only one gateway uses the bucket, so conditional writes are not needed.")
@option(
    "--set-lifecycle",
    is_flag=True,
    help="Add a lifecycle rule that ends unfinished uploads; other rules stay.",
)
@json_option
@store_options
@common_options
@click.pass_context
def doctor(
    context: click.Context, store: StoreOptions, single_writer: bool, set_lifecycle: bool, as_json: bool
) -> None:
    """Check whether the store does what a gateway needs.

    Run it with the credentials of the gateway: it also says whether somebody who steals them could destroy the store.
    It writes and deletes objects below probe/ only. The exit code is 3 if the store does not do what is needed.
    """
    checks = list(_CHECKS)
    if single_writer:
        checks = [check if "conditional" not in check[0] else (check[0], False, _not_used) for check in checks]
    protection = ProtectionProbe()
    checks.insert(-1, ("stolen gateway", False, protection.run if store.location is not None else _with_the_gateway))
    if set_lifecycle:
        checks[-1] = ("lifecycle", True, lifecycle.set_lifecycle)
    report = _Report(as_json)
    uvloop.run(_examine(store, checks, report, single_writer))
    if as_json:
        print_json({"ok": report.well, "checks": report.checks, "protection": protection.found.to_json()})
    context.exit(0 if report.well else StoreError.exit_code)


async def _not_used(bucket: S3Bucket) -> str:
    return "not used: only one gateway writes to the bucket"


async def _with_the_gateway(bucket: S3Bucket) -> str:
    raise BucketUnprotected("the embedded store is on the gateway's machine: a thief of that could destroy it")


async def _examine(store: StoreOptions, checks: Sequence[Check], report: _Report, single_writer: bool) -> None:
    try:
        async with open_bucket(store, single_writer=single_writer) as bucket:
            report.add("bucket", "ok", str(bucket.location))
            for name, needed, check in checks:
                try:
                    report.add(name, "ok", await check(bucket))
                except StoreError as error:
                    report.add(name, "FAIL" if needed else "note", explain(error))
    except StoreError as error:
        report.add("bucket", "FAIL", explain(error))


class _Report:
    """The results, printed as they come."""

    def __init__(self, as_json: bool) -> None:
        self.checks: list[dict[str, Any]] = []
        self._as_json = as_json

    @property
    def well(self) -> bool:
        """Whether the store has all that is needed."""
        return all(check["result"] != "FAIL" for check in self.checks)

    def add(self, name: str, result: str, message: str) -> None:
        """Add the result of one check: ok, note or FAIL."""
        self.checks.append({"name": name, "result": result, "message": message})
        if not self._as_json:
            click.echo(f"{result:<4}  {name:<{_NAME_WIDTH}}  {message}")
