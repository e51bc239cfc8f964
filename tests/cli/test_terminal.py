"""The live line."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest

from untrusted_s3.cli.terminal import LiveLine


class Terminal:
    """What a terminal of one line's memory shows: lines that scrolled by, and the last one."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.lines = [""]

    def write(self, text: str) -> None:
        for piece in re.findall(r"\r\x1b\[2K|\n|[^\r\n\x1b]+", text):
            if piece == "\n":
                self.lines.append("")
            elif piece.startswith("\r"):
                self.lines[-1] = ""
            else:
                self.lines[-1] += piece

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    def fileno(self) -> int:
        raise OSError("no file")


def test_the_live_line_stays_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    terminal: Any = Terminal()
    live_line = LiveLine(terminal)
    live_line.write("before\n")
    live_line.show("one")
    live_line.show("two")
    live_line.write("log\n")
    live_line.show("x" * 200)
    assert terminal.lines == ["before", "log", "x" * 79]
    live_line.show("")
    live_line.write("after\n")
    assert terminal.lines == ["before", "log", "after", ""]


def test_a_dumb_terminal_gets_whole_lines_and_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    live_line = LiveLine(stream)
    assert not live_line.rewrites
    live_line.show("a line that changes")
    live_line.write("log\n")
    live_line.ask("Accept? ")
    live_line.leave()
    live_line.show("")
    assert stream.getvalue() == "log\nAccept? "
