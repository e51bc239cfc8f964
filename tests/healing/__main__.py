"""`python -m tests.healing --schedules 100000 --first 1`: schedules of losses, one after the other, by their seeds."""

from __future__ import annotations

from tests.healing.world import play
from tests.schedules import main

if __name__ == "__main__":
    main("tests.healing", __doc__, play)
