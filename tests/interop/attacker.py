"""An untrusted device that attacks a folder.

It takes the gateway's share, as a native untrusted device does, learns the encrypted names from the index, and
announces what it likes. It does not have the password.
"""

from __future__ import annotations

import base64
import random
import time
from dataclasses import dataclass

from bench.scripted_peer import RawPeer
from tests.peers.gateway import Gateway
from tests.waiting import PATIENCE
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.constants import TOKEN_SIZE
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.framing import encode_frame
from untrusted_s3.identity.certificate import Identity, generate

_LARGEST_VERSION = 2**63 - 1


@dataclass(frozen=True)
class Forged:
    """What an attack has announced, as encrypted names.

    Attributes:
        deletions: Files announced as deleted, one of them with the largest version that there is.
        directories: Made-up directories.
        never_served: Files of which a newer version was announced that nobody has.
    """

    deletions: list[str]
    directories: list[str]
    never_served: list[str]


class Attacker(RawPeer):
    """An untrusted device that has been accepted, with the folder offered to it (`accepted`)."""

    def __init__(self, gateway: Gateway, identity: Identity, folder: str) -> None:
        """Connect, and take the folder that the gateway offers."""
        self.device_id = identity.device_id
        self.known: dict[str, pb.FileInfo] = {}
        super().__init__(gateway, identity)
        self.wait_accepted()
        self._gateway_id = DeviceID.parse(gateway.device_id)
        self._folder = folder
        self._index_id = random.getrandbits(63) | 1
        self._sequence = 0
        self._seed = random.Random(self.device_id.raw)
        self._taken = 0
        self.send(encode_frame(pb.CLUSTER_CONFIG, b""))  # without one, the gateway offers nothing
        token = self._wait_token()
        gateway_entry = pb.Device(id=self._gateway_id.raw)
        own = pb.Device(id=self.device_id.raw, index_id=self._index_id, encryption_password_token=token)
        config = pb.ClusterConfig(folders=[pb.Folder(id=folder, devices=[gateway_entry, own])])
        self.send(encode_frame(pb.CLUSTER_CONFIG, config.SerializeToString()))

    def wait_index(self, entries: int) -> None:
        """Wait until the gateway's index has come, with this number of names."""
        deadline = time.monotonic() + PATIENCE
        while len(self.known) < entries:
            assert time.monotonic() < deadline, f"{len(self.known)} of {entries} names have come"
            self.pump()

    def attack(self, first: int) -> Forged:
        """Announce deletions with garbage inside, a directory of 200 random bytes, and versions that nobody has.

        `first` is the number of the first of six files, in the order of encrypted names.
        """
        files = sorted(name for name, info in self.known.items() if info.type == pb.FILE and not info.deleted)
        deletions, never_served = files[first : first + 4], files[first + 4 : first + 6]
        directories = [self._made_up_name()]
        messages = [self._deletion(name) for name in deletions]
        messages[-1].version.counters[0].value = _LARGEST_VERSION
        messages += [self._directory(name) for name in directories]
        messages += [self._never_served(name) for name in never_served]
        self.announce(*messages)
        return Forged(deletions, directories, never_served)

    def announce(self, *messages: pb.FileInfo) -> None:
        """Send file infos as an index update."""
        for message in messages:
            self._sequence += 1
            message.sequence = self._sequence
        update = pb.Index(folder=self._folder, files=[message.SerializeToString() for message in messages])
        self.send(encode_frame(pb.INDEX_UPDATE, update.SerializeToString()))

    def pump(self) -> None:
        """Receive for a moment."""
        self.receive_for(0.05)
        for event in self._events[self._taken :]:
            if isinstance(event, events.IndexReceived):
                for raw in event.files:
                    info = pb.FileInfo.FromString(raw)
                    self.known[info.name] = info
        self._taken = len(self._events)

    def _wait_token(self) -> bytes:
        deadline = time.monotonic() + PATIENCE
        while True:
            for event in self._events:
                for folder in event.folders if isinstance(event, events.ClusterConfigReceived) else ():
                    for device in folder.devices:
                        if folder.id == self._folder and device.id == self._gateway_id.raw:
                            return device.encryption_password_token
            assert time.monotonic() < deadline, "the gateway offers no folder"
            self.pump()

    def _garbage(self) -> bytes:
        return self._seed.randbytes(200)

    def _deletion(self, name: str) -> pb.FileInfo:
        return self._message(name, pb.FILE, deleted=True)

    def _directory(self, name: str) -> pb.FileInfo:
        return self._message(name, pb.DIRECTORY)

    def _never_served(self, name: str) -> pb.FileInfo:
        message = self._message(name, pb.FILE)
        message.blocks.add(offset=0, size=2000, hash=self._seed.randbytes(TOKEN_SIZE))
        message.size = 2000
        return message

    def _message(self, name: str, kind: pb.FileInfoType, *, deleted: bool = False) -> pb.FileInfo:
        before = self.known[name].version.counters[0].value if name in self.known else 0
        return pb.FileInfo(
            name=name,
            type=kind,
            permissions=0o644,
            modified_s=1234567890,
            deleted=deleted,
            version=pb.Vector(counters=[pb.Counter(id=1, value=before + 1000)]),
            encrypted=self._garbage(),
        )

    def _made_up_name(self) -> str:
        digits = base64.b32hexencode(self._seed.randbytes(30)).decode()
        return f"{digits[0]}.syncthing-enc/{digits[1:3]}/{digits[3:]}"


def accepted(gateway: Gateway, folder: str) -> Attacker:
    """Accept a device as an untrusted one, offer it a folder, and let it connect."""
    identity = generate()
    gateway.add_peer(str(identity.device_id), share=[folder])
    return Attacker(gateway, identity, folder)
