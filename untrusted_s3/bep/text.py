"""Text that a peer chose and that ends up in logs, statuses and on terminals."""

from __future__ import annotations

import unicodedata

_LONGEST = 200
_ZERO_WIDTH_JOINER = "\N{ZERO WIDTH JOINER}"  # emoji are made with it


def printable(text: str) -> str:
    """The text with a question mark for whatever a terminal might act upon, cut to 200 characters."""
    return "".join(char if _is_harmless(char) else "?" for char in text[:_LONGEST])


def _is_harmless(char: str) -> bool:
    return char.isprintable() or char == _ZERO_WIDTH_JOINER or unicodedata.category(char) == "Zs"
