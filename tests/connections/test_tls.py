"""TLS between two devices in one process, and with peers that speak something else."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL

from untrusted_s3.connections.tls import MAX_RECORD_SIZE, TLSConnection, TLSRole, make_context
from untrusted_s3.errors import LocalProtocolError, TLSFailed
from untrusted_s3.identity.certificate import Identity, PrivateKey, generate

OURS = generate()
THEIRS = generate()

TLS_VERSIONS = pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION], ids=["TLS 1.2", "TLS 1.3"])


def other_context(
    identity: Identity | None = THEIRS, alpn: Sequence[bytes] = (b"bep/1.0",), version: int | None = None
) -> SSL.Context:
    """A peer with ideas of its own."""
    context = SSL.Context(SSL.TLS_METHOD)
    if identity is not None:
        context.use_certificate(identity.certificate)
        context.use_privatekey(identity.private_key)
    if alpn:
        context.set_alpn_protos(list(alpn))
    if version is not None:
        context.set_min_proto_version(version)
        context.set_max_proto_version(version)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    return context


def whole(connection: TLSConnection, data: bytes) -> list[bytes]:
    return connection.receive_data(data)


def byte_by_byte(connection: TLSConnection, data: bytes) -> list[bytes]:
    return [piece for byte in data for piece in connection.receive_data(bytes((byte,)))]


Feed = Callable[[TLSConnection, bytes], list[bytes]]


def connect(client: SSL.Context, server: SSL.Context, feed: Feed = whole) -> tuple[TLSConnection, TLSConnection]:
    """A dialed and an accepted connection, with all that the handshake sends delivered."""
    dialed, accepted = TLSConnection(client, TLSRole.CLIENT), TLSConnection(server, TLSRole.SERVER)
    while (flight := dialed.data_to_send()) or accepted.handshake_complete is False:
        assert flight, "the handshake stands still"
        assert feed(accepted, flight) == []
        assert feed(dialed, accepted.data_to_send()) == []
    return dialed, accepted


def connected(feed: Feed = whole) -> tuple[TLSConnection, TLSConnection]:
    return connect(make_context(OURS), make_context(THEIRS), feed)


@pytest.mark.parametrize("feed", [whole, byte_by_byte])
def test_both_sides_know_each_other_and_talk(feed: Feed) -> None:
    dialed, accepted = connected(feed)
    assert dialed.handshake_complete
    assert accepted.handshake_complete
    assert dialed.peer_device_id == THEIRS.device_id
    assert accepted.peer_device_id == OURS.device_id
    assert accepted.peer_certificate_der() == OURS.certificate.public_bytes(Encoding.DER)
    dialed.send_data(b"hello")
    assert feed(accepted, dialed.data_to_send()) == [b"hello"]
    accepted.send_data(b"hello ", bytearray(b"to "), memoryview(b"you"))
    assert feed(dialed, accepted.data_to_send()) == [b"hello to you"]
    assert dialed.data_to_send() == accepted.data_to_send() == b""


@TLS_VERSIONS
def test_both_tls_versions_are_spoken_on_both_sides(version: int) -> None:
    other = other_context(version=version)
    dialed, accepted = connect(other, make_context(OURS))
    assert accepted.peer_device_id == THEIRS.device_id
    dialed.send_data(b"x")
    assert accepted.receive_data(dialed.data_to_send()) == [b"x"]
    other_server = other_context(version=version)
    other_server.set_alpn_select_callback(lambda _, offered: offered[0])
    dialed, _ = connect(make_context(OURS), other_server)
    assert dialed.peer_device_id == THEIRS.device_id


def self_signed_like(identity: Identity, key: PrivateKey) -> Identity:
    certificate = identity.certificate
    builder = x509.CertificateBuilder(
        certificate.issuer,
        certificate.subject,
        key.public_key(),
        certificate.serial_number,
        certificate.not_valid_before_utc,
        certificate.not_valid_before_utc,  # long expired, which nobody asks for
    )
    return Identity(builder.sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()), key)


@pytest.mark.parametrize(
    "key", [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 3072)], ids=["Ed25519", "RSA"]
)
def test_any_certificate_is_accepted(key: PrivateKey) -> None:
    other = self_signed_like(THEIRS, key)
    dialed, accepted = connect(make_context(other), make_context(OURS))
    assert accepted.peer_device_id == other.device_id
    dialed, accepted = connect(make_context(OURS), make_context(other))
    assert dialed.peer_device_id == other.device_id


def test_a_peer_without_alpn_is_accepted() -> None:
    _, accepted = connect(other_context(alpn=()), make_context(OURS))
    assert accepted.peer_device_id == THEIRS.device_id


def connect_raw(client: SSL.Context, server: SSL.Context, session: SSL.Session | None = None) -> SSL.Connection:
    """A client of OpenSSL's own that is connected to us, perhaps with the session of an earlier connection."""
    dialed, accepted = SSL.Connection(client, None), TLSConnection(server, TLSRole.SERVER)
    dialed.set_connect_state()
    if session is not None:
        dialed.set_session(session)
    for _ in range(2):
        with contextlib.suppress(SSL.WantReadError):
            dialed.do_handshake()
        accepted.receive_data(dialed.bio_read(1 << 16))
        if answer := accepted.data_to_send():
            dialed.bio_write(answer)
    assert accepted.peer_device_id == THEIRS.device_id
    with contextlib.suppress(SSL.WantReadError):
        dialed.recv(1)  # takes the tickets of TLS 1.3
    return dialed


