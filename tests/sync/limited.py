"""A puller with limits of what the folder may have."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import pytest

from tests.simulated import SimulatedBucket
from tests.sync.fakes import Pulling, running
from tests.virtual_time import settled
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.sync.puller import Puller
from untrusted_s3.sync.quota import FolderQuota, Limit, LimitKind


class Limited(Pulling):
    """A puller with a quota of the folder, of devices and of the store, in bytes."""

    quota: FolderQuota
    size: int | None = None
    max_store: int | None = None
    sizes: Mapping[DeviceID, int] = {}

    def limits(self, device_id: DeviceID) -> list[Limit]:
        """Return the limits that there are, as a gateway with this folder alone does."""
        used = self.state.totals.bytes + self.quota.in_work
        found = [Limit(LimitKind.FOLDER, self.size, used)] if self.size is not None else []
        if (size := self.sizes.get(device_id)) is not None:
            of_device = self.state.bytes_from(device_id) + self.quota.in_work_of(device_id)
            found.append(Limit(LimitKind.DEVICE, size, of_device, device_id))
        return found + ([Limit(LimitKind.STORE, self.max_store, used)] if self.max_store is not None else [])


@contextlib.asynccontextmanager
async def limited(directory: Path) -> AsyncIterator[Limited]:
    """Let such a puller work until the block ends."""
    async with running(Limited(directory, SimulatedBucket())) as pulling:
        assert isinstance(pulling, Limited)
        pulling.quota = pulling.puller.quota
        pulling.quota.limits_of = pulling.limits
        yield pulling


async def looked(folder: Limited) -> None:
    """Let the gateway look at the quotas, as it does now and then."""
    folder.puller.look_at_quota()
    await settled()


def noted_rescans(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list that gets the times when all pending entries are looked at again."""
    times: list[float] = []
    rescan = Puller.rescan

    def noted(puller: Puller) -> None:
        times.append(asyncio.get_running_loop().time())
        rescan(puller)

    monkeypatch.setattr(Puller, "rescan", noted)
    return times
