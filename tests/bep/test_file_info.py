"""The rules for a peer's file infos, and what is kept of them."""

from __future__ import annotations

import base64
import hashlib
import posixpath
import tracemalloc
from collections.abc import Callable, Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.bep.counting import Counting
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import constants
from untrusted_s3.bep.file_info import (
    FileInfo,
    check_name,
    check_version,
    is_encrypted_name,
    parse_file_info,
    with_sequence,
)
from untrusted_s3.bep.vector import is_newer
from untrusted_s3.errors import FileInfoRefused, FolderRefused, RemoteProtocolError
from untrusted_s3.units import MIB

SMALLEST = constants.MIN_ENCRYPTED_BLOCK_SIZE
LARGEST = constants.MAX_ENCRYPTED_BLOCK_SIZE
# Fields that we do not declare: 18 (blocks hash), 14 (platform, a nested message), and three of numbers made up, one of
# them a fixed32 and one a group.
UNKNOWN_FIELDS = b"\x92\x01\x03abc\x72\x04\x1a\x02\x0a\x00\xfa\x7c\x01z\xad\x03abcd\xcb\x03\xcc\x03"


def slashed(digits: str) -> str:
    """Return base32 digits as the path that Syncthing makes of them."""
    rest = [digits[start : start + 200] for start in range(3, len(digits), 200)]
    return "/".join([f"{digits[0]}.syncthing-enc", digits[1:3], *rest])


def encrypted_name(ciphertext: bytes) -> str:
    return slashed(base64.b32hexencode(ciphertext).decode().rstrip("="))


NAME = encrypted_name(bytes(range(40)))


def block_list(sizes: Sequence[int]) -> list[pb.BlockInfo]:
    blocks, offset = [], 0
    for number, size in enumerate(sizes):
        token = hashlib.shake_128(b"%d" % number).digest(constants.TOKEN_SIZE)
        blocks.append(pb.BlockInfo(offset=offset, size=size, hash=token))
        offset += size
    return blocks


def encrypted_file(*sizes: int) -> pb.FileInfo:
    """Return a file info as Syncthing makes it for an untrusted device."""
    return pb.FileInfo(
        name=NAME,
        type=pb.FILE,
        size=sum(sizes),
        permissions=0o644,
        modified_s=1234567890,
        version=pb.Vector(counters=[pb.Counter(id=1, value=3)]),
        sequence=12,
        block_size=128 * 1024 + 40,
        blocks=block_list(sizes),
        encrypted=b"nonce, ciphertext and tag",
    )


def encrypted_directory() -> pb.FileInfo:
    return pb.FileInfo(name=NAME, type=pb.DIRECTORY, sequence=3, encrypted=b"ciphertext")


def parse(message: pb.FileInfo) -> FileInfo:
    return parse_file_info(message.SerializeToString())


# Names


@given(st.binary(min_size=17, max_size=600))
@example(bytes(17))
@example(bytes(4096 + 16))
def test_names_that_syncthing_makes_are_accepted(ciphertext: bytes) -> None:
    name = encrypted_name(ciphertext)
    assert is_encrypted_name(name)
    check_name(name)


