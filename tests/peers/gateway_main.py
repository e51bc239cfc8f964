"""`untrusted-s3` with settings that its options cannot express.

`python -m tests.peers.gateway_main SETTINGS ARGUMENT...`, where SETTINGS is what `encode` returns.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from untrusted_s3.cli.main import main
from untrusted_s3.settings import Settings


def encode(settings: Settings) -> str:
    """Return settings as an argument of the program."""
    return json.dumps(dataclasses.asdict(settings))


def decode(text: str) -> Settings:
    """Return the settings that `encode` was given."""
    default = Settings()
    groups: dict[str, Any] = json.loads(text)
    return Settings(**{name: type(getattr(default, name))(**values) for name, values in groups.items()})


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:], settings=decode(sys.argv[1])))
