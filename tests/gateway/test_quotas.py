"""The quotas of a store, as a gateway reads, applies and shows them."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from tests.file_infos import device
from tests.simulated import Fault, SimulatedBucket
from untrusted_s3.errors import StoreUnreachable
from untrusted_s3.gateway.quotas import QuotaKeeper
from untrusted_s3.store import layout
from untrusted_s3.store.quotas import Quotas, write_quotas
from untrusted_s3.sync.folder import Folder
from untrusted_s3.sync.quota import Limit, LimitKind

A = device(1)


def a_folder(folder_id: str, used: int = 0, **fields: Any) -> Folder:
    record = SimpleNamespace(folder_id=folder_id)
    return cast(Folder, SimpleNamespace(**{"record": record, "used_bytes": used, "limits_reached": [], **fields}))


async def test_the_quota_of_a_folder() -> None:
    bucket = SimulatedBucket()
    one, other = a_folder("one", 7), a_folder("other", 5)
    keeper = QuotaKeeper(bucket, lambda: [one, other])
    await keeper.load()
    assert keeper.limits(one, A) == []
    await write_quotas(bucket, Quotas({"one": 10}))
    await keeper.load()
    assert keeper.limits(one, A) == [Limit(LimitKind.FOLDER, 10, 7)]
    assert keeper.limits(other, A) == []


async def test_a_damaged_record_leaves_the_quotas_as_they_were_and_is_said() -> None:
    bucket = SimulatedBucket()
    keeper = QuotaKeeper(bucket, list)
    await write_quotas(bucket, Quotas({"one": 10}))
    await keeper.load()
    bucket.store.put(layout.QUOTAS, json.dumps({"folders": [{"id": "one", "bytes": -1}]}).encode())
    with capture_logs() as lines:
        await keeper.load()
        await keeper.load()
    assert keeper.quotas == Quotas({"one": 10})
    assert [line["event"] for line in lines] == ["record of quotas not readable"]
    assert list(keeper.problems()) == ["quotas.json: not readable"]
    await write_quotas(bucket, Quotas())
    await keeper.load()
    assert keeper.quotas == Quotas() and keeper.problems() == {}


async def test_a_store_that_does_not_answer_leaves_them_too() -> None:
    bucket = SimulatedBucket()
    keeper = QuotaKeeper(bucket, list)
    await write_quotas(bucket, Quotas({"one": 10}))
    await keeper.load()
    bucket.fault = lambda call: Fault.UNREACHABLE
    with pytest.raises(StoreUnreachable):
        await keeper.load()
    assert keeper.quotas == Quotas({"one": 10})


def test_what_waits_is_a_problem() -> None:
    reached = [Limit(LimitKind.FOLDER, 2**30, 2**30)]
    keeper = QuotaKeeper(SimulatedBucket(), lambda: [a_folder("one", limits_reached=reached), a_folder("other")])
    assert keeper.problems() == {"folder one: files wait for room": "the quota of the folder, 1.0 GiB, is reached"}
