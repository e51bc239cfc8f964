"""What the operator of a gateway decides."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from untrusted_s3.settings import DEFAULT_BUFFER_MEMORY, DEFAULT_HISTORY, DEFAULT_SCRUB, Settings
from untrusted_s3.units import DAY


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The operator's settings of one gateway.

    Attributes:
        listen: Addresses on which peers connect, such as tcp://0.0.0.0:22001.
        http: HOST:PORT of the HTTP pages, or None for no pages.
        scrub: In how many seconds all objects are read once; 0 for never.
        max_store: The most bytes of files that its folders may have together, or None for any number.
        http_hosts: Host names by which clients reach the HTTP pages.
        name: The device name that peers see.
        state_directory: Where the local state is kept. It may be deleted while the gateway is stopped.
        buffer_memory: Bytes of memory for blocks on their way.
        history_days: How many days of the folders' history are kept if the store does not say it yet.
        history_is_wanted: Whether a store that keeps less shall keep as much.
        collects_garbage: Whether objects that no folder's log names are deleted.
        tuning: The tunable numbers of all parts.
    """

    listen: tuple[str, ...]
    http: str | None
    name: str
    state_directory: Path
    buffer_memory: int = DEFAULT_BUFFER_MEMORY
    history_days: int = int(DEFAULT_HISTORY // DAY)
    history_is_wanted: bool = False
    scrub: float = DEFAULT_SCRUB
    collects_garbage: bool = True
    max_store: int | None = None
    http_hosts: tuple[str, ...] = ()
    tuning: Settings = field(default_factory=Settings)
