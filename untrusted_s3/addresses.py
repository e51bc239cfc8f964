"""Parse HOST:PORT and addresses with a scheme such as tcp://HOST:PORT."""

from __future__ import annotations

from dataclasses import dataclass

from untrusted_s3.errors import UsageError

_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host, without brackets and perhaps empty, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Address:
    """An address with a scheme, such as tcp://[::1]:22000."""

    scheme: str
    endpoint: HostPort

    def __str__(self) -> str:
        return f"{self.scheme}://{self.endpoint}"


def parse_host_port(text: str) -> HostPort:
    """Parse HOST:PORT or [HOST]:PORT; the host may be empty. Raises UsageError, whose message begins with the text."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise UsageError(f"{text!r} is not of the form HOST:PORT")
    if (":" in host or "/" in host) and not bracketed:
        raise UsageError(f"{text!r}: an IPv6 address needs brackets, as in [::1]:{port}")
    return HostPort(host.strip("[]"), int(port))


def parse_address(text: str) -> Address:
    """Parse SCHEME://HOST:PORT; a slash may follow. Raises UsageError, whose message begins with the text."""
    scheme, separator, rest = text.partition("://")
    if not separator or not scheme:
        raise UsageError(f"{text!r} is not of the form SCHEME://HOST:PORT, as in tcp://192.0.2.1:22000")
    try:
        return Address(scheme, parse_host_port(rest.removesuffix("/")))
    except UsageError as error:
        raise UsageError(f"{text!r}: {error}") from None
