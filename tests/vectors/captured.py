"""The data captured from one version of Syncthing."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.peers.debian import SyncthingVersion
from tests.vectors import plan
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.crypto.file_key import FileKey

Share = tuple[str, str]

ALTERED_TOKEN_OF = (plan.ZEROS, 1)


@dataclass
class Capture:
    """The data that one version of Syncthing sent. Names of files are plain."""

    version: SyncthingVersion
    tokens: dict[Share, bytes] = field(default_factory=dict)
    fakes: dict[Share, dict[str, FileInfo]] = field(default_factory=dict)
    reals: dict[Share, dict[str, pb.FileInfo]] = field(default_factory=dict)
    # Of the main folder, by name and number
    blocks: dict[tuple[str, int], bytes] = field(default_factory=dict)
    # Which of `altered_tokens` it took in a request
    accepted_tokens: set[str] = field(default_factory=set)

    @property
    def source(self) -> str:
        """Return the name of this source in the vectors."""
        return f"syncthing-{self.version}"


def captured_names() -> list[str]:
    """Return the files of the main folder whose blocks are captured."""
    return [*map(plan.block_file, plan.BLOCK_SIZES), "blocks/empty", plan.ZEROS]


def altered_tokens(key: FileKey, other: FileKey, block: pb.BlockInfo) -> dict[str, bytes]:
    """Return tokens for a block that differ from Syncthing's."""
    token = key.block_token(block.hash, block.offset)
    return {
        "without-offset": key.block_token(block.hash, None),
        "flipped-bit-in-tag": bytes([token[0] ^ 1]) + token[1:],
        "flipped-bit-in-text": token[:-1] + bytes([token[-1] ^ 128]),
        "truncated": token[:-1],
        "longer": token + b"\0",
        "of-offset-0": key.block_token(block.hash, 0),
        "of-encrypted-offset": key.block_token(block.hash, block.offset + 40),
        "of-little-endian-offset": key.block_token(block.hash, int.from_bytes(block.offset.to_bytes(8, "little"))),
        "of-another-file": other.block_token(block.hash, block.offset),
    }
