"""Device IDs, the names of Syncthing devices.

A device ID is the SHA-256 of the device's certificate in DER. It is shown as base32 with four check characters, in
eight chunks of seven characters (Syncthing v2.1.3 lib/protocol/deviceid.go and luhn.go).
"""

from __future__ import annotations

import base64
import functools
import hashlib
import string
from dataclasses import dataclass

from untrusted_s3.errors import InvalidDeviceID

ALPHABET = string.ascii_uppercase + "234567"

GROUPS = 4
GROUP_LENGTH = 13  # without the check character
CHUNK_LENGTH = 7
_SIZE = 32  # of a SHA-256

# Syncthing accepts lower case, digits that look like letters, dashes and white space.
_VARIANTS = str.maketrans(string.ascii_lowercase + "018", string.ascii_uppercase + "OIB", "-" + string.whitespace)


@dataclass(frozen=True, order=True, slots=True, repr=False)
class DeviceID:
    """A device ID: 32 bytes, ordered as these bytes."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != _SIZE:
            raise ValueError(f"a device ID has {_SIZE} bytes, not {len(self.raw)}")

    def __hash__(self) -> int:
        return hash(self.raw)  # the hash of a tuple, as dataclasses have it, takes longer, and there are many lookups

    @classmethod
    def from_certificate(cls, der: bytes) -> DeviceID:
        """Return the ID of the device that has this certificate (DER)."""
        return cls(hashlib.sha256(der).digest())

    @classmethod
    def parse(cls, text: str) -> DeviceID:
        """Parse a device ID: 56 characters, or 52 in the old form without check characters.

        Raises InvalidDeviceID, whose message names the wrong part.
        """
        characters = text.translate(_VARIANTS)
        for character in characters:
            if character not in ALPHABET:
                raise InvalidDeviceID(
                    f"device ID: character {character!r} at position {text.index(character) + 1} cannot be part of one:"
                    " it has letters from A to Z and digits from 2 to 7"
                )
        if len(characters) == GROUPS * (GROUP_LENGTH + 1):
            characters = _without_check_characters(characters)
        elif len(characters) != GROUPS * GROUP_LENGTH:
            raise InvalidDeviceID(
                f"device ID: it has 56 letters and digits (52 in the old form without check characters), dashes not"
                f" counted, but here are {len(characters)}: is a part missing or doubled?"
            )
        if characters[-1] not in "AQ":  # 52 characters hold 260 bits: the last four are zero
            raise InvalidDeviceID("device ID: there is a typo near the end: no device ID ends this way")
        return cls(base64.b32decode(characters + "===="))

    def __str__(self) -> str:
        return _text(self.raw)

    def __repr__(self) -> str:
        return f"DeviceID({str(self)!r})"

    def __bytes__(self) -> bytes:
        return self.raw

    @property
    def short(self) -> str:
        """The first seven characters, for logs."""
        return str(self)[:CHUNK_LENGTH]


@functools.lru_cache(maxsize=1000)
def _text(raw: bytes) -> str:
    """Return the text of a device ID. A status shows each device with each of its folders."""
    plain = base64.b32encode(raw).decode("ascii").rstrip("=")
    groups = (plain[start : start + GROUP_LENGTH] for start in range(0, len(plain), GROUP_LENGTH))
    checked = "".join(group + check_character(group) for group in groups)
    return "-".join(checked[start : start + CHUNK_LENGTH] for start in range(0, len(checked), CHUNK_LENGTH))


def check_character(group: str) -> str:
    """Return the check character of a group of base32 characters.

    The algorithm is Syncthing's variant of Luhn mod 32: the factors 1, 2, 1, 2, … start at the left.
    """
    total = 0
    for position, character in enumerate(group):
        addend = ALPHABET.index(character) * (1 + position % 2)
        total += addend // 32 + addend % 32
    return ALPHABET[-total % 32]


def _without_check_characters(characters: str) -> str:
    plain = ""
    wrong = []
    for number in range(GROUPS):
        start = number * (GROUP_LENGTH + 1)
        group, check = characters[start : start + GROUP_LENGTH], characters[start + GROUP_LENGTH]
        plain += group
        if check_character(group) != check:
            both = group + check
            wrong.append(f"group {number + 1} of {GROUPS} ({both[:CHUNK_LENGTH]}-{both[CHUNK_LENGTH:]})")
    if wrong:
        raise InvalidDeviceID(f"device ID: there is a typo in {', '.join(wrong)}: the check character does not match")
    return plain
