"""What `main` and a command tell each other."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from untrusted_s3.settings import Settings

if TYPE_CHECKING:
    from untrusted_s3.cli.terminal import LiveLine


@dataclass(slots=True)
class Invocation:
    """One run of the command line; the object of click's context.

    Attributes:
        settings: What options do not set.
        debug: Whether errors show their traceback.
        live_line: Where the log goes; set when the command begins.
    """

    settings: Settings = field(default_factory=Settings)
    debug: bool = False
    live_line: LiveLine | None = None
