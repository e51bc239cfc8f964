"""`python -m tests.garbage --schedules 100000 --first 1`: schedules of garbage collection, by their seeds."""

from __future__ import annotations

from tests.garbage.world import play
from tests.schedules import main

if __name__ == "__main__":
    main("tests.garbage", __doc__, play)
