"""Which stored block a request is for."""

from __future__ import annotations

import dataclasses

import pytest

from tests.file_infos import deleted, directory, encrypted_name, entry, file
from untrusted_s3.bep.events import RequestReceived
from untrusted_s3.index.block_table import BlockTable, part_end
from untrusted_s3.index.entry import Entry, StoredObject
from untrusted_s3.sync.requested_objects import matches

FILE = file("a", sizes=(2000, 1500, 1064))
TOKEN = FILE.message.blocks[1].hash
RIGHT = RequestReceived(1, "folder", FILE.name, 2000, 1500, TOKEN, False)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"hash": b""},
        {"offset": 0, "size": 2000, "hash": b""},
        {"offset": 3500, "size": 1064, "hash": FILE.message.blocks[2].hash},
    ],
    ids=str,
)
def test_a_request_for_a_stored_block(change: dict[str, object]) -> None:
    assert matches(dataclasses.replace(RIGHT, **change), entry(FILE))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 1999},
        {"offset": 2001},
        {"offset": -1},
        {"offset": -2000},
        {"offset": 4564},
        {"offset": 2**62},
        {"size": 1499},
        {"size": 1501},
        {"size": 0},
        {"size": 2564, "hash": b""},
        {"hash": FILE.message.blocks[0].hash},
        {"hash": TOKEN[:-1]},
        {"name": encrypted_name("b")},
    ],
    ids=str,
)
def test_a_request_for_anything_else(change: dict[str, object]) -> None:
    assert not matches(dataclasses.replace(RIGHT, **change), entry(FILE))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "current", [entry(directory("a")), entry(deleted("a")), Entry(FILE, None)], ids=["directory", "deleted", "no data"]
)
def test_a_request_where_there_is_no_data(current: Entry) -> None:
    assert not matches(RIGHT, current)
    assert not matches(dataclasses.replace(RIGHT, offset=0, size=0, hash=b""), current)


def test_where_the_blocks_of_a_part_end() -> None:
    parts = StoredObject("name", 5000, 2000, (1, 2, 3))
    ends = {offset: part_end(parts, 4564, offset) for offset in (0, 1999, 2000, 3999, 4000, 4500)}
    assert ends == {0: 2000, 1999: 2000, 2000: 4000, 3999: 4000, 4000: 4564, 4500: 4564}
    whole = StoredObject("name", 5000, 0, (1,))
    assert {part_end(whole, 4564, offset) for offset in (0, 4500)} == {4564}
    assert BlockTable(Entry(FILE, parts)).part_end(2000) == 4000
