"""Structured logs on standard error: readable on a terminal, JSON lines elsewhere.

No secret gets into a log: values under names such as `password` or `token` are left out, and so is what makes a
presigned URL valid, wherever in a line it stands.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["auto", "console", "json"]

REDACTED: Final = "[redacted]"

_SECRET_WORDS: Final = {"password", "passphrase", "secret", "token", "credential", "signature", "authorization"}
_WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")

# The character set of a query as URLs carry it. What ends it is white space, a quote, or a control character that
# colours the terminal.
_QUERY = r"[^\s\"'<>\\\x00-\x1f]*"
_SIGNING = r"(?:X-Amz-(?:Signature|Credential|Security-Token)|Signature|Credential|AWSAccessKeyId)"
_SIGNED_QUERY = re.compile(rf"\?(?=(?:{_QUERY}&)?{_SIGNING}=){_QUERY}", re.IGNORECASE)
_SIGNED_PARAMETER = re.compile(rf"\b({_SIGNING})=[^\s\"'<>\\&,\x00-\x1f]+", re.IGNORECASE)


def redact_text(text: str) -> str:
    """The text without the query strings of presigned URLs and without signing parameters that stand alone."""
    return _SIGNED_PARAMETER.sub(rf"\1={REDACTED}", _SIGNED_QUERY.sub(f"?{REDACTED}", text))


def redact_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """A processor that replaces the value of each key that speaks of a secret, at any depth."""
    return {key: _redact_value(key, value) for key, value in event.items()}


def _redact_value(key: object, value: Any) -> Any:
    if isinstance(key, str) and any(word.lower().removesuffix("s") in _SECRET_WORDS for word in _WORDS.findall(key)):
        return REDACTED
    if isinstance(value, Mapping):
        return {name: _redact_value(name, inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redact_value(None, inner) for inner in value]
    return value


def _escape_control_characters(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Peers choose names that we log: these must not reach the terminal's control sequences, nor begin a new line."""
    return {
        key: printable(value) if isinstance(value, str) and key not in ("exception", "stack") else value
        for key, value in event.items()
    }


def printable(text: str) -> str:
    """The text with each character that does not print as an escape sequence of Python's."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _redact_line(logger: WrappedLogger, method: str, line: Any) -> Any:
    return redact_text(line)


def configure_logging(level: str = "info", output_format: Format = "auto", stream: TextIO | None = None) -> None:
    """Sends structlog and the standard library's logging to `stream`, standard error by default.

    `level` is debug, info, warning or error. The format `auto` is console where the stream is a terminal, else json.
    Libraries that log by the standard library are heard from WARNING up.
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
    ]
    render: list[Processor]
    if console:
        renderer = structlog.dev.ConsoleRenderer(
            colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
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
    # It warns, with a traceback, of answers that break off; whoever asked hears of them as well.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
