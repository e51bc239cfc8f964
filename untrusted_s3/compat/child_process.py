"""A program that serves, as a child process with a log and ports of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from untrusted_s3.compat.ports import ReservedPort
from untrusted_s3.store.embedded.process import die_with_parent

_LOG_LINES = 30


class ChildProcess:
    """A context manager that runs a program and stops it. Subclasses say how it is started and asked to end.

    The program may be started again after its end. Its ports stay its own meanwhile.

    Attributes:
        log_file: What the program prints, of all starts.
        process: The running process; None while it does not run.
        patience: The least time, in seconds, after which a wait for the program fails, unless the wait has a timeout of
            its own. Subclasses for busy machines raise it.
    """

    patience = 0.0

    def __init__(self, log_file: Path, stop_timeout: float) -> None:
        """The program is killed if it has not ended `stop_timeout` seconds after it was asked to."""
        self.log_file = log_file
        self.process: subprocess.Popen[bytes] | None = None
        self._stop_timeout = stop_timeout
        self._ports: list[ReservedPort] = []

    def start(self) -> Self:
        """Start the program and wait until it serves."""
        raise NotImplementedError

    def ask_to_end(self, process: subprocess.Popen[bytes]) -> None:
        """Ask the program to end: here by SIGTERM."""
        process.terminate()

    def reserve_port(self) -> int:
        """Return a port for this program that no other `ChildProcess` gets as long as this object lives."""
        self._ports.append(ReservedPort())
        return self._ports[-1].number

    def launch(self, command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
        """Start the process. It is told to end when the thread that started it ends (on Linux)."""
        with self.log_file.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent(),
            )

    def stop(self) -> int | None:
        """Ask the program to end and wait for that; kill it if that takes too long.

        Return its exit code, or None if it was not running.
        """
        process, self.process = self.process, None
        if process is None:
            return None
        self.ask_to_end(process)
        try:
            return process.wait(self._stop_timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def kill(self) -> None:
        """Send SIGKILL. Does nothing if the program is not running."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()

    def __enter__(self) -> Self:
        return self.start() if self.process is None else self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop the program."""
        self.stop()

    @property
    def pid(self) -> int:
        """The ID of the running process."""
        assert self.process is not None, "the program is not running"
        return self.process.pid

    def log_tail(self, lines: int = _LOG_LINES) -> str:
        """Return the last lines of the log."""
        if not self.log_file.exists():
            return ""
        return "\n".join(self.log_file.read_text(errors="replace").splitlines()[-lines:])
