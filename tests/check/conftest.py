"""A store that is filled once, and a copy of it for each test."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.check.damaged import FilledStore, filled_store
from tests.simulated import fast_directory, inline_threads


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> FilledStore:
    return asyncio.run(filled_store(tmp_path_factory.mktemp("filling")))


@pytest.fixture
def directory() -> Iterator[Path]:
    with fast_directory() as path, inline_threads():
        yield path


@pytest.fixture
async def filled(sound: FilledStore, directory: Path) -> FilledStore:
    return await sound.copy(directory)
