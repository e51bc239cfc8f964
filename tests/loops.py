"""The event loops that async tests run on: uvloop, which the gateway uses, and asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest
import uvloop

LOOPS: Mapping[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.new_event_loop,
}
# For an async test that takes long. Give the reason at the test, and list it in docs/testing.md.
one_loop = pytest.mark.asyncio(loop_factories=["uvloop"])
# The type of the fixture `run_async`.
RunAsync = Callable[[Coroutine[Any, Any, Any]], Any]
