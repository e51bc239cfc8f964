"""Bytes that count how often a loop looks at one of them."""

from __future__ import annotations

from typing import Any


class Counting(bytes):
    """Bytes with `steps`: how many single bytes Python code has read."""

    steps = 0

    def __getitem__(self, key: Any) -> Any:
        self.steps += isinstance(key, int)
        return super().__getitem__(key)
