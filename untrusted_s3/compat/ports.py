"""Free TCP ports."""

from __future__ import annotations

import contextlib
import random
import socket

# Below the range from which Linux takes the ports of clients.
_PORTS = range(22_000, 32_700)


def free_port() -> int:
    """Return a free TCP port on the loopback interface. Raises OSError if all are taken."""
    candidates = list(_PORTS)
    random.SystemRandom().shuffle(candidates)
    for port in candidates:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")