def test_impossible_base32_lengths_are_refused() -> None:
    possible = {(size * 8 + 4) // 5 for size in range(17, 700)}
    for count in range(3, 1100):
        assert is_encrypted_name(slashed("0" * count)) == (count in possible), count


FULL = "0" * 200
NEAR_MISSES = {
    "nothing": "",
    "plain": "notes.txt",
    "plain in a directory": "Documents/notes.txt",
    "digits without slashes": NAME.replace("/", "").replace(".syncthing-enc", ""),
    "lower case": NAME.lower(),
    "lower case digits": NAME[:15].upper().replace(".SYNCTHING-ENC", ".syncthing-enc") + NAME[15:].lower(),
    "upper case extension": NAME.replace("syncthing-enc", "SYNCTHING-ENC"),
    "other extension": NAME.replace(".syncthing-enc", ".syncthing"),
    "no extension": NAME.replace(".syncthing-enc", ""),
    "first component too long": "0" + NAME,
    "no first digit": NAME[1:],
    "second component of one": NAME[:16] + NAME[17:],
    "second component of three": NAME[:17] + "0" + NAME[17:],
    "first component alone": "0.syncthing-enc",
    "two components alone": "0.syncthing-enc/00",
    "too short": slashed("0" * 26),
    "digit not in the alphabet": NAME[:-1] + "W",
    "padding": NAME + "=",
    "absolute": "/" + NAME,
    "trailing slash": NAME + "/",
    "double slash": NAME.replace("/", "//", 1),
    "newline at the end": NAME + "\n",
    "space at the end": NAME + " ",
    "NUL": NAME + "\0",
    "dot component": NAME.replace("/", "/./", 1),
    "dot dot component": NAME + "/..",
    "dot dot first": "../" + NAME,
    "backslashes": NAME.replace("/", "\\"),
    "middle component of 199": f"0.syncthing-enc/00/{FULL[1:]}/{FULL}",
    "middle component of 201": f"0.syncthing-enc/00/0{FULL}/{FULL}",
    "last component of 201": f"0.syncthing-enc/00/{FULL}0",
    "last component of 400": f"0.syncthing-enc/00/{FULL}{FULL}",
    "full-width digits": NAME[:-1] + "\N{FULLWIDTH DIGIT ONE}",
    "arabic digits": NAME[:-1] + "\N{ARABIC-INDIC DIGIT ONE}",
    "temporary": ".syncthing." + NAME + ".tmp",
}


@pytest.mark.parametrize("name", NEAR_MISSES.values(), ids=NEAR_MISSES.keys())
def test_near_misses_are_no_encrypted_names(name: str) -> None:
    assert not is_encrypted_name(name)
    message = encrypted_file(SMALLEST)
    message.name = name
    with pytest.raises((FolderRefused, FileInfoRefused)):
        parse(message)


@given(position=st.integers(0, len(NAME) - 1), character=st.characters(codec="utf-8"))
def test_one_character_off(position: int, character: str) -> None:
    name = NAME[:position] + character + NAME[position + 1 :]
    digit = position == 0 or (position > 14 and NAME[position] != "/")
    expected = name == NAME or (digit and character in "0123456789ABCDEFGHIJKLMNOPQRSTUV")
    assert is_encrypted_name(name) == expected


@pytest.mark.parametrize("name", ["a", "a/b", "...", "a/...", "..a", ".a/b..", " ", "ä/日本", "a\\..\\b", "a" * 8192])
def test_clean_relative_names(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/", "//", "/a", "//a", "../a", "a/..", "a/../b", "a/.", "./a", "a/./b", "a/", "a//b", "a\0b"],
)
def test_unclean_names_are_the_peers_fault(name: str) -> None:
    with pytest.raises(RemoteProtocolError, match="not a clean relative path"):
        check_name(name)


@pytest.mark.parametrize("size", [65_537, 100_000, 10_000_000])
def test_long_names_are_the_peers_fault(size: int) -> None:
    with pytest.raises(RemoteProtocolError, match=f"a name of {size} characters is too long"):
        check_name("a" * size)


@given(st.text(alphabet="a./", max_size=12))
def test_clean_is_what_normpath_leaves_alone(name: str) -> None:
    relative = not name.startswith("/") and name != ".." and not name.startswith("../") and name != "."
    if name and relative and posixpath.normpath(name) == name:
        check_name(name)
    else:
        with pytest.raises(RemoteProtocolError):
            check_name(name)


# Zero knowledge


def test_file_info_in_the_clear_is_refused() -> None:
    message = encrypted_file(SMALLEST)
    message.encrypted = b""
    with pytest.raises(FolderRefused, match="not encrypted: set an encryption password"):
        parse(message)


@pytest.mark.parametrize("name", ["notes.txt", "Documents/notes.txt"])
def test_name_in_the_clear_is_refused(name: str) -> None:
    message = encrypted_file(SMALLEST)
    message.name = name
    with pytest.raises(FolderRefused, match="not encrypted"):
        parse(message)


@pytest.mark.parametrize("kind", [pb.SYMLINK, pb.SYMLINK_FILE, pb.SYMLINK_DIRECTORY])
def test_symlinks_in_the_clear_are_refused(kind: pb.FileInfoType) -> None:
    message = encrypted_directory()
    message.type = kind
    with pytest.raises(FolderRefused, match="not encrypted"):
        parse(message)


def test_unknown_types_are_refused() -> None:
    raw = encrypted_directory().SerializeToString() + b"\x10\x09"
    with pytest.raises(FolderRefused, match="not encrypted"):
        parse_file_info(raw)


@pytest.mark.parametrize("flag", ["deleted", "invalid"])
def test_nothing_in_the_clear_passes_with_a_flag(flag: str) -> None:
    message = pb.FileInfo(name="notes.txt", sequence=1)
    setattr(message, flag, True)
    with pytest.raises(FolderRefused):
        parse(message)


# Block lists


@pytest.mark.parametrize(
    "sizes", [[SMALLEST], [LARGEST], [128 * 1024 + 40, SMALLEST], [LARGEST, LARGEST, 5000], [SMALLEST] * 100]
)
def test_files(sizes: list[int]) -> None:
    message = encrypted_file(*sizes)
    info = parse(message)
    assert info.message == message
    assert info.name == NAME
    assert info.has_data


def test_directories() -> None:
    assert not parse(encrypted_directory()).has_data


@pytest.mark.parametrize("kind", [pb.FILE, pb.DIRECTORY])
def test_deletions(kind: pb.FileInfoType) -> None:
    assert not parse(pb.FileInfo(name=NAME, type=kind, deleted=True, encrypted=b"x")).has_data


def changed(change: Callable[[pb.FileInfo], object]) -> pb.FileInfo:
    """A file of three blocks, changed."""
    message = encrypted_file(5000, 5000, 5000)
    change(message)
    return message


def set_field(block: int, field: str, value: object) -> Callable[[pb.FileInfo], object]:
    return lambda message: setattr(message.blocks[block], field, value)


BAD_BLOCK_LISTS: dict[str, tuple[Callable[[pb.FileInfo], object], str]] = {
    "gap": (set_field(1, "offset", 5001), "a block at 5001 where 5000 is due"),
    "overlap": (set_field(1, "offset", 4999), "a block at 4999 where 5000 is due"),
    "not from the start": (set_field(0, "offset", 1), "a block at 1 where 0 is due"),
    "negative offset": (set_field(0, "offset", -1), "a block at -1 where 0 is due"),
    "offset near the end of 64 bits": (set_field(2, "offset", 2**63 - 1), "where 10000 is due"),
    "out of order": (lambda message: message.blocks.reverse(), "a block at 10000 where 0 is due"),
    "sum too small": (lambda message: setattr(message, "size", 15_001), "do not add up to the size of 15001"),
    "sum too large": (lambda message: setattr(message, "size", 14_999), "do not add up to the size of 14999"),
    "size of zero": (lambda message: setattr(message, "size", 0), "do not add up to the size of 0"),
    "size near the end of 64 bits": (lambda message: setattr(message, "size", 2**63 - 1), "do not add up"),
    "negative size": (lambda message: setattr(message, "size", -1), "negative size -1"),
    "most negative size": (lambda message: setattr(message, "size", -(2**63)), "negative size"),
    "negative block": (set_field(2, "size", -5000), "a block of -5000 bytes"),
    "block of zero": (set_field(2, "size", 0), "a block of 0 bytes"),
    "block too small": (set_field(0, "size", SMALLEST - 1), f"a block of {SMALLEST - 1} bytes"),
    "block too large": (set_field(0, "size", LARGEST + 1), f"a block of {LARGEST + 1} bytes"),
    "block near the end of 32 bits": (set_field(0, "size", 2**31 - 1), "a block of 2147483647 bytes"),
    "no token": (set_field(1, "hash", b""), "a block token of 0 bytes"),
    "plain hash for a token": (set_field(1, "hash", bytes(32)), "a block token of 32 bytes"),
    "token too short": (set_field(1, "hash", bytes(47)), "a block token of 47 bytes"),
    "token too long": (set_field(1, "hash", bytes(49)), "a block token of 49 bytes"),
    "no blocks": (lambda message: message.ClearField("blocks"), "a file without blocks"),
    "blocks in a deletion": (lambda message: setattr(message, "deleted", True), "blocks in something that is no file"),
    "blocks in an invalid deletion": (
        lambda message: message.MergeFrom(pb.FileInfo(deleted=True, invalid=True)),
        "blocks in something that is no file",
    ),
    "blocks in a directory": (
        lambda message: setattr(message, "type", pb.DIRECTORY),
        "blocks in something that is no file",
    ),
}


@pytest.mark.parametrize(("change", "match"), BAD_BLOCK_LISTS.values(), ids=BAD_BLOCK_LISTS.keys())
def test_bad_block_lists_are_refused(change: Callable[[pb.FileInfo], object], match: str) -> None:
    with pytest.raises(FileInfoRefused, match=match) as refused:
        parse(changed(change))
    assert (refused.value.name, refused.value.sequence) == (NAME, 12)


@pytest.mark.parametrize("size", [1, 128, 2**63 - 1])
@pytest.mark.parametrize("deleted", [False, True])
def test_the_size_of_a_directory_means_nothing(size: int, deleted: bool) -> None:
    """A native untrusted device 2.0.0 to 2.1.1 announces directories and symlinks with a size of 128."""
    message = encrypted_directory()
    message.size = size
    message.deleted = deleted
    raw = message.SerializeToString()
    info = parse_file_info(raw)
    assert info.raw == raw
    assert not info.has_data
    message.size = -size
    with pytest.raises(FileInfoRefused, match="negative size"):
        parse(message)


def test_cap_on_the_number_of_blocks() -> None:
    parse_file_info(encrypted_file(5000, 5000, 5000).SerializeToString(), max_blocks=3)
    with pytest.raises(FileInfoRefused, match="4 blocks are over the cap"):
        parse_file_info(encrypted_file(5000, 5000, 5000, 5000).SerializeToString(), max_blocks=3)


@pytest.mark.parametrize(
    "change",
    [
        lambda message: message.ClearField("blocks"),
        lambda message: setattr(message, "size", -131),
        lambda message: setattr(message.blocks[0], "size", -1),
        lambda message: setattr(message.blocks[0], "hash", b""),
    ],
)
def test_invalid_file_infos_are_taken_but_have_no_data(change: Callable[[pb.FileInfo], object]) -> None:
    message = changed(change)
    message.invalid = True
    assert not parse(message).has_data
    assert parse(message).message == message


@given(st.lists(st.integers(-10, 10) | st.integers(SMALLEST, LARGEST), min_size=1, max_size=5), st.integers(-2, 2))
def test_accepted_exactly_when_every_rule_is_kept(sizes: list[int], off: int) -> None:
    message = encrypted_file(*sizes)
    message.size += off
    if off == 0 and all(SMALLEST <= size <= LARGEST for size in sizes):
        assert parse(message).message == message
    else:
        with pytest.raises(FileInfoRefused):
            parse(message)


@given(st.binary(max_size=80))
def test_garbage_is_the_peers_fault(raw: bytes) -> None:
    with pytest.raises((RemoteProtocolError, FileInfoRefused, FolderRefused)):
        parse_file_info(raw)


@pytest.mark.parametrize("name", [NAME + "/..", "../" + NAME, NAME.replace("/", "//", 1), "0" * 65_537])
def test_a_bad_name_is_refused_alone(name: str) -> None:
    message = encrypted_file(SMALLEST)
    message.name = name
    with pytest.raises(FileInfoRefused, match=r"not a clean relative path|too long"):
        parse(message)
    message.encrypted = b""
    with pytest.raises(FolderRefused):
        parse(message)


def test_large_extended_attributes_are_taken() -> None:
    message = encrypted_file(SMALLEST)
    message.encrypted = bytes(constants.MAX_FILE_INFO_SIZE - 1000)
    assert parse(message).message == message
    message.encrypted = bytes(constants.MAX_FILE_INFO_SIZE + 1000)
    with pytest.raises(FileInfoRefused, match="over the cap"):
        parse(message)


# Versions


@pytest.mark.parametrize("value", [0, 1, 2**63 - 1])
def test_versions_that_syncthing_makes(value: int) -> None:
    message = encrypted_file(SMALLEST)
    message.version.counters[0].value = value
    check_version(parse(message))


@pytest.mark.parametrize(
    "counters",
    [
        [],
        [pb.Counter(id=2, value=3)],
        [pb.Counter(value=3)],
        [pb.Counter(id=1, value=3), pb.Counter(id=1, value=3)],
        [pb.Counter(id=1, value=3), pb.Counter(id=2, value=3)],
        [pb.Counter(id=1, value=2**63)],
        [pb.Counter(id=1, value=2**64 - 1)],
    ],
)
@pytest.mark.parametrize("deleted", [False, True])
def test_other_versions_are_refused(counters: list[pb.Counter], deleted: bool) -> None:
    message = encrypted_directory()
    message.deleted = deleted
    message.version.counters.extend(counters)
    with pytest.raises(FileInfoRefused, match="a version of"):
        check_version(parse(message))
    message.invalid = True
    check_version(parse(message))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2**64 - 1)), max_size=3))
