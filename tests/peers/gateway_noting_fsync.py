"""A gateway that notes what its `fsync` has brought to the disk.

`python -m tests.peers.gateway_noting_fsync FILE SETTINGS ARGUMENT...` is `tests.peers.gateway_main`, and appends a line
to FILE for each call: a JSON list of the path and its size.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

_fsync = os.fsync


def _noted(fd: FileDescriptorLike) -> None:
    descriptor = fd if isinstance(fd, int) else fd.fileno()
    size = os.fstat(descriptor).st_size
    _fsync(descriptor)
    line = json.dumps([str(Path(f"/proc/self/fd/{descriptor}").readlink()), size]) + "\n"
    with Path(sys.argv[1]).open("a") as notes:
        notes.write(line)


def synced_sizes(notes: Path) -> dict[Path, int]:
    """Return how much of each file the notes say is on the disk."""
    lines = notes.read_text().splitlines() if notes.exists() else []
    return {Path(path): size for path, size in map(json.loads, lines)}


if __name__ == "__main__":
    os.fsync = _noted  # before the program is imported, which takes it as a default

    from tests.peers.gateway_main import decode
    from untrusted_s3.cli.main import main

    sys.exit(main(sys.argv[3:], settings=decode(sys.argv[2])))
