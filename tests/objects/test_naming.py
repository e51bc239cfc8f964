"""Names of objects follow from the block list alone, as docs/format.md says."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence

import pytest

from tests.file_infos import block_token, device, file
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.constants import TOKEN_SIZE
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.objects.naming import content_hash, has_untrusted_blocks, object_names
from untrusted_s3.store.layout import is_object_name

UNKNOWN_FIELDS = b"\xfa\x3f\x03abc"


def file_of(*blocks: tuple[int, bytes], name: str = "file") -> FileInfo:
    """Return a file of blocks with these sizes and tokens."""
    message = pb.FileInfo()
    message.CopyFrom(file(name, sizes=[size for size, _ in blocks]).message)
    for block, (_, token) in zip(message.blocks, blocks, strict=True):
        block.hash = token
    return parse_file_info(message.SerializeToString())


def tokens(sizes: Sequence[int]) -> list[tuple[int, bytes]]:
    return [(size, block_token("content", number)) for number, size in enumerate(sizes)]


def test_content_hash_layout() -> None:
    (first_size, first), (second_size, second) = blocks = tokens([5000, 70_000])
    hashed = first_size.to_bytes(8, "big") + b"\0\x30" + first + second_size.to_bytes(8, "big") + b"\0\x30" + second
    assert content_hash(file_of(*blocks)) == hashlib.sha256(hashed).hexdigest()[:32]


def test_content_hash_depends_on_the_block_list_only() -> None:
    one = file_of(*tokens([5000, 6000]))
    other = pb.FileInfo(
        name=file("another").name,
        size=11_000,
        permissions=0o600,
        modified_s=1,
        version=pb.Vector(counters=[pb.Counter(id=1, value=99)]),
        sequence=77,
        block_size=1,
        blocks=one.message.blocks,
        encrypted=b"another ciphertext",
    )
    with_unknown_fields = parse_file_info(other.SerializeToString() + UNKNOWN_FIELDS)
    assert content_hash(with_unknown_fields) == content_hash(one)


def test_content_hash_depends_on_order_size_and_token() -> None:
    def hash_of(*blocks: tuple[int, bytes]) -> str:
        return content_hash(file_of(*((size, token * TOKEN_SIZE) for size, token in blocks)))

    hashes = [
        hash_of((5000, b"a"), (5000, b"b")),
        hash_of((5000, b"b"), (5000, b"a")),
        hash_of((5000, b"a"), (5000, b"c")),
        hash_of((5001, b"a"), (5000, b"b")),
        hash_of((5000, b"a"), (5001, b"b")),
        hash_of((5000, b"a")),
        hash_of((5000, b"a"), (5000, b"b"), (5000, b"b")),
    ]
    assert len(set(hashes)) == len(hashes)


def test_eight_names_for_one_content() -> None:
    file_info = file("file")
    first = content_hash(file_info)
    names = list(itertools.islice(object_names(file_info), 1000))
    assert names == [first, *(f"{first}-{number}" for number in range(1, 1000))]
    assert all(map(is_object_name, names))


def test_names_for_content_with_blocks_of_an_untrusted_device() -> None:
    """No two devices, and no trusted device, ever share a name."""
    file_info = file("file")
    givers = [None, device(1), device(2)]
    names = [set(itertools.islice(object_names(file_info, giver), 1000)) for giver in givers]
    assert len(set().union(*names)) == 3000
    assert all(map(is_object_name, set().union(*names)))
    assert [{has_untrusted_blocks(name) for name in some} for some in names] == [{False}, {True}, {True}]
    assert min(names[1]) == f"{content_hash(file_info)}-u{device(1).raw[:8].hex()}"


@pytest.mark.parametrize("name", ["0" * 32, "0123456789abcdef" * 2 + "-1a", "f" * 32 + "-" + "z" * 64])
def test_names_that_any_gateway_may_have_given(name: str) -> None:
    assert is_object_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "0" * 31, "0" * 33, "0" * 32 + "-", "0" * 32 + "-X", "0" * 32 + "/1", "../" + "0" * 32, "0" * 32 + "\n"],
)
def test_texts_that_are_not_object_names(name: str) -> None:
    assert not is_object_name(name)
