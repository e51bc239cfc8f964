"""The scrub of a folder's log: whether it is whole, and whether the checkpoints say what it says."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import structlog

from untrusted_s3.index.local_files import CHECKPOINT_PREFIX
from untrusted_s3.index.log_check import LogCheck
from untrusted_s3.settings import LogSettings
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys

_logger = structlog.get_logger()


async def scrub_log(
    bucket: Bucket,
    keys: FolderKeys,
    directory: Path,
    settings: LogSettings,
    rest: Callable[[float], Awaitable[object]],
    goes_on: Callable[[], bool],
) -> int | None:
    """Check a log. Return how much is damaged, each of which is logged; None if it ended before because of `goes_on`.

    Temporary files are in `directory`. It reads one segment at a time. `rest` is called after each, with the seconds
    that it took. Raises StoreError, DataError or OSError.
    """
    damaged = 0

    async def rest_or_end(seconds: float) -> None:
        await rest(seconds)
        if not goes_on():
            raise _EndedError

    with tempfile.TemporaryDirectory(dir=directory, prefix=CHECKPOINT_PREFIX, ignore_cleanup_errors=True) as files:
        check = LogCheck(bucket, keys, Path(files), replace(settings, read_ahead=1), rest=rest_or_end)
        try:
            async with contextlib.aclosing(check.run()) as found:
                async for finding in found:
                    if finding.kind.is_damage:
                        damaged += 1
                        _logger.error("scrub found damage in the log", key=finding.path, reason=finding.reason)
        except _EndedError:
            return None
        finally:
            check.close()
    return damaged


class _EndedError(Exception):
    """The folder was closed meanwhile."""
