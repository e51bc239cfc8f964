"""Real Syncthing still gives the answers in `vectors/`."""

from __future__ import annotations

import hashlib
import json
import random
from pathlib import Path

import pytest

from tests.interop.sharing import PASSWORD, decrypt
from tests.peers.debian import SyncthingVersion
from tests.vectors.capture import capture
from tests.vectors.captured_documents import documents
from tests.vectors.documents import DIRECTORY
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.crypto.file_info import encrypt_file_info
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.objects.trailer import encode_trailer
from untrusted_s3.vectors_check.ours import Ours
from untrusted_s3.vectors_check.run import load_groups, run_groups
from untrusted_s3.vectors_check.second_opinion import SecondOpinion

pytestmark = pytest.mark.interop

# Without nonces, times and device IDs: equal in every run
STABLE = ("password_token", "encrypted_name", "file_key", "block_token")


def test_syncthing_gives_these_answers(
    syncthing_version: SyncthingVersion, syncthing_binary: Path, tmp_path: Path
) -> None:
    captured = capture(syncthing_version, syncthing_binary, tmp_path / "work", huge=False)
    found = tmp_path / "found"
    found.mkdir()
    for document in documents([captured]):
        document.write({captured.source: "This test"}, found)
    for operation in STABLE:
        known = {case["id"]: case for case in json.loads((DIRECTORY / f"{operation}.json").read_text())["cases"]}
        cases = json.loads((found / f"{operation}.json").read_text())["cases"]
        assert len(cases) > len(known) / 2
        for case in cases:
            assert {**known[case["id"]], "sources": case["sources"]} == case
    for result in run_groups(load_groups(found), [Ours(), SecondOpinion()]):
        assert not result.faults
        assert result.cases > 10


def test_syncthing_decrypts_what_we_encrypt(syncthing_binary: Path, tmp_path: Path) -> None:
    key = FolderKey.derive(PASSWORD, "our own")
    encrypted = tmp_path / "encrypted"
    contents = {
        f"Grüße/{size} bytes": random.Random(size).randbytes(size) for size in (0, 1, 1023, 1024, 131_073, 400_000)
    }
    for name, content in contents.items():
        file_key = key.file_key(name)
        offsets = range(0, max(len(content), 1), 131_072)
        blocks = [content[offset : offset + 131_072] for offset in offsets]
        real = pb.FileInfo(
            name=name,
            size=len(content),
            permissions=0o644,
            version=pb.Vector(counters=[pb.Counter(id=1, value=1)]),
            block_size=131_072,
            blocks=[
                pb.BlockInfo(offset=offset, size=len(block), hash=hashlib.sha256(block).digest())
                for offset, block in zip(offsets, blocks, strict=True)
            ],
        )
        fake = parse_file_info(encrypt_file_info(key, real).SerializeToString())
        path = encrypted / fake.name
        path.parent.mkdir(parents=True)
        path.write_bytes(b"".join(map(file_key.encrypt_block, blocks)) + encode_trailer(fake))
    decrypt(syncthing_binary, "our own", encrypted, tmp_path / "plain")
    for name, content in contents.items():
        assert (tmp_path / "plain" / name).read_bytes() == content, name
