"""Which devices may connect, which of them are connected, and which others have tried."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.connections.reasons import TOO_MANY_CONNECTIONS
from untrusted_s3.errors import DataError, StoreError, TooManyConnections
from untrusted_s3.gateway.pauses import is_due
from untrusted_s3.problem import Problem
from untrusted_s3.settings import Settings
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.peer_records import PeerReader
from untrusted_s3.store.records import PeerRecord, create_or_read, read_record
from untrusted_s3.sync.cluster_configs_out import Refusal
from untrusted_s3.sync.refused_index import RefusedIndex
from untrusted_s3.sync.session import CLIENT_NAME, Session

# A peer that cannot decrypt an index closes the connection as soon as it has read it.
_INDEX_TAKEN_AFTER = 120.0
_SUSPECTS_LOGGED = 5
_logger = structlog.get_logger()


@dataclass(slots=True)
class Peer:
    """An accepted device.

    Attributes:
        record: Its record in the store.
        session: Its connection, if there is one.
        client: The name and version of its program, as it said in its last Hello.
        error: Why its last connection ended, unless that was in order.
        refused: Why folders of it are refused, by folder ID.
        refused_indexes: Of which of our folders it cannot decrypt the index, by folder ID.
        candidates: Further connections, which the peer has not used yet. One of them may replace the session.
    """

    record: PeerRecord
    session: Session | None = None
    client: str = ""
    error: str | None = None
    refused: dict[str, Refusal] = field(default_factory=dict)
    refused_indexes: dict[str, RefusedIndex] = field(default_factory=dict)
    candidates: list[Session] = field(default_factory=list)


@dataclass(slots=True)
class UnknownDevice:
    """A device that tried to connect and is not accepted.

    Attributes:
        looked_up: When the store was last asked for its record, by the monotonic clock.
        name: The name in its Hello.
        address: Where it connected from.
        last_seen: When it connected last, in seconds since 1970.
    """

    looked_up: float
    name: str = ""
    address: str = ""
    last_seen: float = 0.0


class Peers:
    """The accepted devices of a store, by device ID, and the unknown devices that tried to connect last.

    `clock` gives seconds and never goes back.

    Attributes:
        accepted: The accepted devices.
        unknown: The unknown devices that tried to connect last.
        unreadable: What lies among the records of accepted devices and cannot be read.
    """

    def __init__(
        self, bucket: Bucket, own_id: DeviceID, settings: Settings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.accepted: dict[DeviceID, Peer] = {}
        self.unknown: OrderedDict[DeviceID, UnknownDevice] = OrderedDict()
        self._bucket = bucket
        self._own_id = own_id
        self._reader = PeerReader(bucket, settings.upkeep.peers_lifetime)
        self._settings = settings.upkeep
        self._second_connection_timeout = settings.sync.second_connection_timeout
        self._clock = clock
        self._lookups = 0
        self._accepted_lately: set[DeviceID] = set()
        self.unreadable: Sequence[Problem] = ()

    # The records

    async def run(self) -> None:
        """Read the accepted devices now and then, until cancelled.

        If they have not changed for a while, they are listed less often, and in between those that are connected are
        read again.
        """
        settings, changed, listed = self._settings, _loop_time(), float("-inf")
        while True:
            now, before = _loop_time(), self.records()
            pause = settings.idle_peers_interval if now - changed >= settings.idle_peers_after else 0.0
            try:
                if is_due(listed, pause, settings.peers_interval):
                    listed = now
                    await self.load()
                else:
                    await self._look_at_connected()
            except (StoreError, DataError) as error:
                _logger.warning("accepted devices not read", error=str(error))
            if self.records() != before:
                changed = _loop_time()
            await asyncio.sleep(settings.peers_interval)

    async def _look_at_connected(self) -> None:
        """Do for the connected devices what `load` does for all. Raises StoreError."""
        self._accepted_lately.clear()
        for device_id in [device_id for device_id in self.accepted if self.is_connected(device_id)]:
            try:
                record = await read_record(self._bucket, layout.peer_key(device_id), PeerRecord.from_json)
            except DataError:
                continue  # it stays as it is
            peer = self.accepted.get(device_id)
            if peer is None or (record is not None and record.device_id != device_id):
                continue
            if record is None:
                if device_id not in self._accepted_lately:
                    self._end_session(self.accepted.pop(device_id), "not accepted any more")
            elif record != peer.record:
                peer.record = record
                self._end_session(peer, "settings changed")

    async def load(self) -> None:
        """Read the records of all accepted devices.

        Ends the sessions of devices that are no longer accepted or whose record has changed; the latter come back.
        A device whose record cannot be read stays as it is. Raises StoreError.
        """
        self._accepted_lately.clear()
        found = await self._reader.read()
        records = {record.device_id: record for record in found}
        unreadable = {problem.path: problem.reason for problem in found.unreadable}
        for key in unreadable.keys() - {problem.path for problem in self.unreadable}:
            _logger.error("accepted device not readable", key=key, reason=unreadable[key])
        self.unreadable = list(found.unreadable)
        for device_id in self.accepted.keys() - records.keys():
            # One that was accepted while the records were listed need not be among them.
            if layout.peer_key(device_id) not in unreadable and device_id not in self._accepted_lately:
                self._end_session(self.accepted.pop(device_id), "not accepted any more")
        for peer in self.accepted.values():
            if peer.session is not None and time.monotonic() - peer.session.transport.opened > _INDEX_TAKEN_AFTER:
                peer.refused_indexes.clear()
        for device_id, record in records.items():
            peer = self.accepted.setdefault(device_id, Peer(record))
            if peer.record != record:
                peer.record = record
                self._end_session(peer, "settings changed")

    async def accept(self, device_id: DeviceID, name: str) -> None:
        """Accept a device from now on. One that is accepted already stays as it is. Raises StoreError or DataError."""
        key = layout.peer_key(device_id)
        record = await create_or_read(self._bucket, key, PeerRecord(device_id, name).to_json(), PeerRecord.from_json)
        self._accepted_lately.add(device_id)
        self.accepted.setdefault(device_id, Peer(record))
        self.unknown.pop(device_id, None)

    def records(self) -> list[PeerRecord]:
        """Return the records of all accepted devices."""
        return [peer.record for peer in self.accepted.values()]

    def is_connected(self, device_id: DeviceID) -> bool:
        """Whether this device has a session."""
        peer = self.accepted.get(device_id)
        return peer is not None and peer.session is not None

    # Sessions

    async def admit(self, session: Session) -> PeerRecord | None:
        """Return the record of the session's device, or None if the device is not accepted.

        If the device has a session already, the new one has to be confirmed before it replaces the old one. Of the
        connections that are not confirmed, the oldest is cut when there are too many.
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
            self._add_candidate(peer, session)
        return peer.record

    def confirm(self, session: Session) -> PeerRecord | None:
        """Note that the peer has sent its first cluster config over this connection, and return its record.

        Returns None if the session was ended instead, because the device is no longer accepted or has a better
        connection. When both sides have dialed, Syncthing drops one of the two connections before it says anything
        over it. So the connection over which it speaks is the one it keeps, and an older one is dead.
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
            if session in peer.candidates:
                peer.candidates.remove(session)
            self._end_session(peer, "replaced by a newer connection")
            self._begin_session(peer, session)
        return peer.record

    def refused(self, device_id: DeviceID, refusals: Mapping[str, Refusal]) -> None:
        """Note which of a peer's folders are refused. Replaces what was noted before."""
        peer = self.accepted.get(device_id)
        if peer is None:
            return
        for folder_id, refusal in refusals.items():
            # Logged once: the peer repeats the offer with every connection.
            if peer.refused.get(folder_id) != refusal:
                _logger.error(
                    "folder refused",
                    folder=folder_id,
                    label=refusal.label,
                    device=str(device_id),
                    reason=refusal.reason,
                )
        peer.refused = dict(refusals)

    def index_refused(self, device_id: DeviceID, folder_id: str, refused: RefusedIndex) -> None:
        """Note that a peer cannot decrypt our index of a folder. That is forgotten when a connection lasts a while."""
        peer = self.accepted.get(device_id)
        if peer is None:
            return
        # Logged once: the peer comes again and again.
        if folder_id not in peer.refused_indexes:
            _logger.error(
                "index refused, an entry does not decrypt",
                device=str(device_id),
                folder=folder_id,
                reason=refused.reason,
                entries_from=[str(suspect.device_id) for suspect in refused.suspects[:_SUSPECTS_LOGGED]],
            )
        peer.refused_indexes[folder_id] = refused

    def ended(self, session: Session, error: Exception | None) -> None:
        """Note that a session's connection has ended."""
        device_id = session.device_id
        peer = self.accepted.get(device_id) if device_id is not None else None
        if peer is not None and session in peer.candidates:
            peer.candidates.remove(session)
        if peer is not None and peer.session in (session, None):
            peer.session = None
            peer.error = str(error) if error is not None else None
        device, address = str(device_id) if device_id else None, session.transport.address
        reason = str(error) if error else "closed"
        if isinstance(error, TooManyConnections):
            _logger.debug("connection ended", device=device, address=address, reason=reason)
        else:
            _logger.info("connection ended", device=device, address=address, reason=reason)

    def _add_candidate(self, peer: Peer, session: Session) -> None:
        peer.candidates.append(session)
        if len(peer.candidates) > self._settings.candidate_connections:
            oldest = peer.candidates.pop(0)
            _logger.debug("connection closed, a device has too many", device=str(peer.record.device_id))
            oldest.end(TOO_MANY_CONNECTIONS)
            # At once: a peer that does not read could collect closing connections.
            oldest.transport.abort()
        asyncio.get_running_loop().call_later(self._second_connection_timeout, self._drop_unconfirmed, session)

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

    def _end_session(self, peer: Peer, reason: str) -> None:
        if peer.session is not None:
            _logger.info("connection closed", device=str(peer.record.device_id), reason=reason)
            session, peer.session = peer.session, None
            session.end(reason)

    def _is_better(self, old: Session, new: Session) -> bool:
        """Whether the old one of two connections between two gateways stays.

        If both gateways have dialed at once, each would close the connection that the other one keeps. So while both
        connections are young, the one stays that the gateway with the lower device ID has dialed.
        """
        assert new.hello is not None and new.device_id is not None
        if new.hello.client_name != CLIENT_NAME or old.transport.dialed == new.transport.dialed:
            return False
        is_young = new.transport.opened - old.transport.opened < self._second_connection_timeout
        return is_young and old.transport.dialed == (self._own_id < new.device_id)

    def _drop_unconfirmed(self, session: Session) -> None:
        assert session.device_id is not None
        peer = self.accepted.get(session.device_id)
        if session.transport.is_open and (peer is None or peer.session is not session):
            session.end("there is another connection already")

    # Unknown devices

    async def _look_up(self, device_id: DeviceID) -> Peer | None:
        """Read the record of a device that is not known to be accepted, but not for every connection it makes."""
        unknown = self.unknown.get(device_id)
        now = self._clock()
        if unknown is not None and now - unknown.looked_up < self._settings.lookup_interval:
            return None
        if self._lookups >= self._settings.concurrent_lookups:
            # Anybody can connect with many device IDs. An accepted device is found by the next `load`.
            return None
        self._lookups += 1
        try:
            record = await read_record(self._bucket, layout.peer_key(device_id), PeerRecord.from_json)
        except (StoreError, DataError) as error:
            _logger.warning("device not looked up", device=str(device_id), error=str(error))
            return None
        finally:
            self._lookups -= 1
        if record is None:
            if unknown is not None:
                unknown.looked_up = now
            return None
        self._accepted_lately.add(device_id)
        return self.accepted.setdefault(device_id, Peer(record))

    def _note_unknown(self, device_id: DeviceID, name: str, address: str) -> None:
        unknown = self.unknown.pop(device_id, None) or UnknownDevice(looked_up=self._clock())
        unknown.name = name
        unknown.address = address
        unknown.last_seen = time.time()
        self.unknown[device_id] = unknown
        while len(self.unknown) > self._settings.unknown_devices_shown:
            self.unknown.popitem(last=False)
        _logger.debug("unknown device refused", device=str(device_id), name=name, address=address)


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
