"""Structured logs on standard error: readable on a terminal, JSON lines elsewhere.

No secret gets into a log: values under names such as `password` or `token` are replaced, and so are the signing
parameters of presigned URLs, and the user and password of a URL, anywhere in a line.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["auto", "console", "json"]

REDACTED: Final = "[redacted]"
# Longer texts are cut: peers choose names and labels.
MAX_TEXT: Final = 1000  # characters

_WHOLE: Final = ("exception", "stack")  # texts of several lines
_SECRET_WORDS: Final = {"password", "passphrase", "secret", "token", "credential", "signature", "authorization"}
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")

# The characters of a query in a URL. White space, quotes and control characters (terminal colours) end it.
_QUERY = r"[^\s\"'<>\\\x00-\x1f]*"
_SIGNING = r"(?:X-Amz-(?:Signature|Credential|Security-Token)|Signature|Credential|AWSAccessKeyId)"
_SIGNED_QUERY = re.compile(rf"\?(?=(?:{_QUERY}&)?{_SIGNING}=){_QUERY}", re.IGNORECASE)
_SIGNED_PARAMETER = re.compile(rf"\b({_SIGNING})=[^\s\"'<>\\&,\x00-\x1f]+", re.IGNORECASE)
# The last @ before the path, the query or the end: a password may contain an @ that nobody escaped.
_USER_INFO = re.compile(r"(?<=://)[^\s\"'<>/?#\x00-\x1f]*@")


def redact_text(text: str) -> str:
    """Return the text without secrets of URLs.

    These are the query strings of presigned URLs, signing parameters that stand alone, and users and passwords, as the
    URLs of proxies have them.
    """
    text = _SIGNED_PARAMETER.sub(rf"\1={REDACTED}", _SIGNED_QUERY.sub(f"?{REDACTED}", text))
    return _USER_INFO.sub(f"{REDACTED}@", text)


def redact_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Replace the values of keys with words such as `password`, at any depth. A processor of structlog."""
    return {key: _redact_value(key, value) for key, value in event.items()}


def _redact_value(key: object, value: Any) -> Any:
    if isinstance(key, str) and any(word.lower().removesuffix("s") in _SECRET_WORDS for word in _WORDS.findall(key)):
        return REDACTED
    if isinstance(value, Mapping):
        return {name: _redact_value(name, inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(None, inner) for inner in value]
    return value


def _cut_texts(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    return {key: value if key in _WHOLE else _cut(value) for key, value in event.items()}


def _cut(value: Any) -> Any:
    if isinstance(value, str) and len(value) > MAX_TEXT:
        return f"{value[:MAX_TEXT]}… ({len(value):,} characters)"
    if isinstance(value, list | tuple):
        return [_cut(inner) for inner in value]
    return value


def _escape_control_characters(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Escape control characters: peers choose names, and must not control the terminal or forge lines."""
    return {
        key: printable(value) if isinstance(value, str) and key not in _WHOLE else value for key, value in event.items()
    }


def printable(text: str) -> str:
    """Return the text with unprintable characters as Python escape sequences."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _redact_line(logger: WrappedLogger, method: str, line: Any) -> Any:
    return redact_text(line)


def _shows_colors(stream: TextIO) -> bool:
    """Return whether lines may be coloured: on a terminal that can, unless NO_COLOR (no-color.org) is set."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def configure_logging(level: str = "info", output_format: Format = "auto", stream: TextIO | None = None) -> None:
    """Send structlog and the standard library's logging to `stream`, by default standard error.

    `level` is debug, info, warning or error. The format `auto` is console if the stream is a terminal, else json. Of
    libraries that use the standard library's logging, only warnings and errors are logged.
    """
    stream = stream or sys.stderr
    number = logging.getLevelNamesMapping()[level.upper()]
    console = output_format == "console" or (output_format == "auto" and stream.isatty())
    common: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact_secrets,
        _cut_texts,
    ]
    render: list[Processor]
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=_shows_colors(stream), exception_formatter=structlog.dev.plain_traceback
        )
        render = [_escape_control_characters, renderer, _redact_line]
    else:
        render = [structlog.processors.JSONRenderer(default=str), _redact_line]
    structlog.configure(
        processors=[*common, *render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *common],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    logging.basicConfig(level=max(number, logging.WARNING), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # It logs interrupted responses as warnings with a traceback; the caller gets an error for them too.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
