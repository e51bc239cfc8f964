"""A scripted untrusted device, to which a real Syncthing sends encrypted data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import count
from typing import TypeVar

from bench.scripted_peer import RawPeer
from tests.peers.syncthing import Syncthing
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep import events
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import FileInfo, parse_file_info
from untrusted_s3.bep.framing import encode_frame
from untrusted_s3.identity.certificate import Identity

Event = TypeVar("Event", bound=events.Event)


class UntrustedPeer(RawPeer):
    """An untrusted device that takes everything offered, and requests blocks."""

    def __init__(self, device: Syncthing, identity: Identity) -> None:
        super().__init__(device, identity)
        self._device_id = DeviceID.parse(device.device_id)
        self._own_id = identity.device_id
        self._request_ids = count(1)

    def tokens(self) -> dict[str, bytes]:
        """Return the password token of each folder that the device shares."""
        config = next(self._received(events.ClusterConfigReceived))
        return {
            folder.id: device.encryption_password_token
            for folder in config.folders
            for device in folder.devices
            if device.id == self._own_id.raw
        }

    def file_infos(self, tokens: Mapping[str, bytes], sequences: Mapping[str, int]) -> dict[str, dict[str, FileInfo]]:
        """Return the file infos of each folder by encrypted names, after each index has reached its sequence number."""
        folders = [self._folder(folder, token) for folder, token in tokens.items()]
        self.send(self._bep.cluster_config(folders, now=0))
        for folder in tokens:
            self.send(self._bep.index(folder, [], update=False, prev_sequence=0, last_sequence=0, now=0))
        found: dict[str, dict[str, FileInfo]] = {folder: {} for folder in tokens}
        missing = {folder for folder, sequence in sequences.items() if sequence}
        for index in self._received(events.IndexReceived):
            for raw in index.files:
                info = parse_file_info(raw)
                found[index.folder][info.name] = info
                if info.message.sequence >= sequences[index.folder]:
                    missing.discard(index.folder)
            if not missing:
                break
        return found

    def block(self, folder: str, info: FileInfo, number: int, token: bytes | None = None) -> bytes | None:
        """Return one encrypted block, or None if the device refuses; `token` replaces the block's own."""
        block = info.message.blocks[number]
        request = pb.Request(
            id=next(self._request_ids),
            folder=folder,
            name=info.name,
            offset=block.offset,
            size=block.size,
            hash=block.hash if token is None else token,
            block_no=number,
        )
        self.send(encode_frame(pb.REQUEST, request.SerializeToString()))
        for response in self._received(events.ResponseReceived):
            if response.id == request.id:
                return bytes(response.data) if response.code == pb.NO_ERROR else None
        raise AssertionError("the device closed the connection")

    def _folder(self, folder: str, token: bytes) -> pb.Folder:
        own = pb.Device(id=self._own_id.raw, index_id=1, encryption_password_token=token)
        return pb.Folder(id=folder, type=pb.RECEIVE_ENCRYPTED, devices=[own, pb.Device(id=self._device_id.raw)])

    def _received(self, kind: type[Event]) -> Iterator[Event]:
        """Yield events of one kind from the beginning, and wait for more until the connection ends."""
        position = 0
        while True:
            while position < len(self._events):
                event = self._events[position]
                position += 1
                if isinstance(event, kind):
                    yield event
            if not self._exchange():
                return
