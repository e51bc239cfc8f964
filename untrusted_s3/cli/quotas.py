"""Changing the quotas of a store from the command line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import click

from untrusted_s3.cli.output import size_text
from untrusted_s3.cli.size import NO_QUOTA, Quota
from untrusted_s3.errors import DataError
from untrusted_s3.problem import Problem
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import QUOTAS
from untrusted_s3.store.quotas import Quotas, read_quotas

Owner = TypeVar("Owner")


async def quotas_to_change(bucket: Bucket) -> Quotas:
    """Return the quotas of a store. Where they are damaged, say so and return none. Raises StoreError."""
    try:
        return await read_quotas(bucket)
    except DataError as error:
        click.echo(f"{error}. It is replaced: set the other quotas again", err=True)
        return Quotas()


async def quotas_to_show(bucket: Bucket) -> tuple[Quotas, list[Problem]]:
    """Return the quotas of a store, and what is wrong with them. Raises StoreError."""
    try:
        return await read_quotas(bucket), []
    except DataError as error:
        return Quotas(), [Problem(QUOTAS, str(error).removeprefix(f"{QUOTAS} "))]


def with_quota(quotas: Mapping[Owner, int], owner: Owner, quota: Quota) -> dict[Owner, int]:
    """Return quotas in which one is changed or, without a size, left out."""
    others = {one: size for one, size in quotas.items() if one != owner}
    return others if quota.size is None else {**others, owner: quota.size}


def report_quota(owner: object, quota: Quota) -> None:
    """Say what a quota is now."""
    text = size_text(quota.size) if quota.size is not None else NO_QUOTA
    click.echo(f"quota of {owner}: {text}", err=True)
