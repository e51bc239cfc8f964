"""Comparison of implementations with known answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from untrusted_s3.errors import DataError, UsageError, WrongPassword
from untrusted_s3.vectors_check.cases import Case, Group, load_group
from untrusted_s3.vectors_check.implementation import Implementation
from untrusted_s3.vectors_check.operations import KINDS, OPERATIONS, Operation

_SHOWN = 100  # characters of a wrong value


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of one case with one implementation; `fault` is None if the answer is right."""

    case: Case
    libraries: str
    fault: str | None


@dataclass(slots=True)
class GroupResult:
    """The results of all cases of one operation."""

    operation: str
    libraries: tuple[str, ...]
    cases: int
    refusals: int
    answers: list[Answer] = field(default_factory=list)

    @property
    def faults(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.fault is not None]


class _Wrong(Exception):
    pass


def load_groups(directory: Path) -> list[Group]:
    """Return all groups of a directory, primitives first. Raises UsageError."""
    groups = [load_group(path, KINDS) for path in sorted(directory.glob("*.json"))]
    if not groups:
        raise UsageError(f"there are no vectors (*.json) in {directory}")
    if len({group.operation for group in groups}) < len(groups):
        raise UsageError(f"two files in {directory} have the same operation")
    order = list(OPERATIONS)
    return sorted(groups, key=lambda group: order.index(group.operation))


def run_groups(groups: Sequence[Group], implementations: Sequence[Implementation]) -> Iterator[GroupResult]:
    """Run all cases, and yield the result of each group."""
    for group in groups:
        libraries = tuple(implementation.libraries(group.operation) for implementation in implementations)
        refusals = sum(not case.valid for case in group.cases)
        result = GroupResult(group.operation, libraries, len(group.cases), refusals)
        for case in group.cases:
            for implementation, name in zip(implementations, libraries, strict=True):
                result.answers.append(Answer(case, name, _fault(OPERATIONS[group.operation], implementation, case)))
        yield result


def _fault(operation: Operation, implementation: Implementation, case: Case) -> str | None:
    try:
        if case.valid:
            _check_valid(operation, implementation, case)
        else:
            _check_invalid(operation, implementation, case)
    except _Wrong as wrong:
        return str(wrong)
    except (DataError, WrongPassword) as refusal:
        return f"refused: {refusal}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def _check_valid(operation: Operation, implementation: Implementation, case: Case) -> None:
    for ask in (operation.make, operation.open):
        if ask is None:
            continue
        for name, answer in ask(implementation, case.fields).items():
            if name in case.fields and answer != case.fields[name]:
                raise _Wrong(f"{name} is {_text(case.fields[name])}, but the answer is {_text(answer)}")


def _check_invalid(operation: Operation, implementation: Implementation, case: Case) -> None:
    if operation.open is not None:
        try:
            answer = operation.open(implementation, case.fields)
        except (DataError, WrongPassword):
            return
        raise _Wrong(f"not refused; the answer is {_text(answer)}")
    assert operation.make is not None
    if any(case.fields[name] == answer for name, answer in operation.make(implementation, case.fields).items()):
        raise _Wrong("the answer is the one that it must not be")


def _text(value: Any) -> str:
    text = value.hex() if isinstance(value, bytes) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
