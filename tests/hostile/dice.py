"""Messages that a hostile device may send, as a seed decides: sound ones, damaged ones, and ones that mean harm."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tests.file_infos import deleted, directory, file, plaintext
from tests.fuzz.inputs import lz4_frame
from tests.fuzz.mutations import Mutator
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.framing import encode_frame, frame_head
from untrusted_s3.bep.response import encode_response

Item = TypeVar("Item")
_SIZES = ((2000,), (2000, 3000), (1024 + 40,), (131_072 + 40,) * 3, (1_048_616,) * 9)
_NUMBERS = (0, 1, -1, 40, 1000, 2000, 131_072, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63))


@dataclass
class World:
    """What the hostile device knows.

    Attributes:
        gateway: The gateway's device ID.
        own: Its own device ID.
        folders: Folders of its own.
        guarded: The folder of an honest device.
        token: The guarded folder's password token; empty if it does not know it.
        asked: Requests of the gateway that it has not answered: request id and size.
        heard: File infos of the guarded folder that the gateway has sent.
    """

    gateway: DeviceID
    own: DeviceID
    folders: Sequence[str]
    guarded: str
    token: bytes = b""
    asked: list[tuple[int, int]] = field(default_factory=list)
    heard: list[bytes] = field(default_factory=list)


class Dice:
    """A source of messages to send. The same seed and the same world give the same messages."""

    def __init__(self, seed: int, world: World, *, polite: bool = False) -> None:
        """A polite one sends only what does not end the connection at once."""
        self._random = random.Random(seed)
        self._mutator = Mutator(seed)
        self._world = world
        self._sequence = 0
        self._actions: list[tuple[int, Callable[[], bytes]]] = [
            (3, self._cluster_config),
            (6, self._index),
            (12, self._requests),
            (12, self._responses),
            (3, self._small_messages),
            (2, self._flood),
        ]
        if not polite:
            self._actions += [(6, self._damaged), (1, self._garbage), (1, self._half), (1, self._close)]

    def roll(self) -> bytes:
        """Return the next bytes to send."""
        weights, actions = zip(*self._actions, strict=True)
        data: bytes = self._random.choices(actions, weights)[0]()
        return data

    def responses(self) -> bytes:
        """Answer what the gateway has asked for: rightly formed, wrongly, or not at all."""
        return self._responses()

    # Messages

    def opening(self) -> bytes:
        """Return a cluster config with which the device shares folders, as it should."""
        folders = [self._folder(name, bytes([1]) * 40) for name in self._some(self._world.folders, 3)]
        if self._world.token:
            folders.append(self._equal())
        return encode_frame(pb.CLUSTER_CONFIG, pb.ClusterConfig(folders=folders).SerializeToString())

    def _folder(self, name: str, token: bytes) -> pb.Folder:
        own = pb.Device(id=self._world.own.raw, index_id=1 + self._random.randrange(5), max_sequence=self._number())
        return pb.Folder(id=name, devices=[pb.Device(id=self._world.gateway.raw, encryption_password_token=token), own])

    def _equal(self) -> pb.Folder:
        """Share the guarded folder as another untrusted device does: the token is on its own entry."""
        own = pb.Device(id=self._world.own.raw, encryption_password_token=self._world.token, index_id=7)
        return pb.Folder(id=self._world.guarded, devices=[pb.Device(id=self._world.gateway.raw), own])

    def _cluster_config(self) -> bytes:
        numbers = self._random
        if numbers.random() < 0.5:
            return self.opening()
        folders = [
            self._folder(self._world.guarded, numbers.randbytes(40)),
            self._folder(numbers.choice(["", "x" * 64, "é/../..", "\0", "a" * 5000]), numbers.randbytes(40)),
            pb.Folder(id=numbers.choice(self._world.folders), devices=[pb.Device(id=b"short")] * 50),
        ]
        message = pb.ClusterConfig(folders=self._some(folders, 3)).SerializeToString()
        return self._framed(pb.CLUSTER_CONFIG, message)

    def _index(self) -> bytes:
        world, numbers = self._world, self._random
        folder = numbers.choice([*world.folders, world.guarded])
        if folder == world.guarded:
            # An equal repeats what it has heard: versions that it does not have. Others have no right to send any.
            infos = self._some(world.heard, 50) if world.token else [plaintext("plain"), file("forged", 99).raw]
        else:
            infos = list(self._made_up(numbers.choice([1, 5, 100])))
        kind = numbers.choice([pb.INDEX, pb.INDEX_UPDATE])
        message = pb.Index(folder=folder, files=infos, last_sequence=self._sequence).SerializeToString()
        return self._framed(kind, message, damage=folder != world.guarded or not world.token)

    def _made_up(self, count: int) -> Iterator[bytes]:
        for _ in range(count):
            self._sequence += 1
            name, version = self._random.randrange(300), self._random.choice([1, 2, 3, 2**62])
            match self._random.randrange(5):
                case 0:
                    made = directory(name, version, sequence=self._sequence).raw
                case 1:
                    made = deleted(name, version, sequence=self._sequence).raw
                case _:
                    made = file(name, version, sizes=self._random.choice(_SIZES), sequence=self._sequence).raw
            yield self._mutator.protobuf(made) if self._random.random() < 0.1 else made

    def _requests(self) -> bytes:
        numbers, world = self._random, self._world
        found = []
        for _ in range(numbers.choice([1, 10, 60])):
            info = pb.FileInfo.FromString(numbers.choice(world.heard)) if world.heard else pb.FileInfo(name="x")
            block = numbers.choice(info.blocks) if info.blocks else pb.BlockInfo(offset=self._number(), size=2000)
            request = pb.Request(
                id=numbers.randrange(2**31),
                folder=numbers.choice([world.guarded, *world.folders]),
                name=info.name,
                offset=block.offset if numbers.random() < 0.8 else self._number(),
                size=block.size if numbers.random() < 0.8 else numbers.choice([0, 1, 2000, 2**24]),
                hash=block.hash,
            )
            found.append(encode_frame(pb.REQUEST, request.SerializeToString()))
        return b"".join(found)

    def _responses(self) -> bytes:
        numbers, asked = self._random, self._world.asked
        numbers.shuffle(asked)
        found = []
        for _ in range(numbers.randrange(4)):
            if not asked:
                found += encode_response(numbers.randrange(1000), bytes(100), pb.NO_ERROR)
                continue
            request_id, size = asked.pop()
            match numbers.randrange(10):
                case 0:
                    continue  # never
                case 1:
                    found += encode_response(request_id + 1, bytes(size), pb.NO_ERROR)
                case 2:
                    found += encode_response(request_id, numbers.randbytes(numbers.randrange(size + 2)), pb.NO_ERROR)
                case 3:
                    found += encode_response(request_id, b"", numbers.choice([1, 2, 3, 99]))
                case 4:
                    found += list(encode_response(request_id, numbers.randbytes(size), pb.NO_ERROR)) * 2
                case _:
                    found += encode_response(request_id, numbers.randbytes(size), pb.NO_ERROR)
        return b"".join(bytes(piece) for piece in found)

    def _small_messages(self) -> bytes:
        kinds = [pb.PING, pb.DOWNLOAD_PROGRESS, 77]
        frames = [
            encode_frame(kind, b"") if kind != 77 else b"\0\2\x08\x4d\0\0\0\1x" for kind in self._some(kinds * 3, 9)
        ]
        return b"".join(frames)

    def _flood(self) -> bytes:
        one = self._random.choice([encode_frame(pb.PING, b""), self.opening(), self._requests()])
        return one * min(2000, 200_000 // max(len(one), 1))

    def _damaged(self) -> bytes:
        good = self._random.choice([self._index, self._requests, self.opening, self._small_messages])()
        return self._mutator.damaged(good)

    def _garbage(self) -> bytes:
        return self._random.randbytes(self._random.randrange(1, 3000))

    def _half(self) -> bytes:
        body = self._random.choice([1000, 100_000, 2**24, 2**32 - 1])
        return frame_head(pb.INDEX, min(body, 2**31 - 1)) + bytes(500)

    def _close(self) -> bytes:
        return encode_frame(pb.CLOSE, pb.Close(reason="\x1b[2J" * self._random.randrange(300)).SerializeToString())

    # Parts of messages

    def _framed(self, kind: pb.MessageType, body: bytes, *, damage: bool = True) -> bytes:
        if damage and self._random.random() < 0.15:
            body = self._mutator.protobuf(body)
        if self._random.random() < 0.2:
            return lz4_frame(kind, body)
        return encode_frame(kind, body)

    def _number(self) -> int:
        return self._random.choice(_NUMBERS)

    def _some(self, items: Sequence[Item], most: int) -> list[Item]:
        return [self._random.choice(items) for _ in range(self._random.randrange(1, most + 1))] if items else []
