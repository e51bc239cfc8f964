"""Terminals: a live last line with the log scrolling above it, questions, QR codes."""

from __future__ import annotations

import asyncio
import io
import os
import sys
import termios
from typing import TextIO

import segno

_ERASE_LINE = "\r\x1b[2K"
_MAX_ANSWER = 1024
_DEFAULT_WIDTH = 80


def qr_code(text: str, encoding: str) -> str:
    """Return the text as a QR code for a terminal; empty if the terminal's encoding has no block characters."""
    drawn = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(out=drawn, border=2, compact=True)
    try:
        drawn.getvalue().encode(encoding)
    except UnicodeEncodeError:
        return ""
    return drawn.getvalue()


class LiveLine:
    """A terminal's last line, rewritten in place. Whole lines that are written to this stream appear above it.

    Attributes:
        rewrites: Whether the stream is a terminal that can rewrite a line. Without, no live line is shown.
    """

    def __init__(self, terminal: TextIO) -> None:
        self.rewrites = terminal.isatty() and os.environ.get("TERM") != "dumb"
        self._terminal = terminal
        self._text = ""

    def write(self, text: str) -> int:
        """Write whole lines above the live line."""
        self._terminal.write((_ERASE_LINE if self._text else "") + text + self._text)
        return len(text)

    def flush(self) -> None:
        self._terminal.flush()

    def isatty(self) -> bool:
        return self._terminal.isatty()

    @property
    def encoding(self) -> str:
        return self._terminal.encoding

    def show(self, text: str) -> None:
        """Replace the live line; an empty text removes it."""
        if not self.rewrites:
            return
        try:
            width = os.get_terminal_size(self._terminal.fileno()).columns or _DEFAULT_WIDTH
        except OSError:
            width = _DEFAULT_WIDTH
        text = text[: width - 1]
        if text != self._text:
            self._terminal.write(_ERASE_LINE + text)
            self._terminal.flush()
            self._text = text

    def ask(self, question: str) -> None:
        """Show a question, whose answer the operator types behind it; `leave` follows."""
        if self.rewrites:
            self.show(question)
        else:
            self._terminal.write(question)
            self._terminal.flush()

    def leave(self) -> None:
        """Keep the live line on the screen, after the terminal has moved on to the next line."""
        self._text = ""


def can_ask() -> bool:
    """Return whether somebody can answer on standard input: it is a terminal, and we are in its foreground."""
    try:
        return sys.stdin.isatty() and os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False


def forget_typed() -> None:
    """Discard what was typed on standard input before a question was shown."""
    termios.tcflush(sys.stdin.fileno(), termios.TCIFLUSH)


async def read_answer() -> str | None:
    """Return the next line that is typed on standard input, or None at its end."""
    loop = asyncio.get_running_loop()
    descriptor = sys.stdin.fileno()
    ready = asyncio.Event()
    loop.add_reader(descriptor, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(descriptor)
    # A terminal delivers one whole line per read.
    answer = os.read(descriptor, _MAX_ANSWER)
    return answer.decode(errors="replace").strip() if answer else None
