"""How the store is reached: its certificates and proxies, the same for both planes."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from botocore.utils import get_environ_proxies

from untrusted_s3.errors import UsageError


@dataclass(frozen=True, slots=True)
class Network:
    """What the environment says about connections.

    Attributes:
        ca_bundle: A file or directory with the certificates to trust, instead of those of the system.
    """

    ca_bundle: str | None = None

    def tls_context(self) -> ssl.SSLContext | None:
        """Return a context that trusts the bundle, or None without one. Raises UsageError if it cannot be read."""
        if self.ca_bundle is None:
            return None
        path = Path(self.ca_bundle)
        try:
            if path.is_dir():
                return ssl.create_default_context(capath=self.ca_bundle)
            return ssl.create_default_context(cafile=self.ca_bundle)
        except OSError as error:
            raise UsageError(f"the CA bundle {self.ca_bundle} cannot be read: {error.strerror}") from error


def proxies_for(url: str) -> dict[str, str]:
    """Return the proxies of the environment for a URL by scheme; none for this machine's loopback interface."""
    return {} if is_loopback(urlsplit(url).hostname or "") else dict(get_environ_proxies(url))


def is_loopback(host: str) -> bool:
    """Return whether a host name or address is this machine's."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
