"""Comparison with known answers: every wrong answer is found."""

from __future__ import annotations

import functools
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import pytest

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.errors import DataError, DecryptionFailed, WrongPassword
from untrusted_s3.vectors_check.cases import Group, default_directory
from untrusted_s3.vectors_check.implementation import Implementation
from untrusted_s3.vectors_check.junit import junit_report
from untrusted_s3.vectors_check.operations import OPERATIONS
from untrusted_s3.vectors_check.ours import Ours
from untrusted_s3.vectors_check.run import GroupResult, load_groups, run_groups
from untrusted_s3.vectors_check.second_opinion import SecondOpinion


@functools.cache
def scrypt(*arguments: Any) -> bytes:
    """Slow by design, so each key only once."""
    return SecondOpinion().scrypt(*arguments)


class Quicker(SecondOpinion):
    """Derives no key a second time."""

    def scrypt(self, *arguments: Any) -> bytes:
        return scrypt(*arguments)


GROUPS = {group.operation: group for group in load_groups(default_directory())}


def run(group: Group, implementation: Implementation) -> GroupResult:
    (result,) = run_groups([group], [implementation])
    return result


@pytest.mark.parametrize("implementation", [Ours(), Quicker()], ids=["ours", "second opinion"])
@pytest.mark.parametrize("operation", OPERATIONS)
def test_all_answers_are_right(operation: str, implementation: Implementation) -> None:
    result = run(GROUPS[operation], implementation)
    assert [(fault.case.id, fault.fault) for fault in result.faults] == []
    assert len(result.answers) == result.cases == len(GROUPS[operation].cases)


def _flip(value: Any) -> Any:
    """Almost the same."""
    if isinstance(value, bytes):
        return bytes([value[0] ^ 1]) + value[1:] if value else b"\0"
    if isinstance(value, str):
        return value[:-1] + "~"
    changed = pb.FileInfo()
    changed.CopyFrom(value)
    changed.permissions ^= 1
    return changed


def _accept_anything(method: Callable[..., Any], substitute: Any) -> Callable[..., Any]:
    def accept(*arguments: Any) -> Any:
        try:
            return method(*arguments)
        except (DataError, WrongPassword):
            return substitute

    return accept


# What makes the fields that follow, and what opens; each method must be needed for a right result.
MAKERS = {
    "scrypt": ["scrypt"],
    "hkdf_sha256": ["hkdf_sha256"],
    "aes_siv": ["aes_siv_seal", "aes_siv_open"],
    "hchacha20": ["hchacha20"],
    "xchacha20_poly1305": ["xchacha20_poly1305_seal", "xchacha20_poly1305_open"],
    "password_token": ["password_token", "check_password"],
    "encrypted_name": ["encrypt_name", "decrypt_name"],
    "file_key": ["file_key"],
    "block_token": ["block_token", "block_hash"],
    "encrypted_block": ["decrypt_block"],
    "file_info": ["encrypt_file_info", "decrypt_file_info"],
}


@pytest.mark.parametrize(("operation", "method"), [(name, method) for name in MAKERS for method in MAKERS[name]])
def test_a_wrong_answer_is_found_in_every_valid_case(
    operation: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    implementation = Quicker()
    right = getattr(implementation, method)
    monkeypatch.setattr(implementation, method, lambda *arguments: _flip(right(*arguments)))
    found = {answer.case.id for answer in run(GROUPS[operation], implementation).faults}
    compared = {
        case.id
        for case in GROUPS[operation].cases
        if case.valid and (operation != "encrypted_block" or "plaintext" in case.fields)
    }
    assert compared
    assert compared <= found


@pytest.mark.parametrize(
    ("operation", "method"),
    [(name, MAKERS[name][-1]) for name, operation in OPERATIONS.items() if operation.open is not None],
)
def test_a_missing_refusal_is_found_in_every_invalid_case(
    operation: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    implementation = Quicker()
    substitute = pb.FileInfo() if operation == "file_info" else "" if operation == "encrypted_name" else b""
    monkeypatch.setattr(implementation, method, _accept_anything(getattr(implementation, method), substitute))
    faults = run(GROUPS[operation], implementation).faults
    assert {fault.case.id for fault in faults} == {case.id for case in GROUPS[operation].cases if not case.valid}
    assert all("not refused" in str(fault.fault) for fault in faults)


@pytest.mark.parametrize("operation", [name for name, operation in OPERATIONS.items() if operation.open is None])
def test_a_forbidden_result_is_found(operation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    implementation = Quicker()
    field = {"scrypt": "key", "hkdf_sha256": "output_key", "hchacha20": "subkey", "file_key": "file_key"}[operation]
    for case in GROUPS[operation].cases:
        if case.valid:
            continue
        monkeypatch.setattr(implementation, MAKERS[operation][0], lambda *_, value=case.fields[field]: value)
        result = run(Group(operation, (case,)), implementation)
        assert [fault.fault for fault in result.faults] == ["the answer is the one that it must not be"]


@pytest.mark.parametrize(
    ("error", "text"), [(DecryptionFailed("no"), "refused: no"), (TypeError("oops"), "TypeError: oops")]
)
def test_an_error_instead_of_an_answer(error: Exception, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    implementation = Quicker()

    def fail(*arguments: object) -> bytes:
        raise error

    monkeypatch.setattr(implementation, "hchacha20", fail)
    assert text in {fault.fault for fault in run(GROUPS["hchacha20"], implementation).faults}


def test_a_crash_is_not_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    implementation = Quicker()

    def crash(*arguments: object) -> bytes:
        raise ValueError("oops")

    monkeypatch.setattr(implementation, "block_hash", crash)
    assert len(run(GROUPS["block_token"], implementation).faults) == len(GROUPS["block_token"].cases)


def test_the_junit_report(monkeypatch: pytest.MonkeyPatch) -> None:
    implementation = Quicker()
    monkeypatch.setattr(implementation, "hchacha20", lambda *arguments: b"\0\x0b")
    results = list(run_groups([GROUPS["hchacha20"], GROUPS["hkdf_sha256"]], [Ours(), implementation]))
    report = ElementTree.fromstring(junit_report(results))
    suites = {suite.get("name"): suite for suite in report}
    assert set(suites) == {"hchacha20", "hkdf_sha256"}
    assert suites["hkdf_sha256"].get("failures") == "0"
    failing = suites["hchacha20"]
    assert failing.get("tests") == str(2 * len(GROUPS["hchacha20"].cases)) == str(len(failing))
    failed = [case.get("name") for case in failing if case.find("failure") is not None]
    assert failed == ["xchacha-2.2.1 [plain Python]"]
    assert int(failing.get("failures", "")) == 1
