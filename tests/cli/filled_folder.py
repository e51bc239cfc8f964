"""A store with two folders that our own encryption has filled, one of them with damage."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from tests.vault.stored_folder import START, StoredFolder, random_bytes
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.store.s3 import S3Bucket
from untrusted_s3.units import KIB

LARGE = random_bytes(700 * KIB)

MODIFIED = datetime(2026, 11, 1, 12, 34, 56, tzinfo=UTC)

MODIFIED_NS = int(MODIFIED.timestamp()) * 10**9 + 7

NEVER_NS = 2**62 * 10**9


async def fill_folders(bucket: S3Bucket, directory: Path) -> None:
    """Make 'folder', and 'another folder' with damage."""
    stored = await StoredFolder(bucket, directory).create()
    await stored.append(await stored.file("changed", b"before"), await stored.file("old", b"lived"), time=START)
    await stored.append(
        stored.directory("sub", mode=0o750, modified_ns=MODIFIED_NS),
        stored.directory("sub/empty"),
        await stored.file("sub/large", LARGE, mode=0o600, modified_ns=MODIFIED_NS),
        await stored.file("sub/x[1]", b"", modified_ns=NEVER_NS),
        stored.symlink("sub/link", "../changed", modified_ns=MODIFIED_NS),
        await stored.file("changed", b"after!", modified_ns=MODIFIED_NS),
        stored.deleted("old"),
        await stored.file("evil\x1b[2Jname", b"x", modified_ns=MODIFIED_NS),
        time=START + 3600,
    )
    other = await StoredFolder(bucket, directory, "another folder").create()
    await other.append(await other.file("sound", b"sound"), await other.file("../escape", b"x"))
    bad = await other.file("bad", random_bytes(300 * KIB))
    await other.append(bad)
    body = bytearray(await bucket.get(other.object_key(bad)))
    body[200 * KIB] ^= 1
    await bucket.put(other.object_key(bad), [bytes(body)])

    def lie(fake: pb.FileInfo) -> None:
        fake.version.counters[0].value += 1

    await other.append(await other.file("liar", b"x", change_fake=lie))