@TLS_VERSIONS
def test_a_session_is_not_resumed_but_made_anew(version: int) -> None:
    checked = []

    def check(connection: SSL.Connection, *_: object) -> bool:
        checked.append(connection)
        return True

    client, server = other_context(version=version), make_context(OURS)
    server.set_verify(server.get_verify_mode(), check)
    session = connect_raw(client, server).get_session()
    assert session is not None
    checked.clear()
    connect_raw(client, server, session)
    assert checked


def test_data_that_comes_with_the_end_of_the_handshake_is_kept() -> None:
    dialed = TLSConnection(make_context(OURS), TLSRole.CLIENT)
    accepted = TLSConnection(make_context(THEIRS), TLSRole.SERVER)
    accepted.receive_data(dialed.data_to_send())
    dialed.receive_data(accepted.data_to_send())
    dialed.send_data(b"at once")
    assert accepted.receive_data(dialed.data_to_send()) == [b"at once"]
    assert accepted.handshake_complete


def test_nothing_is_known_or_sent_before_the_handshake() -> None:
    connection = TLSConnection(make_context(OURS), TLSRole.SERVER)
    with pytest.raises(LocalProtocolError):
        connection.peer_certificate_der()
    with pytest.raises(LocalProtocolError):
        _ = connection.peer_device_id
    with pytest.raises(LocalProtocolError):
        connection.send_data(b"early")
    assert connection.data_to_send() == b""


def test_a_large_block_passes_in_arbitrary_pieces() -> None:
    dialed, accepted = connected()
    block = random.Random(1).randbytes((16 << 20) + 12345)
    dialed.send_data(b"header", block, memoryview(block)[5:], b"")
    wire = dialed.data_to_send()
    pieces: list[bytes] = []
    sizes = random.Random(2)
    position = 0
    while position < len(wire):
        size = sizes.choice([1, 1000, 65536, 1 << 20])
        pieces += accepted.receive_data(memoryview(wire)[position : position + size])
        position += size
    assert b"".join(pieces) == b"header" + block + block[5:]
    assert max(map(len, pieces)) <= MAX_RECORD_SIZE
    assert len(wire) < 2 * len(block) * 1.01  # full records


def test_small_buffers_share_a_record() -> None:
    dialed, accepted = connected()
    dialed.send_data(b"length", b"header", b"", b"length", b"message")
    assert accepted.receive_data(dialed.data_to_send()) == [b"lengthheaderlengthmessage"]


@pytest.mark.parametrize("role", TLSRole)
@pytest.mark.parametrize("feed", [whole, byte_by_byte])
@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", b"SSH-2.0-x\r\n", bytes(100), b"\x16" * 100, b"\x2e\xa7\xd9\x0b" * 9]
)
def test_garbage_is_called_so(role: TLSRole, feed: Feed, garbage: bytes) -> None:
    connection = TLSConnection(make_context(OURS), role)
    with pytest.raises(TLSFailed, match=r"does not speak TLS \(is this a Syncthing port\?\)"):
        feed(connection, garbage)
    assert connection.closed
    assert not connection.handshake_complete
    assert connection.receive_data(garbage) == []


