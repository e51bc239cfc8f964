"""`untrusted-s3 stats`: what the store holds, which requests it gets, and about what it costs."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from untrusted_s3.cli.allocator import reuse_large_buffers
from untrusted_s3.cli.options import (
    StoreOptions,
    common_options,
    current_invocation,
    json_option,
    option,
    store_options,
)
from untrusted_s3.cli.output import counted, print_json, print_problems, print_table, size_text
from untrusted_s3.cli.progress import shown_text
from untrusted_s3.cli.signals import run_interruptible
from untrusted_s3.cli.store import open_bucket
from untrusted_s3.problem import Problem

if TYPE_CHECKING:
    from untrusted_s3.stats.amounts import Contents
    from untrusted_s3.stats.prices import Estimate
    from untrusted_s3.stats.requests import RequestStats
    from untrusted_s3.stats.store import StoreStats

_ALWAYS_SHOWN = ("live", "history", "garbage", "unknown")


@click.command()
@click.argument("folder_ids", metavar="[FOLDER]...", nargs=-1)
@option(
    "--prices",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="TOML file with prices, in place of those that come with the program.",
)
@json_option
@store_options
@common_options
def stats(folder_ids: tuple[str, ...], prices: Path | None, as_json: bool, store: StoreOptions) -> None:
    """Show what the store holds, and about what it costs.

    The objects of each folder are counted by what names them: live is what the folder is now, other versions of a
    conflict included; history is what only earlier states name that can still be restored; garbage is what nothing
    names, or not yet; unknown are keys that are not of this program. The log counts beside them, with checkpoints
    and records.

    Requests are those of gateways in the last 24 hours and 30 days, by kind, and the bytes of objects that the store
    has sent to them. Each gateway writes its numbers down once an hour. Requests of other commands are not in them.

    The estimate is for a month with what is stored now and as many requests as in the last 30 days. What the store
    sends counts as leaving the provider (egress): where the gateway runs at the same provider, that costs little or
    nothing. The prices that come with the program are examples with a date: check them with your provider. Tax and
    free allowances are not in the estimate.

    All objects are listed and all of each log is read. Nothing is written, no password is needed, and gateways may
    run. With FOLDER, only these folders are counted, without requests.
    """
    from untrusted_s3.stats.prices import read_prices

    reuse_large_buffers()
    table = read_prices(prices)
    counted_store = run_interruptible(_count(store, folder_ids))
    monthly = counted_store.requests.monthly if counted_store.requests is not None else {}
    estimates = [price.estimate(counted_store.total.storage_classes, monthly) for price in table]
    if as_json:
        print_json(_to_json(counted_store, estimates))
    else:
        _print(counted_store, estimates)


async def _count(store: StoreOptions, folder_ids: tuple[str, ...]) -> StoreStats:
    from untrusted_s3.stats.store import StoreStats

    live_line = current_invocation().live_line
    async with contextlib.AsyncExitStack() as stack:
        bucket = await stack.enter_async_context(open_bucket(store))
        counting = StoreStats(bucket, store.settings)
        if live_line is not None:
            await stack.enter_async_context(shown_text(lambda: _progress(counting), live_line))
        await counting.run(folder_ids)
        return counting


def _progress(counting: StoreStats) -> str:
    if counting.doing:
        return counting.doing
    if not counting.folders:
        return "reading the records"
    folder = counting.folders[-1]
    if folder.segments:
        return f"{folder.id}: read {folder.read_segments:,} of {folder.segments:,} segments of the log"
    if folder.listed:
        return f"{folder.id}: listed {counted(folder.listed, 'object')}"
    return f"{folder.id}: reading the log"


def _to_json(counting: StoreStats, estimates: list[Estimate]) -> dict[str, Any]:
    return {
        "folders": [folder.to_json() for folder in counting.folders],
        "outside": counting.outside.to_json(),
        "total": counting.total.to_json(),
        "requests": counting.requests.to_json() if counting.requests is not None else None,
        "monthly_cost": [estimate.to_json() for estimate in estimates],
    }


def _print(counting: StoreStats, estimates: list[Estimate]) -> None:
    total = counting.total
    shown = [(folder.id, folder.contents) for folder in counting.folders]
    shown += [("(outside)", counting.outside), ("all", total)]
    kinds = [name for name, amount in total.kinds() if name in _ALWAYS_SHOWN or amount.objects]
    rows = []
    for name, contents in shown:
        amounts = dict(contents.kinds())
        rows.append([name, *(f"{amounts[kind].objects:,} ({size_text(amounts[kind].bytes)})" for kind in kinds)])
    print_table(["folder", *kinds], rows)
    click.echo()
    _print_classes(counting)
    _print_storage_classes(total)
    if counting.requests is not None:
        _print_requests(counting.requests)
    _print_cost(counting, estimates)
    problems = [Problem(folder.id, folder.problem) for folder in counting.folders if folder.problem is not None]
    print_problems("not clear what these folders name", problems)
    print_problems("unreadable in the store", counting.requests.unreadable if counting.requests is not None else ())


def _print_classes(counting: StoreStats) -> None:
    from untrusted_s3.stats.amounts import SIZE_CLASSES

    names = [*(f"up to {size_text(limit)}" for limit in SIZE_CLASSES), "larger"]
    classes = counting.total.classes
    rows = [[name, one.objects, size_text(one.bytes)] for name, one in zip(names, classes, strict=True) if one.objects]
    if rows:
        print_table(["size of objects", "objects", "bytes"], rows)
        click.echo()


def _print_storage_classes(total: Contents) -> None:
    from untrusted_s3.store.bucket import STANDARD

    if total.storage_classes.keys() - {STANDARD}:
        rows = [[name, one.objects, size_text(one.bytes)] for name, one in sorted(total.storage_classes.items())]
        print_table(["storage class", "objects", "bytes"], rows)
        click.echo()


def _print_requests(requests: RequestStats) -> None:
    if requests.since is None:
        click.echo("no gateway has written down its requests in the last 30 days\n")
        return
    from untrusted_s3.store.usage import KINDS, RECEIVED

    rows = [[kind, requests.day[kind], requests.month[kind]] for kind in KINDS if requests.month[kind]]
    rows.append(["all", *(sum(counts[kind] for kind in KINDS) for counts in (requests.day, requests.month))])
    rows.append(["bytes received", *(size_text(counts[RECEIVED]) for counts in (requests.day, requests.month))])
    print_table(["requests", "last 24 hours", "last 30 days"], rows)
    days = f", counted for {requests.days:.1f} days" if requests.days < 30 else ""
    click.echo(f"of {counted(requests.gateways, 'gateway')}{days}\n")


def _print_cost(counting: StoreStats, estimates: list[Estimate]) -> None:
    rows = [
        [
            one.price.name,
            f"{one.total:,.2f} {one.price.currency}",
            f"{one.storage:,.2f}",
            f"{one.requests:,.2f}",
            f"{one.egress:,.2f}",
            f"{one.price.egress:g}",
            one.price.as_of,
        ]
        for one in estimates
    ]
    print_table(["a month, about", "total", "storage", "requests", "egress", "egress of 1 GB", "as of"], rows)
    click.echo("Examples: check the prices with your provider. Not in them: tax, free allowances.")
