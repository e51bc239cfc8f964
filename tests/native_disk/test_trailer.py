"""The trailer of a native untrusted device."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tests.simulated import SimulatedBucket
from tests.vault.stored_folder import random_bytes, stored_folder
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.native_disk.trailer import native_trailer
from untrusted_s3.units import MIB


async def test_it_has_the_hash_of_the_blocks(tmp_path: Path) -> None:
    folder = await stored_folder(SimulatedBucket(), tmp_path)
    info = (await folder.file("several blocks", random_bytes(MIB))).file_info
    trailer = native_trailer(info)
    assert len(trailer) == len(info.raw) + 35 + 2 + 4 == int.from_bytes(trailer[-4:], "big") + 4
    found = pb.FileInfo.FromString(trailer[:-4])
    assert (
        found.blocks_hash == hashlib.sha256(b"".join(block.hash + bytes(4) for block in info.message.blocks)).digest()
    )
    found.ClearField("blocks_hash")
    assert found == info.message