@TLS_VERSIONS
def test_a_client_without_a_certificate_is_refused(version: int) -> None:
    dialed = TLSConnection(other_context(identity=None, version=version), TLSRole.CLIENT)
    accepted = TLSConnection(make_context(OURS), TLSRole.SERVER)
    accepted.receive_data(dialed.data_to_send())
    dialed.receive_data(accepted.data_to_send())
    with pytest.raises(TLSFailed, match="shows no certificate"):
        accepted.receive_data(dialed.data_to_send())
    assert not accepted.handshake_complete
    with pytest.raises(TLSFailed):  # and it is told
        dialed.receive_data(accepted.data_to_send())


def test_another_protocol_is_refused_on_both_sides() -> None:
    dialed = TLSConnection(other_context(alpn=[b"h2", b"http/1.1"]), TLSRole.CLIENT)
    accepted = TLSConnection(make_context(OURS), TLSRole.SERVER)
    with pytest.raises(TLSFailed, match=r"not Syncthing's protocol bep/1\.0"):
        accepted.receive_data(dialed.data_to_send())
    with pytest.raises(TLSFailed, match=r"not Syncthing's protocol bep/1\.0"):
        dialed.receive_data(accepted.data_to_send())
    # The context serves other connections; the refusal must not stick to it.
    accepted = TLSConnection(make_context(OURS), TLSRole.SERVER)
    dialed = TLSConnection(other_context(alpn=[b"h2", b"bep/1.0"]), TLSRole.CLIENT)
    accepted.receive_data(dialed.data_to_send())
    assert not accepted.closed


def test_an_old_tls_version_is_refused() -> None:
    dialed = TLSConnection(other_context(version=SSL.TLS1_1_VERSION), TLSRole.CLIENT)
    accepted = TLSConnection(make_context(OURS), TLSRole.SERVER)
    with pytest.raises(TLSFailed, match=r"versions before 1\.2"):
        accepted.receive_data(dialed.data_to_send())


def test_damaged_data_is_refused() -> None:
    dialed, accepted = connected()
    dialed.send_data(b"hello")
    wire = bytearray(dialed.data_to_send())
    wire[-1] ^= 1
    with pytest.raises(TLSFailed, match="damaged on its way"):
        accepted.receive_data(wire)
    assert accepted.closed
    with pytest.raises(TLSFailed):  # and it is told
        dialed.receive_data(accepted.data_to_send())


@TLS_VERSIONS
def test_a_closed_connection_is_no_truncated_one(version: int) -> None:
    dialed, accepted = connect(other_context(version=version), make_context(OURS))
    dialed.send_data(b"last words")
    dialed.close()
    assert dialed.closed
    assert accepted.receive_data(dialed.data_to_send()) == [b"last words"]
    assert accepted.closed
    accepted.receive_eof()
    with pytest.raises(LocalProtocolError):
        accepted.send_data(b"too late")
    accepted.close()
    assert accepted.data_to_send() != b""
    accepted.close()
    assert accepted.data_to_send() == b""


def test_a_truncated_connection_is_an_error() -> None:
    dialed, accepted = connected()
    dialed.send_data(b"first", bytes(MAX_RECORD_SIZE))
    assert accepted.receive_data(dialed.data_to_send()[:-1]) == [b"first"]
    with pytest.raises(TLSFailed, match="broke off"):
        accepted.receive_eof()
    assert accepted.closed


def test_an_end_during_the_handshake_is_an_error() -> None:
    dialed = TLSConnection(make_context(OURS), TLSRole.CLIENT)
    with pytest.raises(TLSFailed, match="during the handshake"):
        dialed.receive_eof()
    dialed.data_to_send()
    dialed.close()
    assert dialed.data_to_send() == b""


def test_what_comes_after_our_close_is_ignored() -> None:
    dialed, accepted = connected()
    accepted.close()
    dialed.send_data(b"crossing on the way")
    assert accepted.receive_data(dialed.data_to_send()) == []
    accepted.receive_eof()
    assert dialed.receive_data(accepted.data_to_send()) == []
    assert dialed.closed
