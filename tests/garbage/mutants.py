"""`python -m tests.garbage.mutants --schedules 2500`: which weakened rules of garbage collection the schedules find.

Each mutant changes a line of a copy of the program that keeps entries from losing their objects, or uploads in use from
being aborted. One that no schedule finds says that the schedules lack something, or that something else protects too.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.garbage.checked_store import EntryWithoutObjectError, UploadInUseError

ROOT: Final = Path(__file__).parents[2]
PACKAGE: Final = "untrusted_s3"
# A schedule that ends with garbage fails by a plain assertion.
FINDS: Final = (EntryWithoutObjectError.__name__, UploadInUseError.__name__, AssertionError.__name__)

GC, LIVE, GUARD = "upkeep/garbage.py", "upkeep/live.py", "index/garbage_guard.py"
RECORDS, UPLOADS = "store/garbage.py", "objects/uploads.py"
# For each mutant the file, what is there, and what comes in its place.
MUTANTS: Final[dict[str, tuple[str, str, str]]] = {
    "no grace": (GC, "or record.age < self._rules.grace or", "or"),
    "no second look": (GC, "if not live.has(one.name_hash, one.object_name)]", "]"),
    "a sweep has no end": (GC, "if not self._may_be_swept(listed):", "if False:"),
    "a record is swept at any age": (
        GC,
        "return record.age + since < self._rules.grace + self._rules.sweep",
        "return True",
    ),
    "records go after the grace": (
        GC,
        "return self._rules.grace + self._rules.sweep + self._rules.margin",
        "return self._rules.grace",
    ),
    "deletions do not expire": (GC, "lifetime=self._rules.lifetime", "lifetime=1 << 40"),
    "dissents in segments are forgotten": (LIVE, "for version in entry.versions]", "for version in [entry]]"),
    "dissents in checkpoints are forgotten": (
        "index/state_file.py",
        "WHERE (sequence, number) > (?1, ?2) AND",
        "WHERE 0 AND (sequence, number) > (?1, ?2) AND",
    ),
    "only the newest checkpoint counts": (
        LIVE,
        "if position <= base or segments.gaps(before + 1, position):",
        "if position == checkpoints[-1]:",
    ),
    "segments before a checkpoint do not count": (
        LIVE,
        "for one in segments if one > base)",
        "for one in segments if one > max(checkpoints, default=0))",
    ),
    "kept states are forgotten": (LIVE, "if key not in plan.to_drop:", "if False:"),
    "writers take candidates": (GUARD, "return bool(self.candidates) and", "return False and"),
    "writers rely on what they saw two days ago": (
        GUARD,
        "<= self.clock() - stored.seen <= self._rules.look",
        "<= self.clock() - stored.seen <= 48 * 3600",
    ),
    "writers do not note when they saw an object": (
        "objects/writer.py",
        "return replace(stored, seen=seen)",
        "return replace(stored, seen=None)",
    ),
    "writers look once": (
        RECORDS,
        "return 0 <= self._clock() - self._looked <= self._rules.look",
        'return self._looked > float("-inf")',
    ),
    "what comes back is not looked for": (GUARD, "if await self._bucket.size(key) is None:", "if False:"),
    "uploads end by their beginning": (UPLOADS, "if not await _is_in_use(bucket, upload, retention):", "if True:"),
    "uploads end after a day": (UPLOADS, "part.age <= retention:", "part.age <= retention / 7:"),
}


def first_find(name: str, first: int, schedules: int) -> str | None:
    """Play schedules with a mutant, and return the line that says which one failed. Raises RuntimeError."""
    file, old, new = MUTANTS[name]
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory)
        shutil.copytree(ROOT / PACKAGE, copy / PACKAGE, ignore=shutil.ignore_patterns("__pycache__"))
        (copy / "tests").symlink_to(ROOT / "tests")
        path = copy / PACKAGE / file
        source = path.read_text()
        if source.count(old) != 1:
            raise RuntimeError(f"{name}: {file} has {old!r} {source.count(old)} times")
        path.write_text(source.replace(old, new))
        command = [sys.executable, "-m", "tests.garbage", "--schedules", str(schedules), "--first", str(first)]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return None
    last = done.stderr.strip().splitlines()[-1]
    if not any(find in last for find in FINDS):
        raise RuntimeError(f"{name}: {done.stderr}")
    return done.stdout.strip().splitlines()[-1]


def main() -> None:
    """Play schedules with each mutant until one finds it. The exit code is 1 if one is not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.garbage.mutants", description=__doc__)
    parser.add_argument("--schedules", type=int, default=2500)
    parser.add_argument("--first", type=int, default=1, metavar="SEED")
    parser.add_argument("names", nargs="*", metavar="MUTANT", help="by default all")
    options = parser.parse_args()
    missed = 0
    for name in options.names or MUTANTS:
        began = time.monotonic()
        found = first_find(name, options.first, options.schedules)
        missed += found is None
        print(f"{name}: {found or 'not found'}, {time.monotonic() - began:.0f} s", flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
