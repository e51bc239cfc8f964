"""Hostile devices in a process of their own: `python -m tests.hostile.devices ADDRESS ...`.

Each device is a thread that connects, rolls the dice until the gateway ends the connection or it gives up itself, and
connects again. The process has the lowest priority, as if it ran on another machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from bench.scripted_peer import RawPeer, open_socket
from tests.hostile.dice import Dice, World
from untrusted_s3.bep import events
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import ProtocolError, TLSFailed
from untrusted_s3.identity.files import load_or_create

_HEARD = 2000
_STRANGERS = 20
_NEWS_TIMEOUT = 10.0
_END_TIMEOUT = 15.0
_OPENINGS = (b"", b"\x16\x03\x01\x40\x00", b"GET / HTTP/1.1\r\n\r\n")


class HostilePeer(RawPeer):
    """A connection of an accepted device that does what the dice say."""

    def __init__(self, target: Target, identity_folder: Path, world: World, seed: int) -> None:
        super().__init__(target, load_or_create(identity_folder))
        self._socket.settimeout(_NEWS_TIMEOUT)
        self._world = world
        self._numbers = random.Random(seed)
        self._dice = Dice(seed, world, polite=self._numbers.random() < 0.6)
        self._read = 0

    def run(self, rate: float, counts: Counter[str], ended: threading.Event) -> None:
        """Roll until the connection ends. `rate` is the most that is sent, in bytes a second."""
        self.send(self._dice.opening())
        patience = self._numbers.choice([5, 50, 500])
        reads = self._numbers.random() < 0.8  # others never read what the gateway sends
        while not ended.is_set() and patience:
            patience -= 1
            data = self._dice.responses() + (self._dice.roll() if self._numbers.random() < 0.7 else b"")
            self.send(data)
            counts["bytes"] += len(data)
            counts["rolls"] += 1
            ended.wait(len(data) / rate + self._numbers.uniform(0, 0.05))
            if reads and not self._listen():
                return

    def _listen(self) -> bool:
        for _ in range(20):
            if not self.receive_for(0.01):
                break
            if self._tls.closed:
                return False
        for event in self._events:
            if isinstance(event, events.RequestReceived):
                self._world.asked.append((event.id, event.size))
            elif isinstance(event, events.IndexReceived) and event.folder == self._world.guarded:
                self._world.heard.extend(event.files)
                del self._world.heard[:-_HEARD]
        del self._world.asked[:-_HEARD]
        self._events.clear()
        return True


class Target:
    """The gateway's address."""

    def __init__(self, listen_address: str) -> None:
        self.listen_address = listen_address


def attack(
    target: Target,
    folder: Path,
    world: World,
    seed: int,
    rate: float,
    ended: threading.Event,
    counts: Counter[str],
) -> None:
    """Be a hostile device until the end, and count what it does."""
    for number in range(sys.maxsize):
        if ended.is_set():
            break
        world.asked.clear()
        with contextlib.suppress(OSError, ProtocolError, TLSFailed, AssertionError):
            peer = HostilePeer(target, folder, world, seed * 1_000_003 + number)
            counts["connections"] += 1
            try:
                peer.run(rate, counts, ended)
            finally:
                peer.vanish()
        ended.wait(0.2)


def annoy(target: Target, seed: int, ended: threading.Event, counts: Counter[str]) -> None:
    """Be strangers who connect, send some bytes that are no Hello, and stay. Count them."""
    numbers = random.Random(seed)
    held: list[socket.socket] = []
    while not ended.is_set():
        with contextlib.suppress(OSError):
            stranger = open_socket(target)
            held.append(stranger)
            stranger.sendall(
                numbers.choice([b"", b"\x16\x03\x01\x40\x00", numbers.randbytes(500), b"GET / HTTP/1.1\r\n\r\n"])
            )
            counts["strangers"] += 1
        if len(held) > _STRANGERS:
            held.pop(numbers.randrange(len(held))).close()
        ended.wait(numbers.uniform(0, 0.2))
    for stranger in held:
        stranger.close()


def main() -> None:
    """Attack until stdin ends. Print what was done."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.devices", description=__doc__)
    parser.add_argument("address")
    parser.add_argument("gateway", type=DeviceID.parse)
    parser.add_argument("guarded")
    parser.add_argument("--identity", type=Path, action="append", default=[])
    parser.add_argument("--equal", type=Path, action="append", default=[])
    parser.add_argument("--token", type=bytes.fromhex, default=b"", help="of the guarded folder, for --equal")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=2e6)
    options = parser.parse_args()
    os.nice(19)
    target, ended = Target(options.address), threading.Event()
    counters = [Counter[str]()]  # a counter a thread: one may still wait for the gateway at the end
    threads = [threading.Thread(target=annoy, args=(target, options.seed, ended, counters[0]), daemon=True)]
    for number, folder in enumerate([*options.identity, *options.equal]):
        token = options.token if folder in options.equal else b""
        own = [f"hostile-{number}-{k}" for k in range(4)]
        world = World(options.gateway, load_or_create(folder).device_id, own, options.guarded, token)
        seed = options.seed * 1000 + number
        counters.append(Counter())
        arguments = target, folder, world, seed, options.rate, ended, counters[-1]
        threads.append(threading.Thread(target=attack, args=arguments, daemon=True))
    for thread in threads:
        thread.start()
    sys.stdin.read()
    ended.set()
    deadline = time.monotonic() + _END_TIMEOUT
    for thread in threads:
        thread.join(max(deadline - time.monotonic(), 0.1))
    print(json.dumps(sum((counter.copy() for counter in counters), Counter())), flush=True)


if __name__ == "__main__":
    main()