def test_no_two_versions_are_concurrent(counters: list[tuple[int, int]]) -> None:
    """Of any two versions that are taken, one is newer or they are equal."""
    message = encrypted_directory()
    message.version.counters.extend(pb.Counter(id=number, value=value) for number, value in counters)
    try:
        check_version(parse(message))
    except FileInfoRefused:
        return
    for value in (0, 1, 2**63 - 1):
        other = pb.Vector(counters=[pb.Counter(id=1, value=value)])
        ours = message.version
        assert is_newer(ours, other) + is_newer(other, ours) + (ours == other) == 1


# Memory and time


def memory_to_refuse(raw: bytes) -> int:
    """Return the most bytes that were held at once."""
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            parse_file_info(raw)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "entry", [b"\x82\x01\x00", b"\x82\x81\x00\x00", b"\x82\x01\x02\x10\x01"], ids=["empty", "long tag", "size"]
)
def test_millions_of_blocks_that_are_none(entry: bytes) -> None:
    raw = entry * (4_000_000 // len(entry))
    assert memory_to_refuse(raw) < MIB


def test_a_version_of_millions_of_counters() -> None:
    message = pb.FileInfo(name="n", version=pb.Vector(counters=[pb.Counter()] * 100_000))
    assert memory_to_refuse(message.SerializeToString()) < MIB


@pytest.mark.parametrize("field", [b"\x08\x01", b"\xf8\x7d\x01", b"\x12\x00", b"\x9a\x01\x00"])
def test_millions_of_fields_are_not_walked(field: bytes) -> None:
    raw = Counting(field * (2_000_000 // len(field)))
    with pytest.raises(RemoteProtocolError):
        parse_file_info(raw)
    assert raw.steps <= 6 * (len(raw) // constants.TOKEN_SIZE + constants.MAX_FILE_INFO_FIELDS) + 10


def test_real_file_infos_of_every_size_pass() -> None:
    for blocks in (1, 100, 5000):
        parse(encrypted_file(*(131_112,) * blocks))


# What we keep


@given(message=st.sampled_from([encrypted_file(5000, 6000), encrypted_directory()]), after=st.booleans())
def test_raw_bytes_are_kept(message: pb.FileInfo, after: bool) -> None:
    raw = message.SerializeToString()
    raw = raw + UNKNOWN_FIELDS if after else UNKNOWN_FIELDS + raw
    assert parse_file_info(raw).raw == raw


sequences = st.sampled_from([0, 1, 127, 128, 2**31, 2**63 - 1]) | st.integers(0, 2**63 - 1)


@given(
    message=st.sampled_from([encrypted_file(5000, 6000), encrypted_directory(), pb.FileInfo(name=NAME)]),
    received=sequences,
    sequence=sequences,
    unknown=st.sampled_from([b"", UNKNOWN_FIELDS]),
)
def test_with_sequence(message: pb.FileInfo, received: int, sequence: int, unknown: bytes) -> None:
    message = pb.FileInfo.FromString(message.SerializeToString() + unknown)
    message.sequence = received
    raw = message.SerializeToString()
    announced = pb.FileInfo.FromString(with_sequence(raw, sequence))
    assert announced.sequence == sequence
    announced.sequence = received
    assert announced == message
    assert announced.SerializeToString() == raw  # with the unknown fields


@given(first=sequences, second=sequences)
def test_with_sequence_twice(first: int, second: int) -> None:
    raw = with_sequence(with_sequence(encrypted_file(5000).SerializeToString(), first), second)
    assert parse_file_info(raw).message.sequence == second


def inflated(excess: int) -> bytes:
    message = encrypted_file(5000, 5000, 5000)
    message.size += excess
    return message.SerializeToString()


@pytest.mark.parametrize("trailers", [1, 2, 3])
def test_a_size_that_counts_the_trailers_of_old_syncthings_is_put_right(trailers: int) -> None:
    """As a receive-encrypted Syncthing 1.19.2 announces its files (Syncthing issue 8556)."""
    expected = parse_file_info(inflated(0))
    raw = inflated(trailers * (len(expected.raw) + 4))
    info = parse_file_info(raw)
    assert info.message == expected.message
    assert info.raw.startswith(raw)
    assert pb.FileInfo.FromString(info.raw) == expected.message
    assert parse_file_info(info.raw).raw == info.raw


def test_a_size_that_counts_more_than_trailers_is_refused() -> None:
    raw = inflated(0)
    for excess in (1, 9 * (len(raw) + 4)):
        with pytest.raises(FileInfoRefused, match="do not add up"):
            parse_file_info(inflated(excess))
