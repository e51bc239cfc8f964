"""`untrusted-s3` with settings that its options cannot express.

`python -m tests.peers.gateway_main SETTINGS ARGUMENT...`, where SETTINGS is what `encode` returns.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from untrusted_s3 import limits
from untrusted_s3.cli.main import main
from untrusted_s3.settings import Settings

# Until all layers take their settings by constructor.
_GLOBALS = {
    "store.timeout": "STORE_TIMEOUT",
    "log.segment_interval": "SEGMENT_INTERVAL",
    "log.checkpoint_cost": "CHECKPOINT_COST",
    "log.checkpoint_share": "CHECKPOINT_SHARE",
    "log.poll_interval": "LOG_POLL_INTERVAL",
    "log.cursor_interval": "CURSOR_INTERVAL",
    "log.max_append_delay": "MAX_APPEND_DELAY",
    "connections.stall_timeout": "STALL_TIMEOUT",
    "sync.pull_retry_interval": "PULL_RETRY_INTERVAL",
    "sync.max_pull_retry_interval": "MAX_PULL_RETRY_INTERVAL",
    "upkeep.heartbeat_interval": "HEARTBEAT_INTERVAL",
    "upkeep.stop_timeout": "DRAIN_TIMEOUT",
    "upkeep.first_delay": "FIRST_MAINTENANCE_DELAY",
    "upkeep.interval": "MAINTENANCE_INTERVAL",
}


def encode(settings: Settings) -> str:
    """Return settings as an argument of the program."""
    return json.dumps(dataclasses.asdict(settings))


def decode(text: str) -> Settings:
    """Return the settings that `encode` was given."""
    default = Settings()
    groups: dict[str, Any] = json.loads(text)
    return Settings(**{name: type(getattr(default, name))(**values) for name, values in groups.items()})


def _set_globals(text: str) -> None:
    for group, values in json.loads(text).items():
        for name, value in values.items():
            if f"{group}.{name}" in _GLOBALS:
                setattr(limits, _GLOBALS[f"{group}.{name}"], value)


if __name__ == "__main__":
    _set_globals(sys.argv[1])
    sys.exit(main(sys.argv[2:], settings=decode(sys.argv[1])))
