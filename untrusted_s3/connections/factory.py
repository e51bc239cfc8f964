"""Makes the transports of new connections."""

from __future__ import annotations

from OpenSSL import SSL

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.connections.admission import UnadmittedConnections
from untrusted_s3.connections.tls import TLSConnection, TLSRole
from untrusted_s3.connections.transport import BEPTransport, HandlerFactory
from untrusted_s3.settings import ConnectionSettings


class TransportFactory:
    """What the transports of all connections of a gateway have in common.

    `unadmitted` bounds the connections that others open; those that we dial do not count.
    """

    def __init__(
        self,
        context: SSL.Context,
        new_handler: HandlerFactory,
        settings: ConnectionSettings,
        unadmitted: UnadmittedConnections | None = None,
    ) -> None:
        self._context = context
        self._new_handler = new_handler
        self._settings = settings
        self._unadmitted = unadmitted

    def over_tls(self, scheme: str, role: TLSRole, *, dialed: bool, expected: DeviceID | None = None) -> BEPTransport:
        """Return the transport of a connection that speaks TLS over a plain byte stream.

        `scheme` is for the peer's address as logs and the status show it. `dialed` says whether we opened the
        connection. A peer with another device ID than `expected` is cut.
        """
        return BEPTransport(
            TLSConnection(self._context, role),
            self._new_handler,
            self._settings,
            scheme=scheme,
            dialed=dialed,
            unadmitted=None if dialed else self._unadmitted,
            expected=expected,
        )
