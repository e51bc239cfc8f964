"""Which devices may connect, which of them are connected, and who else has tried."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from untrusted_s3 import limits
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import DataError, StoreError, TooManyConnections
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.records import PeerRecord, read_peers, read_record, write_record
from untrusted_s3.sync.session import CLIENT_NAME, Refusal, Session

_logger = structlog.get_logger()


@dataclass(slots=True)
class Peer:
    """An accepted device: its record, its connection if there is one, what went wrong last, and, by folder ID, why
    folders of it are refused."""

    record: PeerRecord
    session: Session | None = None
    client: str = ""
    error: str | None = None
    refused: dict[str, Refusal] = field(default_factory=dict)


@dataclass(slots=True)
class UnknownDevice:
    """A device that tried to connect and is not accepted. `looked_up` is a monotonic time, `last_seen` since 1970."""

    looked_up: float
    name: str = ""
    address: str = ""
    last_seen: float = 0.0


class Peers:
    """The accepted devices of a store, by device ID, and the unknown ones that tried last."""

    def __init__(self, bucket: Bucket, own_id: DeviceID) -> None:
        self.accepted: dict[DeviceID, Peer] = {}
        self.unknown: OrderedDict[DeviceID, UnknownDevice] = OrderedDict()
        self._bucket = bucket
        self._own_id = own_id
        self._lookups = 0

    async def load(self) -> None:
        """Reads the records of all accepted devices, and ends the sessions of those that are not accepted any more or
        whose record has changed (they come back). Raises StoreError or DataError."""
        records = {record.device_id: record for record in await read_peers(self._bucket)}
        for device_id in self.accepted.keys() - records.keys():
            self._end_session(self.accepted.pop(device_id), "not accepted any more")
        for device_id, record in records.items():
            peer = self.accepted.setdefault(device_id, Peer(record))
            if peer.record != record:
                peer.record = record
                self._end_session(peer, "settings changed")

    def records(self) -> list[PeerRecord]:
        """The records of all accepted devices."""
        return [peer.record for peer in self.accepted.values()]

    def is_connected(self, device_id: DeviceID) -> bool:
        """Whether there is a session with this device."""
        peer = self.accepted.get(device_id)
        return peer is not None and peer.session is not None

    async def admit(self, session: Session) -> PeerRecord | None:
        """The record of the session's device if it is accepted.

        Where there is a session with the device already, this one has to be confirmed before it takes its place.
        """
        device_id = session.device_id
        assert device_id is not None and session.hello is not None
        peer = self.accepted.get(device_id) or await self._look_up(device_id)
        if peer is None:
            self._note_unknown(device_id, session.hello.device_name, session.transport.address)
            return None
        self.unknown.pop(device_id, None)
        if peer.session is None:
            self._begin_session(peer, session)
        else:
            asyncio.get_running_loop().call_later(limits.SECOND_CONNECTION_TIMEOUT, self._drop_unconfirmed, session)
        return peer.record

    def confirm(self, session: Session) -> PeerRecord | None:
        """The peer has sent its first cluster config over this connection. Its record, or None where the session was
        ended, because the device is not accepted any more or has a better connection.

        A Syncthing that has two connections by chance, because both sides dialed, drops one before it says anything
        over it; so one over which it speaks is in earnest, and an older one is dead whether we know it or not.
        """
        device_id = session.device_id
        assert device_id is not None and session.hello is not None
        peer = self.accepted.get(device_id)
        if peer is None:
            session.end("not accepted any more")
            return None
        if peer.session is not session:
            if peer.session is not None and self._is_better(peer.session, session):
                session.end("there is another connection already")
                return None
            self._end_session(peer, "replaced by a newer connection")
            self._begin_session(peer, session)
        return peer.record

    def _begin_session(self, peer: Peer, session: Session) -> None:
        assert session.hello is not None
        peer.session = session
        peer.client = f"{session.hello.client_name} {session.hello.client_version}"
        peer.error = None
        _logger.info(
            "peer connected",
            device=str(peer.record.device_id),
            address=session.transport.address,
            client=peer.client,
        )

    def _is_better(self, old: Session, new: Session) -> bool:
        """Whether of two connections between two gateways the old one stays.

        Both may have dialed at once, and would each close the connection that the other keeps. So while both are
        young, the one counts that was dialed by the device with the lower device ID.
        """
        assert new.hello is not None and new.device_id is not None
        if new.hello.client_name != CLIENT_NAME or old.transport.dialed == new.transport.dialed:
            return False
        peer_dials = new.device_id < self._own_id
        is_young = new.transport.opened - old.transport.opened < limits.SECOND_CONNECTION_TIMEOUT
        return is_young and old.transport.dialed != peer_dials

    def _drop_unconfirmed(self, session: Session) -> None:
        assert session.device_id is not None
        peer = self.accepted.get(session.device_id)
        if session.transport.is_open and (peer is None or peer.session is not session):
            session.end("there is another connection already")

    async def accept(self, device_id: DeviceID, name: str) -> None:
        """Accepts a device from now on. Raises StoreError."""
        record = PeerRecord(device_id, name)
        await write_record(self._bucket, layout.peer_key(device_id), record.to_json())
        self.accepted.setdefault(device_id, Peer(record))
        self.unknown.pop(device_id, None)

    def refused(self, device_id: DeviceID, refusals: Mapping[str, Refusal]) -> None:
        """Notes which of a peer's folders are refused, in place of what was noted before."""
        peer = self.accepted.get(device_id)
        if peer is None:
            return
        for folder_id, refusal in refusals.items():
            # Once: the peer comes again and again with the same.
            if peer.refused.get(folder_id) != refusal:
                _logger.error(
                    "folder refused",
                    folder=folder_id,
                    label=refusal.label,
                    device=str(device_id),
                    reason=refusal.reason,
                )
        peer.refused = dict(refusals)

    def ended(self, session: Session, error: Exception | None) -> None:
        """A session is over."""
        device_id = session.device_id
        peer = self.accepted.get(device_id) if device_id is not None else None
        if peer is not None and peer.session in (session, None):
            peer.session = None
            peer.error = str(error) if error is not None else None
        log = _logger.debug if isinstance(error, TooManyConnections) else _logger.info
        log(
            "connection ended",
            device=str(device_id) if device_id else None,
            address=session.transport.address,
            reason=str(error) if error else "closed",
        )

    def _end_session(self, peer: Peer, reason: str) -> None:
        if peer.session is not None:
            _logger.info("connection closed", device=str(peer.record.device_id), reason=reason)
            session, peer.session = peer.session, None
            session.end(reason)

    async def _look_up(self, device_id: DeviceID) -> Peer | None:
        """Reads the record of a device that we do not know; not again for some seconds after a vain try."""
        unknown = self.unknown.get(device_id)
        now = time.monotonic()
        if unknown is not None and now - unknown.looked_up < limits.UNKNOWN_DEVICE_LOOKUP_INTERVAL:
            return None
        if self._lookups >= limits.CONCURRENT_DEVICE_LOOKUPS:
            # Anybody can come with many devices; an accepted one is found by the next `load`.
            return None
        self._lookups += 1
        try:
            record = await read_record(self._bucket, layout.peer_key(device_id), PeerRecord.from_json)
        except (StoreError, DataError) as error:
            _logger.warning("cannot look up a device", device=str(device_id), error=str(error))
            return None
        finally:
            self._lookups -= 1
        if record is None:
            if unknown is not None:
                unknown.looked_up = now
            return None
        return self.accepted.setdefault(device_id, Peer(record))

    def _note_unknown(self, device_id: DeviceID, name: str, address: str) -> None:
        unknown = self.unknown.pop(device_id, None) or UnknownDevice(looked_up=time.monotonic())
        unknown.name = name
        unknown.address = address
        unknown.last_seen = time.time()
        self.unknown[device_id] = unknown
        while len(self.unknown) > limits.UNKNOWN_DEVICES_SHOWN:
            self.unknown.popitem(last=False)
        _logger.debug("unknown device refused", device=str(device_id), name=name, address=address)
