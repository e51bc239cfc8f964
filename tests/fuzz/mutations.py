"""Damage to bytes, decided by a seed: fast enough for millions of inputs, and the same at each run."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Final, NamedTuple

# Tried in place of numbers of any width and encoding.
_NUMBERS: Final = [0, 1, 2, 127, 128, 255, 256, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1]
_TOKENS: Final = [
    *(b"%d" % number for number in (*_NUMBERS, -1, -(2**63), 10**30)),
    *(b"\0", b"\xff", b"..", b"/", b"\n", b"\xc3\x28", b"\xed\xa0\x80", b"%", b"e999"),
    *(number.to_bytes(8, "big")[-size:] for number in _NUMBERS for size in (1, 2, 4, 8)),
]
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH: Final = 4
_SMALL: Final = [bytes([number]) for number in range(128)]


class Mutator:
    """A source of damaged inputs. `tokens` are pieces of bytes that mean something to the reader."""

    def __init__(self, seed: int, tokens: Sequence[bytes] = ()) -> None:
        self._next = random.Random(seed).random
        self._tokens = [*tokens, *_TOKENS]

    def below(self, limit: int) -> int:
        """Return a number from 0 to `limit` - 1, or 0 if `limit` is 0."""
        return int(self._next() * limit)

    def token(self) -> bytes:
        """Return a piece of bytes that means something to some reader."""
        return self._tokens[self.below(len(self._tokens))]

    def damaged(self, data: bytes, others: Sequence[bytes] = ()) -> bytes:
        """Return the data with one to four changes; some take pieces of `others`."""
        result = bytearray(data)
        for _ in range(1 + self.below(4)):
            self._change(result, others)
        return bytes(result)

    def _change(self, data: bytearray, others: Sequence[bytes]) -> None:
        size = len(data)
        at = self.below(size + 1)
        end = min(size, at + 1 + (self.below(4) if self._next() < 0.7 else self.below(64)))
        match self.below(9):
            case 0 if at < size:
                data[at] ^= 1 << self.below(8)
            case 1 if at < size:
                data[at] = self.below(256)
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = data[at:end]
            case 4:
                data[at:at] = self.token()
            case 5:
                token = self.token()
                data[at : at + len(token)] = token
            case 6 if others:
                other = others[self.below(len(others))]
                start = self.below(len(other) + 1)
                data[at:end] = other[start : start + 1 + self.below(40)]
            case 7:
                del data[at:]
            case _:
                start = self.below(size + 1)
                data[at:at] = data[start : start + 1 + self.below(16)]

    def protobuf(self, data: bytes, others: Sequence[bytes] = (), depth: int = 0) -> bytes:
        """Return a message of which one or two fields, at any depth, are changed, lost, doubled or moved."""
        found = read_fields(data)
        if not found:
            return self.damaged(data, others)
        fields = [field.encoded for field in found]
        for _ in range(1 + self.below(2)):
            if not fields:
                break
            at = self.below(len(fields))
            match self.below(8):
                case 0:
                    del fields[at]
                case 1:
                    fields.insert(self.below(len(fields) + 1), fields[at])
                case 2:
                    ((_, wire, value, _),) = read_fields(fields[at])
                    fields[at] = _field(1 + self.below(20), wire, value)
                case _:
                    ((tag, wire, value, _),) = read_fields(fields[at])
                    fields[at] = _field(tag, wire, self._value(wire, value, others, depth))
        return b"".join(fields)

    def _value(self, wire: int, value: int | bytes, others: Sequence[bytes], depth: int) -> int | bytes:
        if isinstance(value, int):
            number = _NUMBERS[self.below(len(_NUMBERS))]
            number = (value + 1 - 2 * self.below(2) if self._next() < 0.3 else number) % 2**64
            return number % 2**32 if wire == _FIXED32 else number
        if depth < _MAX_DEPTH and self._next() < 0.7 and read_fields(value):
            return self.protobuf(value, others, depth + 1)
        return self.damaged(value, others)


class Field(NamedTuple):
    """A field of a protobuf message, and its bytes."""

    tag: int
    wire: int
    value: int | bytes
    encoded: bytes


# Most messages that are damaged, and most of their fields, are damaged again and again.
@functools.lru_cache(20_000)
def read_fields(data: bytes) -> tuple[Field, ...]:
    """Return the fields of a protobuf message; nothing if the bytes are not a message."""
    fields: list[Field] = []
    at = 0
    try:
        while at < len(data):
            began = at
            key, at = _read_varint(data, at)
            tag, wire = key >> 3, key & 7
            value: int | bytes
            if wire == _VARINT:
                value, at = _read_varint(data, at)
            elif wire == _BYTES:
                size, at = _read_varint(data, at)
                value = data[at : at + size]
                at += size
            elif wire in (_FIXED32, _FIXED64):
                size = 4 if wire == _FIXED32 else 8
                value = int.from_bytes(data[at : at + size], "little")
                at += size
            else:
                return ()
            if tag == 0:
                return ()
            fields.append(Field(tag, wire, value, data[began:at]))
    except IndexError:
        return ()
    return tuple(fields) if at == len(data) else ()


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value % 2**64, at
        shift += 7
        if shift > 63:
            raise IndexError


def _field(tag: int, wire: int, value: int | bytes) -> bytes:
    key = _varint(tag << 3 | wire)
    if isinstance(value, bytes):
        return key + _varint(len(value)) + value
    if wire == _VARINT:
        return key + _varint(value)
    return key + value.to_bytes(4 if wire == _FIXED32 else 8, "little")


def _varint(value: int) -> bytes:
    if value < 0x80:
        return _SMALL[value]
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)
