"""Running a target on damaged inputs, by the million.

What a target returns says what became of an input: which reader took or refused it, and for what reason. An input with
an outcome that no earlier one had is kept, and damaged further. So the runs go deeper than the inputs that they begin
with, without the cost of tracing the code.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.mutations import Mutator

# Returns what became of an input. An exception is a find.
Run = Callable[[bytes], str]
# Returns a damaged input, from one that is there and all of them.
Damage = Callable[[Mutator, bytes, Sequence[bytes]], bytes]

_MAX_POOL = 2000
_SLOW = 1.0  # seconds of CPU
_LONG = 0.05  # seconds after which it is measured how much CPU an input takes


@dataclass(frozen=True, slots=True)
class Target:
    """A reader to fuzz.

    Attributes:
        run: Gives it an input.
        seeds: Inputs to begin with.
        damage: Makes an input from another.
        tokens: Pieces of bytes that mean something to the reader.
        max_size: What is longer is cut off.
    """

    run: Run
    seeds: Callable[[], Sequence[bytes]]
    damage: Damage
    tokens: tuple[bytes, ...] = ()
    max_size: int = 2000


@dataclass
class Report:
    """The result of a run.

    Attributes:
        executions: How many inputs were given to the target.
        seconds: How long that took.
        kept: Inputs with an outcome of their own, by their outcome; without the seeds.
        finds: Inputs that caused what must not be, by a short form of the error.
        slowest: The most CPU seconds that one input took; 0 if all were fast.
    """

    executions: int = 0
    seconds: float = 0.0
    kept: dict[str, bytes] = field(default_factory=dict)
    finds: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    slowest: float = 0.0


def fuzz(
    target: Target,
    executions: int,
    seed: int,
    *,
    corpus: Sequence[bytes] = (),
    say: Callable[[Report], None] | None = None,
    interval: float = 30.0,
) -> Report:
    """Give the target so many inputs. The same arguments give the same inputs."""
    report = Report()
    mutator = Mutator(seed, target.tokens)
    pool = [*target.seeds(), *corpus]
    outcomes = {_outcome(target, data, report) for data in pool}
    started = told = time.monotonic()
    clock = time.perf_counter
    while report.executions < executions:
        # Half of them are of what was found last, so that new ground is explored first.
        recent = pool[-50:] if mutator.below(2) else pool
        data = target.damage(mutator, recent[mutator.below(len(recent))], pool)[: target.max_size]
        before = clock()
        outcome = _outcome(target, data, report)
        if clock() - before > max(report.slowest, _LONG):
            _time(target, data, report)
        if outcome not in outcomes and len(pool) < _MAX_POOL:
            outcomes.add(outcome)
            report.kept[outcome] = data
            pool.append(data)
        if report.executions % 1000 == 0 and say is not None and time.monotonic() > told + interval:
            told = time.monotonic()
            report.seconds = told - started
            say(report)
    report.seconds = time.monotonic() - started
    return report


def _outcome(target: Target, data: bytes, report: Report) -> str:
    report.executions += 1
    try:
        return target.run(data)
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        find = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
        report.finds.setdefault(find, (data, traceback.format_exc()))
        return find


def _time(target: Target, data: bytes, report: Report) -> None:
    """Measure the CPU time of an input that took long, which may be due to other processes."""
    before = time.process_time()
    with contextlib.suppress(Exception):  # has been noted
        target.run(data)
    taken = time.process_time() - before
    report.slowest = max(report.slowest, taken)
    if taken > _SLOW:
        report.finds.setdefault("slow", (data, f"{taken:.1f} s of CPU"))


def file_name(data: bytes) -> str:
    """Return the name of an input in a corpus."""
    return hashlib.sha256(data).hexdigest()[:16]
