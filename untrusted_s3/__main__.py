"""Where the program starts: `untrusted-s3` and `python -m untrusted_s3`."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import NoReturn

from untrusted_s3.errors import TERMINATED


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(TERMINATED)


def run() -> NoReturn:
    """Run the command line and end with its exit code."""
    # As process 1 of a container, a signal without a handler is lost; a command's imports can take a second.
    signal.signal(signal.SIGTERM, _terminate)
    from untrusted_s3.cli.main import main

    sys.exit(main())


if __name__ == "__main__":
    run()
