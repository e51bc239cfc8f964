"""The schemes that addresses may have."""

from __future__ import annotations

from collections.abc import Mapping

from untrusted_s3.addresses import Address, parse_address
from untrusted_s3.connections.scheme import Scheme
from untrusted_s3.connections.tcp import TCP
from untrusted_s3.errors import UsageError


class SchemeRegistry:
    """Schemes by name."""

    def __init__(self, schemes: Mapping[str, Scheme]) -> None:
        self._schemes = dict(schemes)

    @property
    def names(self) -> list[str]:
        """The names of all schemes."""
        return list(self._schemes)

    def get(self, name: str) -> Scheme:
        """Return the scheme of that name. Raises UsageError if it is unknown."""
        scheme = self._schemes.get(name)
        if scheme is None:
            raise UsageError(f"the scheme {name!r} is not supported; known are {', '.join(self.names)}")
        return scheme

    def parse(self, text: str) -> Address:
        """Parse an address with a known scheme. Raises UsageError."""
        try:
            address = parse_address(text)
            self.get(address.scheme)
        except UsageError as error:
            raise UsageError(f"an address must look like tcp://HOST:PORT, not {text!r} ({error})") from None
        return address


# tcp4 and tcp6 are accepted because Syncthing writes them; the host decides which version of IP is used.
SCHEMES = SchemeRegistry({"tcp": TCP, "tcp4": TCP, "tcp6": TCP})
