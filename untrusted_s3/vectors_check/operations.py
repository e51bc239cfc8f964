"""The operations of the vectors: their fields, and the calls of an implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.vectors_check.cases import Fields
from untrusted_s3.vectors_check.implementation import Implementation

Ask = Callable[[Implementation, Fields], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation.

    `make` and `open` return fields that follow from other fields of a case. In a valid case they must equal those of
    the case. In an invalid case, `open` must refuse; without `open`, the result of `make` must differ.
    """

    kinds: Mapping[str, str]
    make: Ask | None = None
    open: Ask | None = None


def describe(real: pb.FileInfo) -> dict[str, Any]:
    """Return a file info in protobuf's JSON mapping: 64-bit integers as strings, bytes as base64, without zeros."""
    described = MessageToDict(real, preserving_proto_field_name=True)
    if "platform" in described:
        platform = pb.PlatformData.FromString(real.platform)
        described["platform"] = MessageToDict(platform, preserving_proto_field_name=True)
    return described


def _outside(fake: pb.FileInfo) -> bytes:
    """Return the deterministic part of an encrypted file info.

    `platform` is not in it: Syncthing 1.29 adds an empty one, 1.19 does not.
    """
    outside = pb.FileInfo()
    outside.CopyFrom(fake)
    outside.ClearField("encrypted")
    outside.ClearField("platform")
    return outside.SerializeToString(deterministic=True)


def _make_file_info(implementation: Implementation, fields: Fields) -> Mapping[str, Any]:
    fake = implementation.encrypt_file_info(fields["folder_key"], pb.FileInfo.FromString(fields["real"]))
    same = _outside(fake) == _outside(pb.FileInfo.FromString(fields["fake"]))
    return {"fake": fields["fake"] if same else fake.SerializeToString()}


def _open_file_info(implementation: Implementation, fields: Fields) -> Mapping[str, Any]:
    real = implementation.decrypt_file_info(fields["folder_key"], pb.FileInfo.FromString(fields["fake"]))
    same = "real" in fields and real == pb.FileInfo.FromString(fields["real"])
    return {"real": fields["real"] if same else real.SerializeToString(), "real_fields": describe(real)}


OPERATIONS: Mapping[str, Operation] = {
    "scrypt": Operation(
        {"password": "bytes", "salt": "bytes", "n": "integer", "r": "integer", "p": "integer", "length": "integer"}
        | {"key": "bytes"},
        make=lambda it, given: {
            "key": it.scrypt(given["password"], given["salt"], given["n"], given["r"], given["p"], given["length"])
        },
    ),
    "hkdf_sha256": Operation(
        {"input_key": "bytes", "salt": "bytes", "info": "bytes", "length": "integer", "output_key": "bytes"},
        make=lambda it, given: {
            "output_key": it.hkdf_sha256(given["input_key"], given["salt"], given["info"], given["length"])
        },
    ),
    "aes_siv": Operation(
        {"key": "bytes", "associated_data": "list of bytes", "plaintext": "bytes", "ciphertext": "bytes"},
        make=lambda it, given: {
            "ciphertext": it.aes_siv_seal(given["key"], given["associated_data"], given["plaintext"])
        },
        open=lambda it, given: {
            "plaintext": it.aes_siv_open(given["key"], given["associated_data"], given["ciphertext"])
        },
    ),
    "hchacha20": Operation(
        {"key": "bytes", "nonce": "bytes", "subkey": "bytes"},
        make=lambda it, given: {"subkey": it.hchacha20(given["key"], given["nonce"])},
    ),
    "xchacha20_poly1305": Operation(
        {"key": "bytes", "nonce": "bytes", "associated_data": "bytes", "plaintext": "bytes", "ciphertext": "bytes"},
        make=lambda it, given: {
            "ciphertext": it.xchacha20_poly1305_seal(
                given["key"], given["nonce"], given["associated_data"], given["plaintext"]
            )
        },
        open=lambda it, given: {
            "plaintext": it.xchacha20_poly1305_open(
                given["key"], given["nonce"], given["associated_data"], given["ciphertext"]
            )
        },
    ),
    "password_token": Operation(
        {"folder_id": "text", "password": "text", "folder_key": "bytes", "token": "bytes"},
        make=lambda it, given: {"token": it.password_token(given["folder_key"], given["folder_id"])},
        open=lambda it, given: {"folder_key": it.check_password(given["folder_id"], given["password"], given["token"])},
    ),
    "encrypted_name": Operation(
        {"folder_key": "bytes", "name": "text", "encrypted_name": "text"},
        make=lambda it, given: {"encrypted_name": it.encrypt_name(given["folder_key"], given["name"])},
        open=lambda it, given: {"name": it.decrypt_name(given["folder_key"], given["encrypted_name"])},
    ),
    "file_key": Operation(
        {"folder_key": "bytes", "name": "text", "file_key": "bytes"},
        make=lambda it, given: {"file_key": it.file_key(given["folder_key"], given["name"])},
    ),
    "block_token": Operation(
        {"file_key": "bytes", "block_hash": "bytes", "offset": "integer or null", "token": "bytes"},
        make=lambda it, given: {"token": it.block_token(given["file_key"], given["block_hash"], given["offset"])},
        open=lambda it, given: {"block_hash": it.block_hash(given["file_key"], given["token"], given["offset"])},
    ),
    "encrypted_block": Operation(
        {"file_key": "bytes", "block_hash": "bytes", "size": "integer", "plaintext": "bytes?", "encrypted": "bytes"},
        open=lambda it, given: {
            "plaintext": it.decrypt_block(given["file_key"], given["encrypted"], given["size"], given["block_hash"])
        },
    ),
    "file_info": Operation(
        {"folder_key": "bytes", "fake": "bytes", "real": "bytes", "real_fields": "object", "fault": "text?"},
        make=_make_file_info,
        open=_open_file_info,
    ),
}
KINDS = {name: operation.kinds for name, operation in OPERATIONS.items()}
