"""Globs: `*`, `?` and `[...]` stand for characters of one name, and `**` for any characters, slashes included."""

from __future__ import annotations

import re

from untrusted_s3.errors import UsageError

_PIECES = re.compile(r"(\*\*/|\*\*|\*|\?|\[!?\]?[^\]]*\])")
_STARS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
_SPECIAL = re.compile(r"[\\\[\]^&~|]")  # in a set of characters


def is_glob(text: str) -> bool:
    """Return whether a text has any of the special characters of globs."""
    return len(_PIECES.split(text)) > 1


def compile_glob(glob: str) -> re.Pattern[str]:
    """Return the regular expression of a glob, for `fullmatch`. Raises UsageError."""
    try:
        return re.compile("".join(map(_expression, _PIECES.split(glob))), re.DOTALL)
    except re.error as error:
        raise UsageError(f"{glob!r} is no glob: {error}") from error


def _expression(piece: str) -> str:
    if piece in _STARS:
        return _STARS[piece]
    if len(piece) > 2 and piece[0] == "[" and piece[-1] == "]":
        negated = piece[1] == "!"
        characters = _SPECIAL.sub(r"\\\g<0>", piece[1 + negated : -1])
        return f"(?!/)[{'^' * negated}{characters}]"
    return re.escape(piece)
