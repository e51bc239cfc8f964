"""A simulated S3 server and its clients: the seam `store.bucket.Bucket` with faults, crashes and every interleaving.

A `SimulatedStore` is the server: objects in memory, a clock of its own, and signatures that expire by that clock. A
`SimulatedBucket` is one gateway's client: it signs by that gateway's clock, and a test may script its faults.

Each call passes its bucket's gate twice, before and after the server acts. A `Scheduler` holds calls there and lets
them go one by one in an order that the test chooses, so every interleaving of several gateways can be played.
"""

from tests.simulated.bucket import SimulatedBucket
from tests.simulated.calls import Call, Crash, Fault, Gate, Phase, deny_deletions, fail_on, fail_once
from tests.simulated.quick_loop import QuickLoop
from tests.simulated.scheduler import Scheduler
from tests.simulated.store import SimulatedClock, SimulatedStore
from tests.simulated.surroundings import fast_directory, inline_threads

__all__ = [
    "Call",
    "Crash",
    "Fault",
    "Gate",
    "Phase",
    "QuickLoop",
    "Scheduler",
    "SimulatedBucket",
    "SimulatedClock",
    "SimulatedStore",
    "deny_deletions",
    "fail_on",
    "fail_once",
    "fast_directory",
    "inline_threads",
]
