"""Device IDs: their text form, and which part a typo is in."""

from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.bep.device_id import ALPHABET, DeviceID, check_character
from untrusted_s3.errors import InvalidDeviceID, UsageError

raw_ids = st.binary(min_size=32, max_size=32)

TEXT = str(DeviceID(hashlib.sha256(b"a certificate").digest()))


def without_check_characters(device_id: DeviceID) -> str:
    characters = str(device_id).replace("-", "")
    return "".join(characters[start : start + 13] for start in range(0, 56, 14))


@given(raw_ids)
def test_text_is_eight_chunks_of_seven(raw: bytes) -> None:
    chunks = str(DeviceID(raw)).split("-")
    assert [len(chunk) for chunk in chunks] == [7] * 8
    assert set("".join(chunks)) <= set(ALPHABET)


@given(raw_ids)
def test_every_way_to_write_it_is_read(raw: bytes) -> None:
    device_id = DeviceID(raw)
    text = str(device_id)
    old = without_check_characters(device_id)
    typed = text.translate(str.maketrans("OIB", "018"))
    spaced = text.replace("-", " ")
    for written in (text, text.lower(), text.replace("-", ""), spaced, f" {text}\n", typed, old, old.lower()):
        assert DeviceID.parse(written) == device_id


@given(raw_ids, st.integers(0, 55), st.sampled_from(ALPHABET))
def test_a_changed_character_is_found_in_its_group(raw: bytes, position: int, other: str) -> None:
    characters = str(DeviceID(raw)).replace("-", "")
    typo = characters[:position] + other + characters[position + 1 :]
    if typo == characters:
        assert DeviceID.parse(typo).raw == raw
        return
    # Whatever the factor, 32 characters have 32 different addends, so no single change slips through.
    with pytest.raises(InvalidDeviceID, match=rf"group {position // 14 + 1} of 4") as caught:
        DeviceID.parse(typo)
    assert str(caught.value).count("of 4") == 1


def test_each_wrong_group_is_named() -> None:
    chunks = TEXT.split("-")
    chunks[2], chunks[3] = chunks[3], chunks[2]
    chunks[6], chunks[7] = chunks[7], chunks[6]
    with pytest.raises(InvalidDeviceID) as caught:
        DeviceID.parse("-".join(chunks))
    message = str(caught.value)
    assert f"group 2 of 4 ({chunks[2]}-{chunks[3]})" in message
    assert f"group 4 of 4 ({chunks[6]}-{chunks[7]})" in message
    assert "group 1" not in message
    assert "group 3" not in message


@pytest.mark.parametrize("character", ["9", "_", "é", "ß", "–"])
def test_a_character_outside_the_alphabet_is_named_with_its_position(character: str) -> None:
    with pytest.raises(InvalidDeviceID, match=rf"'{character}' at position 11 "):
        DeviceID.parse(TEXT[:10] + character + TEXT[11:])


@pytest.mark.parametrize("text", ["", TEXT[:7], TEXT[:-1], TEXT + "A", TEXT + TEXT])
def test_a_wrong_length_is_named(text: str) -> None:
    with pytest.raises(InvalidDeviceID, match=rf"here are {len(text.replace('-', ''))}:"):
        DeviceID.parse(text)


def test_bits_beyond_the_256th_are_refused() -> None:
    plain = without_check_characters(DeviceID(bytes(32)))
    with pytest.raises(InvalidDeviceID, match="near the end"):
        DeviceID.parse(plain[:-1] + "B")
    last = plain[39:51] + "B"
    with pytest.raises(InvalidDeviceID, match="near the end"):
        DeviceID.parse(str(DeviceID(bytes(32)))[:-16] + last + check_character(last))


@given(st.text(alphabet=string.printable, max_size=70))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        device_id = DeviceID.parse(text)
    except InvalidDeviceID as error:
        assert isinstance(error, UsageError)
    else:
        assert DeviceID.parse(str(device_id)) == device_id


def test_check_character_follows_the_definition() -> None:
    # Factors 1, 2 from the left: B=1 counts 1 first and 2 second; Q=16 counts 16 first, and 32 = 1 + 0 second.
    assert check_character("A" * 13) == "A"
    assert check_character("B") == ALPHABET[32 - 1]
    assert check_character("AB") == ALPHABET[32 - 2]
    assert check_character("Q") == ALPHABET[32 - 16]
    assert check_character("AQ") == ALPHABET[32 - 1]


def test_it_is_the_sha256_of_the_certificate() -> None:
    assert DeviceID.from_certificate(b"abc").raw == hashlib.sha256(b"abc").digest()


def test_it_is_a_value() -> None:
    low, high = DeviceID(bytes(32)), DeviceID(b"\xff" * 32)
    assert low < high
    assert len({low, DeviceID(bytes(32)), high}) == 2
    assert bytes(high) == high.raw
    assert repr(high) == f"DeviceID('{high}')"
    assert high.short == str(high).split("-")[0]
    with pytest.raises(AttributeError):
        low.raw = high.raw  # type: ignore[misc]
    with pytest.raises(ValueError, match="not 31"):
        DeviceID(bytes(31))
