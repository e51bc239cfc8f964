"""Free TCP ports."""

from __future__ import annotations

import contextlib
import random
import socket

# Below the range from which Linux takes the ports of clients, and above those of an embedded store.
_PORTS = range(26_000, 32_700)


def free_port() -> int:
    """Return a free TCP port on the loopback interface. Raises OSError if all are taken."""
    with contextlib.closing(ReservedPort()) as reserved:
        return reserved.number


class ReservedPort:
    """A free TCP port on the loopback interface that no second `ReservedPort` gets until this one is closed.

    A program can listen on it all the same: Linux lets a second socket listen on a port to which another one is only
    bound, if both allow it by SO_REUSEADDR, as servers do.
    """

    def __init__(self) -> None:
        """Raises OSError if all ports are taken."""
        candidates = list(_PORTS)
        random.SystemRandom().shuffle(candidates)
        for number in candidates:
            holder = socket.socket()
            try:
                holder.bind(("127.0.0.1", number))
            except OSError:
                holder.close()
                continue
            # Only now: before, they would let it share the port of another holder. Syncthing also dials from the port
            # that it listens on, by SO_REUSEPORT (v2.1.3 lib/dialer/control_unix.go).
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                holder.setsockopt(socket.SOL_SOCKET, option, 1)
            self.number = number
            self._holder = holder
            return
        raise OSError("no free port")

    def close(self) -> None:
        """Give the port up."""
        self._holder.close()
