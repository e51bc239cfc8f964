"""Dials addresses of any known scheme."""

from __future__ import annotations

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.connections.factory import TransportFactory
from untrusted_s3.connections.registry import SCHEMES, SchemeRegistry
from untrusted_s3.connections.scheme import SchemeDialer
from untrusted_s3.errors import DialFailed, UsageError
from untrusted_s3.settings import ConnectionSettings


class Dialer:
    """One dialer for each scheme, made when an address of the scheme is first dialed."""

    def __init__(
        self, transports: TransportFactory, settings: ConnectionSettings, schemes: SchemeRegistry = SCHEMES
    ) -> None:
        self._transports = transports
        self._settings = settings
        self._schemes = schemes
        self._dialers: dict[str, SchemeDialer] = {}

    async def dial(self, address: str, device_id: DeviceID | None = None) -> None:
        """Connect to an address and return once the peer has proven that it is `device_id`, or any device if None.

        Raises DialFailed, also for an address that has an unknown scheme or makes no sense: it may come from a newer
        program.
        """
        try:
            parsed = self._schemes.parse(address)
        except UsageError as error:
            raise DialFailed(str(error)) from None
        dialer = self._dialers.get(parsed.scheme)
        if dialer is None:
            dialer = self._schemes.get(parsed.scheme).dialer(self._transports, self._settings)
            self._dialers[parsed.scheme] = dialer
        await dialer.dial(parsed, device_id)
