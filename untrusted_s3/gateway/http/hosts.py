"""Which `Host` headers the pages answer.

A web page can let its own host name point to this machine (DNS rebinding), and would then read the pages as its own.
Its requests carry that name, so only names that nobody else controls are answered.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence

_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,64}\]|[^\[\]:/@\s]{1,255})(?::[0-9]{1,5})?")


class AllowedHosts:
    """The hosts that clients may ask for: IP addresses, localhost, and `names`."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = {_plain(name) for name in names if name} | {"localhost"}

    def allow(self, headers: Sequence[str]) -> bool:
        """Whether a request with these `Host` headers is answered.

        A request without any is: browsers send one, while health checks of load balancers (HTTP/1.0) may not.
        """
        if not headers:
            return True
        match = _HOST.fullmatch(headers[0]) if len(headers) == 1 else None
        return match is not None and self._is_known(match[1])

    def _is_known(self, host: str) -> bool:
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            return _plain(host) in self._names
        return True


def _plain(name: str) -> str:
    return name.lower().removesuffix(".")
