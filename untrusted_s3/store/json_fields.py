"""A strict reader of JSON objects from the bucket: the type, length and range of every field are checked.

Anybody who can write to the bucket can write these objects. Fields that no reader asks for are ignored; of a field that
occurs twice the last one counts.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any, Final, NoReturn, TypeVar

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import InvalidDeviceID
from untrusted_s3.units import MIB

MAX_SIZE: Final = 4 * MIB

T = TypeVar("T")
_REQUIRED: Any = object()
_HEXADECIMAL = re.compile(r"[0-9a-f]*")


class InvalidFieldError(ValueError):
    """A JSON text or field that is not what the format says."""


def parse_object(body: bytes) -> dict[str, Any]:
    """Parse a JSON object in UTF-8. Raises InvalidFieldError."""
    if len(body) > MAX_SIZE:
        raise InvalidFieldError(f"it has {len(body)} bytes, at most {MAX_SIZE} are allowed")
    try:
        value = json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidFieldError(f"it is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidFieldError("it is not a JSON object")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number of JSON")


class Fields:
    """The fields of a JSON object. Every method raises InvalidFieldError, which names the field.

    A field that is missing has the value `default`, or is an error if no default is given.
    """

    def __init__(self, value: Mapping[str, Any], path: str = "") -> None:
        """`path` is prepended to names in messages."""
        self._value = value
        self._path = path

    def text(self, name: str, *, max_length: int, min_length: int = 0, default: str = _REQUIRED) -> str:
        """Return a text of `min_length` to `max_length` characters. Unpaired surrogates become question marks."""
        value = self._get(name, str, "a text", default)
        if value is default:
            return value
        return self._check_text(name, value, min_length, max_length)

    def texts(self, name: str, *, max_count: int, max_length: int) -> tuple[str, ...]:
        """Return a list of texts; it is empty by default."""
        values = self._list(name, "a list of texts", max_count)
        if not all(isinstance(value, str) for value in values):
            raise self._error(name, "is not a list of texts")
        return tuple(self._check_text(name, value, 0, max_length) for value in values)

    def optional_texts(self, name: str, *, max_count: int, max_length: int) -> tuple[str, ...] | None:
        """Return a list of texts, or None if the field is missing or null."""
        if self._value.get(name) is None:
            return None
        return self.texts(name, max_count=max_count, max_length=max_length)

    def integer(self, name: str, *, minimum: int, maximum: int, default: Any = _REQUIRED) -> int:
        """Return a whole number in a range, or the default."""
        value: int = self._get(name, int, "a whole number", default)
        if not minimum <= value <= maximum:
            raise self._error(name, f"is not between {minimum} and {maximum}")
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        """Return true or false."""
        return self._get(name, bool, "true or false", default)

    def hexadecimal(self, name: str, *, digits: int, default: str = _REQUIRED) -> str:
        """Return a text of exactly `digits` hexadecimal digits in lower case, or the default."""
        value = self._get(name, str, "a text", default)
        if value != default and (len(value) != digits or not _HEXADECIMAL.fullmatch(value)):
            raise self._error(name, f"is not {digits} hexadecimal digits in lower case")
        return value

    def base64(self, name: str, *, min_size: int, max_size: int) -> bytes:
        """Return what a base64 text encodes, of `min_size` to `max_size` bytes."""
        value = self._get(name, str, "a text", _REQUIRED)
        try:
            decoded = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise self._error(name, f"is not base64: {error}") from error
        if not min_size <= len(decoded) <= max_size:
            allowed = min_size if min_size == max_size else f"{min_size} to {max_size}"
            raise self._error(name, f"has {len(decoded)} bytes, and must have {allowed}")
        return decoded

    def device_id(self, name: str) -> DeviceID:
        """Return a device ID."""
        try:
            return DeviceID.parse(self._get(name, str, "a text", _REQUIRED))
        except InvalidDeviceID as error:
            raise self._error(name, str(error)) from error

    def object(self, name: str) -> Fields:
        """Return the fields of an object inside."""
        return Fields(self._get(name, dict, "an object", _REQUIRED), f"{self._path}{name}.")

    def optional_object(self, name: str) -> Fields | None:
        """Return the fields of an object inside, or None if the field is missing or null."""
        return None if self._value.get(name) is None else self.object(name)

    def objects(self, name: str, *, max_count: int) -> list[Fields]:
        """Return the fields of each object of a list; it is empty by default."""
        values = self._list(name, "a list of objects", max_count)
        if not all(isinstance(value, dict) for value in values):
            raise self._error(name, "is not a list of objects")
        return [Fields(value, f"{self._path}{name}.{number}.") for number, value in enumerate(values)]

    def refuse(self, name: str, fault: str) -> NoReturn:
        """Raise InvalidFieldError for a field that contradicts another one."""
        raise self._error(name, fault)

    def _list(self, name: str, kind_name: str, max_count: int) -> list[Any]:
        values: list[Any] = self._get(name, list, kind_name, [])
        if len(values) > max_count:
            raise self._error(name, f"has {len(values)} items, at most {max_count} are allowed")
        return values

    def _get(self, name: str, kind: type[T], kind_name: str, default: T) -> T:
        value = self._value.get(name, default)
        if value is _REQUIRED:
            raise self._error(name, "is missing")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._error(name, f"is not {kind_name}")
        return value

    def _check_text(self, name: str, value: str, min_length: int, max_length: int) -> str:
        if not min_length <= len(value) <= max_length:
            raise self._error(name, f"has {len(value)} characters, and must have {min_length} to {max_length}")
        return value.encode(errors="replace").decode()

    def _error(self, name: str, fault: str) -> InvalidFieldError:
        return InvalidFieldError(f"{self._path}{name} {fault}")
