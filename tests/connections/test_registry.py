"""Which addresses are known."""

from __future__ import annotations

import pytest

from untrusted_s3.addresses import Address, HostPort
from untrusted_s3.connections.registry import SCHEMES, SchemeRegistry
from untrusted_s3.connections.scheme import Scheme
from untrusted_s3.connections.tcp import TCP, TCPDialer, TCPListener
from untrusted_s3.errors import UsageError


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://192.0.2.1:22000", Address("tcp", HostPort("192.0.2.1", 22000))),
        ("tcp://192.0.2.1:22000/", Address("tcp", HostPort("192.0.2.1", 22000))),
        ("tcp4://nas:1", Address("tcp4", HostPort("nas", 1))),
        ("tcp6://[2001:db8::1]:65535", Address("tcp6", HostPort("2001:db8::1", 65_535))),
        ("tcp://:0", Address("tcp", HostPort("", 0))),
    ],
)
def test_addresses_of_known_schemes(text: str, address: Address) -> None:
    assert SCHEMES.parse(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "dynamic",
        "192.0.2.1:22000",
        "//192.0.2.1:22000",
        "tcp://",
        "tcp://192.0.2.1",
        "tcp://192.0.2.1:",
        "tcp://192.0.2.1:65536",
        "tcp://192.0.2.1:-1",
        "tcp://2001:db8::1:22000",
        "tcp://a/b:1",
    ],
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(UsageError, match="tcp://HOST:PORT") as error:
        SCHEMES.parse(text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("text", ["quic://192.0.2.1:22000", "relay://192.0.2.1:443", "tcp5://192.0.2.1:1", "TCP://h:1"])
def test_an_unknown_scheme_is_named(text: str) -> None:
    with pytest.raises(UsageError, match=text.partition(":")[0]):
        SCHEMES.parse(text)


def test_the_schemes_of_this_program() -> None:
    assert SCHEMES.names == ["tcp", "tcp4", "tcp6"]
    for name in SCHEMES.names:
        assert SCHEMES.get(name) == Scheme(TCPDialer, TCPListener)


def test_a_registry_knows_what_it_is_given() -> None:
    registry = SchemeRegistry({"other": TCP})
    assert registry.parse("other://h:1").scheme == "other"
    assert registry.get("other") is TCP
    with pytest.raises(UsageError, match="known are other"):
        registry.get("tcp")
