"""Many scripted devices in a process of their own, so that what they cost is not counted for the gateway."""

from __future__ import annotations

import multiprocessing
import random
import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Self

from bench.filled_store import made_up_file
from bench.scripted_peer import Listener, RawPeer
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.identity.certificate import Identity, parse
from untrusted_s3.store.records import FolderRecord

_FILES_OF_MESSAGE = 1000
_POLL_SECONDS = 5.0


@dataclass
class Address:
    """Where a gateway listens, and its device ID."""

    listen_address: str
    device_id: str


class ManyPeer(RawPeer):
    """A device that shares many folders, announces made-up files and gives their blocks, if it is told to.

    Attributes:
        heard: When it heard of each name, by the monotonic clock.
    """

    def __init__(self, gateway: Listener, own: Identity, gateway_id: DeviceID, folders: Sequence[FolderRecord]) -> None:
        super().__init__(gateway, own)
        self.heard: dict[str, float] = {}
        self._gives = True
        self._sequences: dict[str, int] = {}
        self.wait_accepted()
        self._events.clear()
        shared = []
        for folder in folders:
            theirs = pb.Device(id=gateway_id.raw, encryption_password_token=folder.token)
            shared.append(pb.Folder(id=folder.folder_id, devices=[theirs, pb.Device(id=own.device_id.raw, index_id=1)]))
        self.send(self._bep.cluster_config(shared, time.monotonic()))

    def fileno(self) -> int:
        """Return the file descriptor of the connection."""
        return self._socket.fileno()

    def announce(self, folder: str, infos: Sequence[FileInfo], *, gives: bool = True) -> None:
        """Announce files. With `gives`, their blocks are given: zeros, which nobody here can tell from others."""
        self._gives = gives
        for start in range(0, len(infos), _FILES_OF_MESSAGE):
            before = self._sequences.get(folder, 0)
            files = []
            for number, info in enumerate(infos[start : start + _FILES_OF_MESSAGE], before + 1):
                info.message.sequence = number
                info.message.version.counters[0].id = 1  # as of all encrypted file infos
                files.append(info.message.SerializeToString())
            last = self._sequences[folder] = before + len(files)
            update = before > 0
            self.send(
                self._bep.index(folder, files, update=update, prev_sequence=before, last_sequence=last, now=_now())
            )

    def receive(self) -> None:
        """Take what has come, and answer it."""
        if not self._exchange():
            raise ConnectionError("the gateway closed the connection")
        for event in self._events:
            match event:
                case events.RequestReceived() if self._gives:
                    self.send(b"".join(self._bep.response(event.id, bytes(event.size), pb.NO_ERROR, _now())))
                case events.IndexReceived():
                    self.heard.update((pb.FileInfo.FromString(raw).name, _now()) for raw in event.files)
        self._events.clear()

    def keep_alive(self) -> None:
        """Send a Ping if one is due."""
        if ping := self._bep.handle_timer(_now()):
            self.send(ping)


@dataclass
class _Peers:
    """All devices, in their process."""

    peers: list[ManyPeer]
    chance: random.Random = field(default_factory=lambda: random.Random(1))

    def serve(self, commands: Connection) -> None:
        """Do what is asked for until the other side ends."""
        readable = select.poll()
        readable.register(commands, select.POLLIN)
        by_number = {peer.fileno(): peer for peer in self.peers}
        for number in by_number:
            readable.register(number, select.POLLIN)
        looked = _now()
        while True:
            for number, _ in readable.poll(1000 * _POLL_SECONDS):
                if number in by_number:
                    by_number[number].receive()
                    continue
                try:
                    name, *arguments = commands.recv()
                except EOFError:
                    return
                commands.send(getattr(self, name)(*arguments))
            if _now() - looked >= _POLL_SECONDS:
                looked = _now()
                for peer in self.peers:
                    peer.keep_alive()

    def announce(self, peer: int, folder: str, count: int, gives: bool) -> list[str]:
        """Have a device announce so many files; return their names."""
        infos = [made_up_file(self.chance) for _ in range(count)]
        self.peers[peer].announce(folder, infos, gives=gives)
        return [info.name for info in infos]

    def heard(self, peer: int, name: str) -> float | None:
        """Return when a device heard of a name."""
        return self.peers[peer].heard.get(name)


class ManyPeers:
    """The process of many devices; a context manager."""

    def __init__(
        self, gateway: Address, identities: Sequence[Identity], shares: Sequence[Sequence[FolderRecord]]
    ) -> None:
        """Connect the devices, each of which shares its folders, and return when the gateway has admitted them."""
        context = multiprocessing.get_context("spawn")
        self._commands, theirs = context.Pipe()
        pems = [(identity.certificate_pem, identity.private_key_pem) for identity in identities]
        self._process = context.Process(target=_run, args=(gateway, pems, shares, theirs), daemon=True)
        self._process.start()
        theirs.close()
        assert self._commands.recv() == "connected"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._commands.close()
        self._process.join()

    def announce(self, peer: int, folder: str, count: int, *, gives: bool = True) -> list[str]:
        """Have a device announce so many files in a folder; return their names."""
        found: list[str] = self._ask("announce", peer, folder, count, gives)
        return found

    def heard(self, peer: int, name: str) -> float | None:
        """Return when a device heard of a name, by the monotonic clock; None if it has not yet."""
        found: float | None = self._ask("heard", peer, name)
        return found

    def _ask(self, name: str, *arguments: object) -> Any:
        self._commands.send((name, *arguments))
        return self._commands.recv()


def _run(
    gateway: Address,
    pems: Sequence[tuple[bytes, bytes]],
    shares: Sequence[Sequence[FolderRecord]],
    commands: Connection,
) -> None:
    gateway_id = DeviceID.parse(gateway.device_id)
    identities = [parse(*pem, ("certificate", "key"), "") for pem in pems]
    peers = [ManyPeer(gateway, one, gateway_id, own) for one, own in zip(identities, shares, strict=True)]
    commands.send("connected")
    _Peers(peers).serve(commands)


_now: Callable[[], float] = time.monotonic
