"""The strict reader of JSON: every type, length and range, and the name of the field that is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.store.json_fields import MAX_SIZE, Fields, InvalidFieldError, parse_object


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"5",
        b"null",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"[" * 100_000,
        b" " * MAX_SIZE + b"{}",
    ],
)
def test_what_is_no_object(body: bytes) -> None:
    with pytest.raises(InvalidFieldError):
        parse_object(body)


@given(st.binary())
def test_any_bytes_are_an_object_or_an_error(body: bytes) -> None:
    try:
        assert isinstance(parse_object(body), dict)
    except InvalidFieldError:
        pass


Read = Callable[[Fields], object]


def text(fields: Fields) -> object:
    return fields.text("x", min_length=1, max_length=3)


def texts(fields: Fields) -> object:
    return fields.texts("x", max_count=2, max_length=3)


def integer(fields: Fields) -> object:
    return fields.integer("x", minimum=-1, maximum=10)


def boolean(fields: Fields) -> object:
    return fields.boolean("x", default=False)


def hexadecimal(fields: Fields) -> object:
    return fields.hexadecimal("x", digits=4)


def decoded(fields: Fields) -> object:
    return fields.base64("x", min_size=1, max_size=2)


@pytest.mark.parametrize(
    ("read", "value", "expected"),
    [
        (text, "abc", "abc"),
        (text, "\ud800", "?"),
        (texts, [], ()),
        (texts, ["abc", ""], ("abc", "")),
        (integer, -1, -1),
        (integer, 10, 10),
        (boolean, True, True),
        (hexadecimal, "09af", "09af"),
        (decoded, "YQ==", b"a"),
    ],
)
def test_values(read: Read, value: Any, expected: object) -> None:
    assert read(Fields({"x": value})) == expected


@pytest.mark.parametrize(
    ("read", "values"),
    [
        (text, ["", "abcd", 5, None, True, ["a"], {}]),
        (texts, [["a", "b", "c"], ["abcd"], [5], [None], "ab", {"a": "b"}, None]),
        (integer, [-2, 11, 1.0, "1", True, None, [], 10**400]),
        (boolean, [0, 1, "true", None, []]),
        (hexadecimal, ["09AF", "09a", "09aff", "09ag", 1234, None, "\u0661" * 4]),
        (decoded, ["", "YWFh", "YQ", "%", "Y Q==", 5, None, "\u00e4"]),
        (lambda fields: fields.device_id("x"), ["", "typo", 5, None]),
        (lambda fields: fields.object("x").text("y", max_length=3), [{}, {"y": 5}, [], "y", None]),
    ],
)
def test_what_is_wrong_is_named(read: Read, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(InvalidFieldError, match=r"^x"):
            read(Fields({"x": value}))


def test_fields_that_are_missing() -> None:
    nothing = Fields({})
    for read in (text, integer, hexadecimal, decoded):
        with pytest.raises(InvalidFieldError, match="x is missing"):
            read(nothing)
    assert nothing.text("x", max_length=1, default="default") == "default"
    assert nothing.hexadecimal("x", digits=4, default="") == ""
    assert texts(nothing) == () and boolean(nothing) is False


def test_inner_fields_are_named_by_their_path() -> None:
    inner = Fields({"x": {"y": {"z": 5}}}).object("x").object("y")
    assert inner.integer("z", minimum=0, maximum=9) == 5
    with pytest.raises(InvalidFieldError, match=r"^x\.y\.z "):
        inner.text("z", max_length=9)


def test_a_device_id() -> None:
    device_id = DeviceID(bytes(range(32)))
    assert Fields({"x": str(device_id)}).device_id("x") == device_id
