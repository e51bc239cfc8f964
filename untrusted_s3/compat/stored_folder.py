"""Checks of what Syncthing encrypted: a folder in the bucket against what our own crypto makes of the plain files."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.constants import BLOCK_OVERHEAD
from untrusted_s3.bep.file_info import parse_file_info
from untrusted_s3.compat import trees
from untrusted_s3.crypto.file_info import decrypt_file_info
from untrusted_s3.crypto.file_key import FileKey
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.errors import CheckFailed, DataError, DecryptionFailed
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.history import load_newest
from untrusted_s3.index.state import FolderState
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.layout import FolderKeys
from untrusted_s3.store.records import FolderRecord, read_record

_NANOSECONDS = 1_000_000_000
_SHOWN = 5
_KINDS = {pb.FILE: "file", pb.DIRECTORY: "directory"}  # all others are symlinks


@dataclass(frozen=True, slots=True)
class StoredFolder:
    """A folder's password token, and its entries that are not deleted, by encrypted name."""

    token: bytes
    entries: Mapping[str, Entry]


async def read_stored_folder(bucket: Bucket, folder_id: str) -> StoredFolder:
    """Read a folder as its log has it now. Raises DataError or StoreError."""
    keys = FolderKeys.of(folder_id)
    record = await read_record(bucket, keys.record, FolderRecord.from_json)
    if record is None:
        raise DataError(f"the bucket has no folder {folder_id!r}")
    with tempfile.TemporaryDirectory() as directory, closing(FolderState(Path(directory, "state.sqlite"))) as state:
        await load_newest(bucket, keys, state)
        names = [parse_file_info(raw).name for _, raw in state.file_infos_after(0, state.sequence)]
        found = {name: state.entry(name) for name in names}
    live = {name: entry for name, entry in found.items() if entry and not entry.file_info.message.deleted}
    return StoredFolder(record.token, live)


async def download_objects(bucket: Bucket, folder_id: str, stored: StoredFolder, to: Path) -> None:
    """Download the objects of all files to a directory. Raises StoreError."""
    keys = FolderKeys.of(folder_id)
    for name, entry in stored.entries.items():
        if entry.stored is not None:
            key = keys.object(name, entry.stored.object_name)
            path = to / keys.relative(key)
            path.parent.mkdir(parents=True, exist_ok=True)
            await bucket.download_file(key, path)


# Each check returns what it has seen, or raises CheckFailed.


def check_token(stored: StoredFolder, key: FolderKey) -> str:
    """Check that the folder's token is the one of our key."""
    if stored.token != key.token():
        raise CheckFailed(f"Syncthing made {stored.token.hex()}, we make {key.token().hex()}")
    return f"{len(stored.token)} bytes, equal to ours"


def check_names(stored: StoredFolder, key: FolderKey, paths: Collection[str]) -> str:
    """Check that the encrypted names are those that we make of the plain ones, no more and no fewer."""
    ours = {key.encrypt_name(path): path for path in paths}
    problems = [f"{ours[name]!r} should be {name}" for name in sorted(ours.keys() - stored.entries.keys())]
    for name in sorted(stored.entries.keys() - ours.keys()):
        try:
            problems.append(f"{name} is {key.decrypt_name(name)!r}, which is not in the folder")
        except DecryptionFailed as error:
            problems.append(str(error))
    problems += [f"{name} is not {path!r} to us" for name, path in ours.items() if key.decrypt_name(name) != path]
    fail_with(problems)
    lengths = [len(path.encode()) for path in paths]
    return f"{len(lengths)} names of {min(lengths)} to {max(lengths)} bytes"


def check_block_tokens(stored: StoredFolder, key: FolderKey, root: Path) -> str:
    """Check that the token of every block of the files below `root` is the one that we make of its hash."""
    problems, with_offset, without_offset = [], 0, 0
    for path in _files(root):
        entry = stored.entries.get(key.encrypt_name(path))
        if entry is None:
            problems.append(f"{path!r} is not in the bucket")
            continue
        fake = entry.file_info.message
        file_key = key.file_key(path)
        size = fake.block_size - BLOCK_OVERHEAD
        with_and_without = list(_tokens(root / path, size, file_key)) if size > 0 else []
        if len(with_and_without) != len(fake.blocks):
            problems.append(f"{path!r} has {len(fake.blocks)} blocks, we make {len(with_and_without)} of it")
            continue
        for number, (block, (new, old)) in enumerate(zip(fake.blocks, with_and_without, strict=True)):
            if block.hash == new:
                with_offset += 1
            elif block.hash == old:
                without_offset += 1
            else:
                problems.append(f"block {number} of {path!r}: Syncthing made {block.hash.hex()}, we make {new.hex()}")
    fail_with(problems)
    kinds = [(with_offset, "with the offset"), (without_offset, "without the offset")]
    return ", ".join(f"{count:,} blocks {kind}" for count, kind in kinds if count)


def check_file_infos(stored: StoredFolder, key: FolderKey, root: Path) -> str:
    """Check that the file infos can be decrypted, are consistent, and describe exactly the items below `root`."""
    problems, found = [], {}
    for entry in stored.entries.values():
        try:
            real = decrypt_file_info(key, entry.file_info)
        except DataError as error:
            problems.append(str(error))
        else:
            found[real.name] = describe(real)
    problems += trees.differences(trees.manifest(root, contents=False), found)
    fail_with(problems)
    kinds = [item.kind for item in found.values()]
    return f"{kinds.count('file')} files, {kinds.count('directory')} directories, {kinds.count('symlink')} symlinks"


def describe(real: pb.FileInfo) -> trees.Entry:
    """Return what a decrypted file info says of its item, without the contents."""
    kind = _KINDS.get(real.type, "symlink")
    if kind == "file":
        return trees.Entry("file", real.permissions, real.modified_s * _NANOSECONDS + real.modified_ns, real.size)
    if kind == "directory":
        return trees.Entry("directory", real.permissions)
    return trees.Entry("symlink", target=real.symlink_target.decode(errors="replace"))


def fail_with(problems: Collection[str]) -> None:
    """Raise CheckFailed with the first problems, if there are any."""
    if problems:
        lines = list(problems)[:_SHOWN]
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise CheckFailed("\n".join([*lines, *more]))


def _files(root: Path) -> list[str]:
    return [path for path, item in trees.manifest(root, contents=False).items() if item.kind == "file"]


def _tokens(file: Path, block_size: int, key: FileKey) -> Iterator[tuple[bytes, bytes]]:
    """Yield for each block of a plain file its token, and its token as old versions of Syncthing make it."""
    offset = 0
    with file.open("rb") as stream:
        while (block := stream.read(block_size)) or offset == 0:  # an empty file has one empty block
            digest = hashlib.sha256(block).digest()
            yield key.block_token(digest, offset), key.block_token(digest, None)
            offset += len(block)
            if not block:
                return
