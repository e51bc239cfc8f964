"""TLS as Syncthing devices speak it, without I/O.

Both sides show a self-signed certificate, and no chain is checked. The device ID of the certificate identifies the
peer; the caller must compare it with the devices it knows. The standard `ssl` module cannot accept a client certificate
of an unknown issuer, hence pyOpenSSL (Syncthing v2.1.3 lib/connections/service.go; BEP specification, "Transport and
Authentication").
"""

from __future__ import annotations

import enum

from OpenSSL import SSL
from OpenSSL.crypto import FILETYPE_ASN1, X509, dump_certificate

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import LocalProtocolError, TLSFailed
from untrusted_s3.identity.certificate import Identity

ALPN_PROTOCOL = b"bep/1.0"

MAX_RECORD_SIZE = 1 << 14  # plaintext bytes in one TLS record (RFC 8446, 5.1)

# OpenSSL's memory buffers never shrink, so large data passes through them in slices. This size is also the fastest.
_SLICE_SIZE = 1 << 17
_ENCRYPTED_SLICE_SIZE = _SLICE_SIZE + 64 * (_SLICE_SIZE // MAX_RECORD_SIZE + 1)

# Content types that can open a TLS stream: alert and handshake (RFC 8446, 5.1)
_OPENING_CONTENT_TYPES = (21, 22)

_NOT_TLS = "the peer does not speak TLS (is this a Syncthing port?)"
_NO_CERTIFICATE = "the peer shows no certificate, so it has no device ID (is it a Syncthing device?)"
_NOT_BEP = "the peer speaks TLS, but not Syncthing's protocol bep/1.0 (is this a Syncthing port?)"
_TRUNCATED = "the connection broke off before TLS was closed"

# OpenSSL's reasons, and what they mean here
_REASONS = {
    "wrong version number": _NOT_TLS,
    "packet length too long": _NOT_TLS,
    "peer did not return a certificate": _NO_CERTIFICATE,
    "no application protocol": _NOT_BEP,
    "tlsv1 alert no application protocol": _NOT_BEP,
    "unsupported protocol": "the peer offers only TLS versions before 1.2",
    "tlsv1 alert protocol version": "the peer refuses TLS 1.2 and 1.3",
    "bad certificate": "the peer refuses our certificate",
    "decryption failed or bad record mac": "data was damaged on its way",
}


class TLSRole(enum.Enum):
    """A side of a TLS connection."""

    CLIENT = enum.auto()
    SERVER = enum.auto()


def make_context(identity: Identity) -> SSL.Context:
    """Return the settings of all TLS connections of `identity`, for both roles."""
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    # Sessions are never resumed. Syncthing tries it, and OpenSSL fails it when client certificates are requested and no
    # session ID context is set. TLS 1.3 still sends tickets, but for sessions that are not kept.
    context.set_options(SSL.OP_NO_TICKET | SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.use_certificate(identity.certificate)
    context.use_privatekey(identity.private_key)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _accept_any_certificate)
    context.set_alpn_protos([ALPN_PROTOCOL])
    context.set_alpn_select_callback(_select_protocol)
    return context


def _accept_any_certificate(connection: SSL.Connection, certificate: X509, error: int, depth: int, ok: int) -> bool:
    return True


def _select_protocol(connection: SSL.Connection, offered: list[bytes]) -> bytes:
    if ALPN_PROTOCOL not in offered:
        raise TLSFailed(_NOT_BEP)
    return ALPN_PROTOCOL


class TLSConnection:
    """One side of a TLS connection: encrypted bytes in and out, no socket.

    After each call, `data_to_send` returns what has to go to the peer. After an error this is the alert that tells the
    peer why.
    """

    def __init__(self, context: SSL.Context, role: TLSRole) -> None:
        self._connection = SSL.Connection(context, None)
        self._encrypted: list[bytes] = []
        self._opening_seen = False
        self._handshake_complete = False
        self._peer_certificate = b""
        self._closed = False
        if role is TLSRole.SERVER:
            self._connection.set_accept_state()
        else:
            self._connection.set_connect_state()
            self._shake_hands()

    @property
    def handshake_complete(self) -> bool:
        """Whether the peer is known and data may be sent."""
        return self._handshake_complete

    @property
    def closed(self) -> bool:
        """Whether no more data can pass: one side has closed TLS, or it failed."""
        return self._closed

    @property
    def peer_device_id(self) -> DeviceID:
        """The device ID of the peer. Raises LocalProtocolError before the handshake is complete."""
        return DeviceID.from_certificate(self.peer_certificate_der())

    def peer_certificate_der(self) -> bytes:
        """Return the peer's certificate, DER. Raises LocalProtocolError before the handshake is complete."""
        if not self._handshake_complete:
            raise LocalProtocolError("the peer's certificate is not known before the TLS handshake is complete")
        return self._peer_certificate

    def receive_data(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Take encrypted bytes from the peer; return the decrypted ones, in pieces of at most 16 KiB.

        Ignores bytes that come after the connection is `closed`. Raises TLSFailed.
        """
        if self._closed or not len(data):
            return []
        if not self._opening_seen:
            self._opening_seen = True
            if data[0] not in _OPENING_CONTENT_TYPES:
                self._closed = True
                raise TLSFailed(_NOT_TLS)
        self._connection.bio_write(data)
        if not self._handshake_complete:
            self._shake_hands()
            if not self._handshake_complete:
                return []
        decrypted: list[bytes] = []
        receive = self._connection.recv
        try:
            while True:
                decrypted.append(receive(MAX_RECORD_SIZE))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self._closed = True
        except SSL.Error as error:
            raise self._failure(error) from error
        return decrypted

    def receive_eof(self) -> None:
        """Note that the peer's side of the stream has ended. Raises TLSFailed unless TLS was closed before."""
        if not self._closed:
            self._closed = True
            raise TLSFailed(_TRUNCATED if self._handshake_complete else f"{_TRUNCATED}, during the handshake")

    def send_data(self, *buffers: bytes | bytearray | memoryview) -> None:
        """Encrypt the bytes of all buffers, one after the other.

        Raises LocalProtocolError before the handshake is complete and when the connection is `closed`.
        """
        if not self._handshake_complete or self._closed:
            raise LocalProtocolError("TLS is not open: no data can be sent")
        if len(buffers) > 1 and sum(map(len, buffers)) <= MAX_RECORD_SIZE:
            buffers = (b"".join(buffers),)  # one record instead of several
        try:
            for buffer in buffers:
                if len(buffer) <= _SLICE_SIZE:
                    self._connection.sendall(buffer)
                    self._take_encrypted()
                    continue
                view = memoryview(buffer)
                for start in range(0, len(view), _SLICE_SIZE):
                    self._connection.sendall(view[start : start + _SLICE_SIZE])
                    self._take_encrypted()
        except SSL.Error as error:
            raise self._failure(error) from error

    def data_to_send(self) -> bytes:
        """Return the bytes that have to go to the peer now."""
        self._take_encrypted()
        data = b"".join(self._encrypted)
        self._encrypted.clear()
        return data

    def close(self) -> None:
        """Tell the peer that nothing more follows (close_notify). A second call does nothing."""
        if self._handshake_complete and not self._connection.get_shutdown() & SSL.SENT_SHUTDOWN:
            try:
                self._connection.shutdown()
            except SSL.Error:  # TLS has failed before, and the alert is out
                pass
        self._closed = True

    def _shake_hands(self) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            return
        except TLSFailed:  # raised by _select_protocol
            self._closed = True
            raise
        except SSL.Error as error:
            raise self._failure(error) from error
        certificate = self._connection.get_peer_certificate()
        if certificate is None:
            self._closed = True
            raise TLSFailed(_NO_CERTIFICATE)
        self._peer_certificate = dump_certificate(FILETYPE_ASN1, certificate)
        self._handshake_complete = True

    def _take_encrypted(self) -> None:
        try:
            while True:
                piece = self._connection.bio_read(_ENCRYPTED_SLICE_SIZE)
                self._encrypted.append(piece)
                if len(piece) < _ENCRYPTED_SLICE_SIZE:
                    return
        except SSL.WantReadError:
            return

    def _failure(self, error: SSL.Error) -> TLSFailed:
        self._closed = True
        # A list of (library, function, reason), the deepest cause first; may be empty
        causes = error.args[0] if error.args and isinstance(error.args[0], list) else []
        reasons = [reason for *_, reason in causes]
        for reason in reasons:
            for known, meaning in _REASONS.items():
                if known in reason:
                    return TLSFailed(meaning)
        return TLSFailed(f"TLS failed: {', '.join(reasons) or 'no reason given'}")
