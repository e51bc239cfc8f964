"""Logs: their form, and secrets that must not be in them."""

from __future__ import annotations

import io
import json
import logging
import string
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.structured_logging import REDACTED, configure_logging, redact_secrets, redact_text

# What makes a request: neither is in any text that the strategies below draw.
ACCESS_KEY, SECRET_KEY = "ACCESSKEY0123", "SECRETKEY4567"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


CLIENT = connect("http://127.0.0.1:9", S3Credentials(ACCESS_KEY, SECRET_KEY))


def presigned(key: str) -> str:
    return CLIENT.client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": key})


def signature(url: str) -> str:
    return URL(url).query["X-Amz-Signature"]


def test_broken_responses_are_not_logged_by_urllib3_too() -> None:
    stream = io.StringIO()
    configure_logging("info", "json", stream)
    logging.getLogger("urllib3.connection").warning("Failed to parse headers", exc_info=ValueError("cut"))
    assert stream.getvalue() == ""


def test_json_lines_where_there_is_no_terminal() -> None:
    stream = io.StringIO()
    configure_logging("info", "auto", stream)
    structlog.get_logger().info("hello", folder="a", size=3)
    structlog.get_logger().debug("too detailed")
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    time = datetime.fromisoformat(event.pop("timestamp"))
    assert time.utcoffset() == timedelta(0)
    assert event == {"event": "hello", "level": "info", "folder": "a", "size": 3}


@pytest.mark.parametrize(
    ("variables", "colored"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_colors_only_where_they_are_wanted(
    variables: dict[str, str], colored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in ({"TERM": "xterm"} | variables).items():
        monkeypatch.setenv(name, value)
    stream = Terminal()
    configure_logging("info", "auto", stream)
    structlog.get_logger().info("hello", folder="a")
    assert ("\x1b" in stream.getvalue()) is colored and "hello" in stream.getvalue()


def test_readable_on_a_terminal_and_both_can_be_forced() -> None:
    for output_format, stream, is_json in (
        ("auto", Terminal(), False),
        ("json", Terminal(), True),
        ("console", io.StringIO(), False),
    ):
        configure_logging("info", output_format, stream)  # type: ignore[arg-type]
        structlog.get_logger().info("hello")
        assert "hello" in stream.getvalue()
        assert stream.getvalue().startswith("{") == is_json


@pytest.mark.parametrize("output_format", ["console", "json"])
def test_libraries_are_heard_from_warning_up(output_format: Any) -> None:
    stream = io.StringIO()
    configure_logging("debug", output_format, stream)
    logging.getLogger("botocore").info("chatter")
    logging.getLogger("aiohttp.client").warning("a fault at %s", presigned("k"))
    (line,) = stream.getvalue().splitlines()
    assert "a fault" in line and "aiohttp.client" in line
    assert "Signature" not in line


@pytest.mark.parametrize("output_format", ["console", "json"])
@given(
    key=st.text(min_size=1, max_size=40).filter(lambda key: key.isprintable()),
    before=st.text(string.printable, max_size=20),
    after=st.sampled_from(["", " ", "\n", '"', "'", ">", ", then gave up", "\x1b[0m"]),
)
def test_no_presigned_url_gets_through(output_format: Any, key: str, before: str, after: str) -> None:
    stream = Terminal()
    configure_logging("info", output_format, stream)
    url = presigned(key)
    text = before + url + after
    logger = structlog.get_logger()
    try:
        raise OSError(f"cannot reach {url}")
    except OSError:
        logger.info(text, url=url, object=URL(url), nested={"list": [url, (url,)]}, exc_info=True)
    output = stream.getvalue()
    assert signature(url) not in output
    assert ACCESS_KEY not in output
    assert "127.0.0.1:9/bucket/" in output  # what is harmless stays


@given(url_end=st.text(string.ascii_letters + string.digits + "&=%._-", max_size=30), value=st.uuids())
def test_signing_parameters_go_wherever_they_stand(url_end: str, value: Any) -> None:
    for name in ("X-Amz-Signature", "x-amz-credential", "X-Amz-Security-Token", "Signature", "AWSAccessKeyId"):
        for text in (f"/b/k?{url_end}&{name}={value}", f"/b/k?{name}={value}&{url_end}", f"{name}={value}, {url_end}"):
            assert str(value) not in redact_text(text)


@given(user=st.uuids(), password=st.uuids(), at=st.sampled_from(["", "@", "%40", ":"]))
def test_the_user_and_password_of_a_url_go(user: Any, password: Any, at: str) -> None:
    for end in ("/path", "/", "", "?a=b", ": refused", " refused", "'", "/a@b"):
        shown = redact_text(f"cannot connect to proxy http://{user}:{at}{password}@proxy.example:3128{end}")
        assert shown == f"cannot connect to proxy http://{REDACTED}@proxy.example:3128{end}"


def test_a_path_with_an_at_sign_stays() -> None:
    for text in ("https://s3.example/a@b", "mail to a@b", "https://s3.example?a@b", "https://s3.example, a@b"):
        assert redact_text(text) == text


@given(st.text().filter(lambda text: "=" not in text and "://" not in text))
def test_other_texts_stay(text: str) -> None:
    assert redact_text(text) == text
    assert redact_text(f"GET /a?prefix=x&{text}") == f"GET /a?prefix=x&{text}"


@given(
    path=st.lists(st.text(string.ascii_lowercase, min_size=1, max_size=5), max_size=4),
    name=st.sampled_from(
        ["password", "PASSWORD", "encryption_password", "passwords", "secret", "secret_key", "secretKey", "token",
         "password_token", "session-token", "Authorization"]
    ),
    in_list=st.booleans(),
)  # fmt: skip
def test_no_secret_gets_through_at_any_depth(path: list[str], name: str, in_list: bool) -> None:
    value: Any = {name: "correct horse", "kept": "staple"}
    for step in path:
        value = {step: [value] if in_list else value}
    output = json.dumps(redact_secrets(None, "info", {"event": "e", **value}))
    assert "correct horse" not in output
    assert REDACTED in output
    assert "staple" in output or any(step in ("secret", "token") for step in path)


def test_peers_cannot_forge_lines_or_control_the_terminal() -> None:
    stream = io.StringIO()
    configure_logging("info", "console", stream)
    structlog.get_logger().info("unknown device", name="a\nb\x1b[2Jc\u202e")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    assert "a\\nb\\x1b[2Jc\\u202e" in stream.getvalue()


@pytest.mark.parametrize("output_format", ["json", "console"])
def test_peers_cannot_fill_the_log_with_one_line(output_format: Any) -> None:
    stream = io.StringIO()
    configure_logging("info", output_format, stream)
    structlog.get_logger().warning("folder refused", label="x" * 1_000_000, texts=["y" * 1_000_000], whole="z" * 1000)
    line = stream.getvalue()
    assert len(line) < 5000
    assert "x" * 1000 in line and "(1,000,000 characters)" in line and "z" * 1000 in line
