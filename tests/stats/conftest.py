"""A store that is filled once, and a copy of it for each test."""

from __future__ import annotations

from tests.check.conftest import directory, filled, sound

__all__ = ["directory", "filled", "sound"]
