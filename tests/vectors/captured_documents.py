"""The vectors of Syncthing's folder encryption, made of captured data."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from tests.vectors import plan
from tests.vectors.captured import ALTERED_TOKEN_OF, Capture, altered_tokens, captured_names
from tests.vectors.documents import Document, Fields, flipped
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.crypto import names
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.vectors_check.operations import describe

_LARGEST_PLAINTEXT = 4096  # larger blocks are written down as a hash
_HUGE_BLOCKS = (0, 1, 1023, 1024, 1025)  # of 4 MiB: number 1024 begins at 4 GiB
_KNOWN_NAME = "3.syncthing-enc/T5/957I4IOA20VEIEER6JSQG0PEPIRV862II3K7LOF75Q"


def documents(captures: Sequence[Capture]) -> list[Document]:
    """Return all documents whose source is Syncthing."""
    keys = {share: FolderKey.derive(share[1], share[0]) for share in plan.SHARES}
    return [
        _password_token(captures, keys),
        _encrypted_name(captures, keys),
        _file_key(captures, keys),
        _block_token(captures, keys[plan.MAIN]),
        _encrypted_block(captures, keys[plan.MAIN]),
        _file_info(captures, keys),
    ]


def _password_token(captures: Sequence[Capture], keys: dict[tuple[str, str], FolderKey]) -> Document:
    document = Document("password_token")
    for capture in captures:
        for number, (share, comment) in enumerate(plan.SHARES.items(), 1):
            fields: Fields = {"folder_id": share[0], "password": share[1]}
            fields |= {"folder_key": keys[share].raw, "token": capture.tokens[share]}
            document.valid(f"share-{number}", [capture.source], fields, comment)
    folder, password = plan.MAIN
    token = captures[-1].tokens[plan.MAIN]
    right: Fields = {"folder_id": folder, "password": password, "token": token}
    changes: dict[str, Fields] = {
        "wrong-password": {"password": "my passwore"},
        "upper-case-password": {"password": "My password"},
        "password-and-space": {"password": "my password "},
        "no-password": {"password": ""},
        "other-folder": {"folder_id": "my folde"},
        "no-folder": {"folder_id": ""},
        "folder-and-password-exchanged": {"folder_id": password, "password": folder},
        "flipped-bit-in-tag": {"token": flipped(token, 0)},
        "flipped-bit-in-text": {"token": flipped(token, -1, 7)},
        "truncated": {"token": token[:-1]},
        "longer": {"token": token + b"\0"},
        "tag-alone": {"token": token[:16]},
        "nothing": {"token": b""},
        "of-another-folder": {"token": captures[-1].tokens[plan.OTHER]},
        "without-empty-nonce": {"token": _without_nonce(keys[plan.MAIN].raw, f"syncthing{folder}".encode())},
    }
    document.altered("share-1", right, changes)
    return document


def _encrypted_name(captures: Sequence[Capture], keys: dict[tuple[str, str], FolderKey]) -> Document:
    document = Document("encrypted_name")
    key = keys[plan.MAIN].raw
    wanted = {f"name-{number}": name for number, name in enumerate(plan.NAMES, 1)}
    wanted |= {f"size-{size:03}": plan.sized_name(size) for size in plan.NAME_SIZES}
    fields: Fields = {"folder_key": key, "name": wanted["name-1"], "encrypted_name": _KNOWN_NAME}
    document.valid("name-1", ["syncthing-tests"], fields)
    for capture in captures:
        for case, name in wanted.items():
            fields = {"folder_key": key, "name": name, "encrypted_name": capture.fakes[plan.MAIN][name].name}
            document.valid(case, [capture.source], fields)
        for number, (name, fake) in enumerate(sorted(capture.fakes[plan.OTHER].items()), 1):
            fields = {"folder_key": keys[plan.OTHER].raw, "name": name, "encrypted_name": fake.name}
            document.valid(f"other-folder-{number}", [capture.source], fields)

    altered = {
        "flipped-bit-in-tag": names.to_path(flipped(names.from_path(_KNOWN_NAME), 0)),
        "flipped-bit-in-text": names.to_path(flipped(names.from_path(_KNOWN_NAME), -1)),
        "truncated": _KNOWN_NAME[:-2],
        "longer": _KNOWN_NAME + "00",
        "first-components-alone": "3.syncthing-enc/T5",
        "first-component-alone": "3.syncthing-enc",
        "tag-alone": names.to_path(names.from_path(_KNOWN_NAME)[:16]),
        "nothing": "",
        "slash": "/",
        "lower-case": _KNOWN_NAME.replace("957I4IOA", "957i4ioa"),
        "other-alphabet": _KNOWN_NAME.replace("957I4IOA", "957W4XYZ"),
        "padded": _KNOWN_NAME + "===",
        "without-extension": _KNOWN_NAME.replace(".syncthing-enc", ""),
        "other-extension": _KNOWN_NAME.replace(".syncthing-enc", ".syncthing-dec"),
        "extension-later": "3T.syncthing-enc/5/957I4IOA20VEIEER6JSQG0PEPIRV862II3K7LOF75Q",
        "plain": "filename.txt",
        "without-empty-nonce": names.to_path(_without_nonce(key, b"filename.txt")),
    }
    changes: dict[str, Fields] = {name: {"encrypted_name": encrypted} for name, encrypted in altered.items()}
    changes["wrong-key"] = {"folder_key": keys[plan.OTHER].raw}
    document.altered("name-1", {"folder_key": key, "encrypted_name": _KNOWN_NAME}, changes)
    long = captures[-1].fakes[plan.MAIN][plan.sized_name(300)].name
    changes = {"without-last-component": {"encrypted_name": long.rpartition("/")[0]}}
    document.altered("size-300", {"folder_key": key}, changes)
    return document


def _file_key(captures: Sequence[Capture], keys: dict[tuple[str, str], FolderKey]) -> Document:
    document = Document("file_key")
    folder_key = keys[plan.MAIN]
    wanted = [*plan.NAMES, *map(plan.sized_name, (1, 32, 33, 200, 700)), *captured_names()]
    for capture in captures:
        for number, name in enumerate(wanted, 1):
            key = folder_key.file_key(name)
            # This key opens what Syncthing encrypted with its own.
            assert pb.FileInfo.FromString(key.decrypt(capture.fakes[plan.MAIN][name].message.encrypted)).name == name
            fields = {"folder_key": folder_key.raw, "name": name, "file_key": key.raw}
            document.valid(f"name-{number}", [capture.source], fields, "it opens the file info of that name")
    right: Fields = {"folder_key": folder_key.raw, "name": wanted[0], "file_key": folder_key.file_key(wanted[0]).raw}
    changes: dict[str, Fields] = {
        "of-another-name": {"name": "filename.tx"},
        "of-encrypted-name": {"name": _KNOWN_NAME},
        "of-another-folder": {"folder_key": keys[plan.OTHER].raw},
        "flipped-bit": {"file_key": flipped(folder_key.file_key(wanted[0]).raw, -1)},
    }
    document.altered("name-1", right, changes)
    return document


def _block_token(captures: Sequence[Capture], folder_key: FolderKey) -> Document:
    document = Document("block_token")
    for capture in captures:
        huge = [plan.HUGE] if plan.HUGE in capture.fakes[plan.MAIN] else []
        for name in [*captured_names(), *huge]:
            fake, real = capture.fakes[plan.MAIN][name].message, capture.reals[plan.MAIN][name]
            key = folder_key.file_key(name)
            for number in _HUGE_BLOCKS if name == plan.HUGE else range(len(real.blocks)):
                inner = real.blocks[number]
                fields: Fields = {"file_key": key.raw, "block_hash": inner.hash, "offset": inner.offset}
                case = f"{_slug(name)}-{number}"
                document.valid(case, [capture.source], {**fields, "token": fake.blocks[number].hash})
                if (name, number) == ALTERED_TOKEN_OF:
                    assert "without-offset" in capture.accepted_tokens
                    sources, comment = [capture.source], f"{case}, as old peers made it; taken in a request"
                elif number < 2:
                    sources, comment = ["derived"], f"{case}, as old peers made it"
                else:
                    continue
                fields |= {"offset": None, "token": key.block_token(inner.hash, None)}
                document.valid(f"{case}-without-offset", sources, fields, comment)

    name, number = ALTERED_TOKEN_OF
    block = captures[-1].reals[plan.MAIN][name].blocks[number]
    key, other = folder_key.file_key(name), folder_key.file_key("another name")
    case, fields = f"{_slug(name)}-{number}", {"file_key": key.raw, "offset": block.offset}
    for capture in captures:
        for kind, token in altered_tokens(key, other, block).items():
            if kind == "without-offset":
                continue
            assert kind not in capture.accepted_tokens, f"{capture.version} takes {kind}"
            comment = f"{case}, altered; refused in a request"
            document.invalid(f"{case}-{kind}", {**fields, "token": token}, comment, [capture.source])
    data = block.offset.to_bytes(8, "big")
    changes: dict[str, Fields] = {
        "without-empty-nonce": {"token": _without_nonce(key.raw, block.hash, data)},
        "tag-alone": {"token": key.block_token(block.hash, block.offset)[:16]},
        "nothing": {"token": b""},
    }
    document.altered(case, fields, changes)
    return document


def _encrypted_block(captures: Sequence[Capture], folder_key: FolderKey) -> Document:
    document = Document("encrypted_block")
    newest = captures[-1]
    for capture in captures:
        for (name, number), encrypted in capture.blocks.items():
            inner = capture.reals[plan.MAIN][name].blocks[number]
            key = folder_key.file_key(name)
            plaintext = key.decrypt_block(encrypted, inner.size, inner.hash)
            fields: Fields = {"file_key": key.raw, "block_hash": inner.hash, "size": inner.size}
            if inner.size <= _LARGEST_PLAINTEXT:
                fields["plaintext"] = plaintext
            elif capture is not newest or name == plan.ZEROS:
                continue
            case = f"{_slug(name)}-{number}-{capture.version}"
            document.valid(case, [capture.source], {**fields, "encrypted": encrypted})

    name = plan.block_file(16)
    encrypted = newest.blocks[name, 0]
    inner = newest.reals[plan.MAIN][name].blocks[0]
    other = newest.reals[plan.MAIN][plan.block_file(1)].blocks[0]
    right: Fields = {
        "file_key": folder_key.file_key(name).raw,
        "block_hash": inner.hash,
        "size": 16,
        "encrypted": encrypted,
    }
    case = f"{_slug(name)}-0-{newest.version}"
    changes: dict[str, Fields] = {
        "flipped-bit-in-nonce": {"encrypted": flipped(encrypted, 0)},
        "flipped-bit-in-end-of-nonce": {"encrypted": flipped(encrypted, 23)},
        "flipped-bit-in-text": {"encrypted": flipped(encrypted, 24, 3)},
        "flipped-bit-in-padding": {"encrypted": flipped(encrypted, 24 + 16)},
        "flipped-bit-in-tag": {"encrypted": flipped(encrypted, -1, 7)},
        "truncated": {"encrypted": encrypted[:-1]},
        "without-padding": {"encrypted": encrypted[: 24 + 16 + 16]},
        "longer": {"encrypted": encrypted + b"\0"},
        "nonce-and-tag-alone": {"encrypted": encrypted[:40]},
        "shorter-than-nonce-and-tag": {"encrypted": encrypted[:39]},
        "nothing": {"encrypted": b""},
        "wrong-key": {"file_key": folder_key.file_key("another name").raw},
        "folder-key": {"file_key": folder_key.raw},
        "hash-of-another-block": {"block_hash": other.hash},
        "one-byte-less": {"size": 15},
        "one-byte-more": {"size": 17},
        "padding-taken-as-data": {"size": 1024},
        "block-of-another-file": {"encrypted": newest.blocks[plan.block_file(1), 0]},
    }
    document.altered(case, right, changes)
    return document


def _file_info(captures: Sequence[Capture], keys: dict[tuple[str, str], FolderKey]) -> Document:
    document = Document("file_info")
    for capture in captures:
        for share, fakes in capture.fakes.items():
            folder_key = keys[share]
            for name, fake in sorted(fakes.items()):
                if share == plan.MAIN and not name.startswith("infos"):
                    continue
                plaintext = folder_key.file_key(name).decrypt(fake.message.encrypted)
                fields: Fields = {"folder_key": folder_key.raw, "fake": fake.raw, "real": plaintext}
                fields |= {"real_fields": describe(capture.reals[share][name])}
                document.valid(f"{_slug(name)}-{capture.version}", [capture.source], fields)
    _bad_file_infos(document, captures[-1], keys)
    return document


def _bad_file_infos(document: Document, capture: Capture, keys: dict[tuple[str, str], FolderKey]) -> None:
    folder_key, fakes = keys[plan.MAIN], capture.fakes[plan.MAIN]

    def add(name: str, kind: str, fault: str, change: Callable[[pb.FileInfo], None]) -> None:
        fake = pb.FileInfo.FromString(fakes[name].raw)
        change(fake)
        case = f"{_slug(name)}-{capture.version}"
        fields = {"folder_key": folder_key.raw, "fake": fake.SerializeToString(), "fault": fault}
        document.altered(case, fields, {kind: {}})

    def sealed(change: Callable[[pb.FileInfo], None]) -> Callable[[pb.FileInfo], None]:
        def reseal(fake: pb.FileInfo) -> None:
            key = folder_key.file_key(folder_key.decrypt_name(fake.name))
            real = pb.FileInfo.FromString(key.decrypt(fake.encrypted))
            change(real)
            fake.encrypted = key.encrypt(real.SerializeToString())

        return reseal

    def encrypted(change: Callable[[bytes], bytes]) -> Callable[[pb.FileInfo], None]:
        return lambda fake: setattr(fake, "encrypted", change(fake.encrypted))

    def as_directory(fake: pb.FileInfo) -> None:
        fake.type, fake.size, fake.block_size = pb.DIRECTORY, 0, 0
        del fake.blocks[:]

    def as_deleted(fake: pb.FileInfo) -> None:
        fake.deleted, fake.size = True, 0
        del fake.blocks[:]

    def exchange_tokens(fake: pb.FileInfo) -> None:
        first, second = fake.blocks[0], fake.blocks[1]
        first.hash, second.hash = second.hash, first.hash

    def without_last_block(fake: pb.FileInfo) -> None:
        fake.size -= fake.blocks[-1].size
        del fake.blocks[-1]

    def other_size(fake: pb.FileInfo) -> None:
        fake.blocks[-1].size += 1
        fake.size += 1

    def other_version(by: int) -> Callable[[pb.FileInfo], None]:
        def change(fake: pb.FileInfo) -> None:
            fake.version.counters[0].value += by

        return change

    file, blocks = "infos/file", "infos/three blocks"
    other = fakes["infos/empty file"].message
    add(file, "flipped-bit-in-nonce", "decryption", encrypted(lambda data: flipped(data, 0)))
    add(file, "flipped-bit-in-text", "decryption", encrypted(lambda data: flipped(data, 24)))
    add(file, "flipped-bit-in-tag", "decryption", encrypted(lambda data: flipped(data, -1)))
    add(file, "truncated", "decryption", encrypted(lambda data: data[:-1]))
    add(file, "nonce-and-tag-alone", "decryption", encrypted(lambda data: data[:40]))
    add(file, "shorter-than-nonce-and-tag", "decryption", encrypted(lambda data: data[:39]))
    add(file, "name-of-another", "decryption", lambda fake: setattr(fake, "name", other.name))
    add(file, "inside-of-another", "decryption", lambda fake: setattr(fake, "encrypted", other.encrypted))
    add(file, "outside-directory", "inconsistent", as_directory)
    add(file, "outside-deleted", "inconsistent", as_deleted)
    add(file, "newer-outside", "inconsistent", other_version(1))
    add(file, "older-outside", "inconsistent", other_version(-1))
    add(blocks, "tokens-exchanged", "inconsistent", exchange_tokens)
    add(blocks, "without-last-block", "inconsistent", without_last_block)
    add(blocks, "longer-last-block", "inconsistent", other_size)
    add(file, "another-name-inside", "inconsistent", sealed(lambda real: setattr(real, "name", "infos/file 2")))
    add(file, "another-size-inside", "inconsistent", sealed(lambda real: setattr(real, "size", real.size + 1)))
    deleted = "infos/deleted file"
    add(deleted, "outside-not-deleted-directory", "inconsistent", lambda fake: setattr(fake, "type", pb.DIRECTORY))
    fields = {"folder_key": keys[plan.OTHER].raw, "fake": fakes[file].raw, "fault": "decryption"}
    document.altered(f"{_slug(file)}-{capture.version}", fields, {"wrong-key": {}})


def _slug(name: str) -> str:
    return name.replace("/", "-").replace(" ", "-").lower()


def _without_nonce(key: bytes, plaintext: bytes, *associated_data: bytes) -> bytes:
    """Return the output of AES-SIV without the empty nonce that Syncthing authenticates last."""
    return AESSIV(key).encrypt(plaintext, list(associated_data))
