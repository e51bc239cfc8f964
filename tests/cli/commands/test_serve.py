"""`serve`: the whole program with its embedded store, with and without a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from OpenSSL import SSL

from tests.cli.conftest import RunCLI
from tests.waiting import PATIENCE
from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.framing import encode_hello
from untrusted_s3.compat.ports import ReservedPort
from untrusted_s3.connections.tls import make_context
from untrusted_s3.identity import certificate as identity

pytestmark = [pytest.mark.store, pytest.mark.usefixtures("weed")]

SERVE = [sys.executable, "-m", "untrusted_s3", "serve", "--listen", "tcp://127.0.0.1:0"]


TIMEOUT = PATIENCE


class Serving:
    """A running `serve` and what it has written to standard error."""

    def __init__(self, process: subprocess.Popen[bytes], stderr: int) -> None:
        self.process = process
        self.text = ""
        self._stderr = stderr
        self._read_until = 0

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next match in what is written from now on or was not looked at before."""
        deadline = time.monotonic() + TIMEOUT
        while (match := re.compile(pattern).search(self.text, self._read_until)) is None:
            assert time.monotonic() < deadline, f"waited for {pattern!r} in vain:\n{self.text}"
            if select.select([self._stderr], [], [], 1)[0]:
                try:
                    new = os.read(self._stderr, 65536)
                except OSError:  # a terminal without anybody on its other side
                    new = b""
                assert new, f"it ended before {pattern!r}:\n{self.text}"
                self.text += new.decode(errors="replace")
        self._read_until = match.end()
        return match

    def end(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        drain = threading.Thread(target=self._drain, daemon=True)
        drain.start()
        return self.process.wait(TIMEOUT)

    def _drain(self) -> None:
        with contextlib.suppress(OSError):
            while os.read(self._stderr, 65536):
                pass


@contextlib.contextmanager
def serving(*arguments: str, terminal: bool = False) -> Iterator[Serving]:
    """`serve` with its standard error on a pipe, or all of it on a terminal of its own."""

    def take_terminal() -> None:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    ours, theirs = pty.openpty() if terminal else os.pipe()
    process = subprocess.Popen(
        [*SERVE, *arguments],
        stdin=theirs if terminal else subprocess.DEVNULL,
        stdout=theirs if terminal else subprocess.PIPE,
        stderr=theirs,
        start_new_session=terminal,
        preexec_fn=take_terminal if terminal else None,
        env={**os.environ, "TERM": "xterm"},
    )
    os.close(theirs)
    try:
        running = Serving(process, ours)
        if terminal:
            process.stdin = os.fdopen(os.dup(ours), "wb", buffering=0)
        yield running
    finally:
        process.kill()
        process.communicate()
        os.close(ours)


def store_pid() -> int:
    return int(json.loads(Path("data/seaweedfs/endpoint.json").read_text())["pid"])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@contextlib.contextmanager
def knocking(port: int, name: str) -> Iterator[DeviceID]:
    """A device that the gateway does not know says Hello to it."""
    own = identity.generate()
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        connection.settimeout(None)
        tls = SSL.Connection(make_context(own), connection)
        tls.set_connect_state()
        tls.do_handshake()
        hello = pb.Hello(device_name=name, client_name="test", client_version="v1", num_connections=1, timestamp=1)
        tls.sendall(encode_hello(hello))
        yield own.device_id


def listening_port(running: Serving) -> int:
    return int(running.wait_for(r"tcp://127\.0\.0\.1:(\d+)")[1])


def test_it_serves_stops_cleanly_and_keeps_its_identity(run_cli: RunCLI) -> None:
    port = ReservedPort()
    http = f"127.0.0.1:{port.number}"
    device_ids = []
    for number in (signal.SIGTERM, signal.SIGINT):
        with serving("--http", http) as running:
            running.wait_for('"event": "ready"')
            pid = store_pid()
            assert is_alive(pid)
            status = json.loads(run_cli("status", "--json", "--http", http).stdout)
            device_ids.append(status["device_id"])
            assert status["store"] == "s3://untrusted-s3"
            second = subprocess.run(
                [*SERVE, "--http", "none"], capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
            assert second.returncode == 2 and "in use" in second.stderr
            assert running.end(number) == 0
            assert not is_alive(pid)
            assert all(json.loads(line)["timestamp"] for line in running.text.splitlines())
    port.close()
    assert device_ids[0] == device_ids[1] == run_cli("id").stdout.strip()


@pytest.mark.parametrize("option", ["--listen", "--http"])
def test_a_port_in_use(option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        arguments = ["--http", "none", "--listen", f"tcp://{address}"] if option == "--listen" else ["--http", address]
        result = subprocess.run([*SERVE, *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert result.returncode == 2
    assert option in result.stderr and address in result.stderr and "Traceback" not in result.stderr
    with pytest.raises(KeyError):  # the store has been stopped
        store_pid()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--listen", "127.0.0.1:1"], "tcp://HOST:PORT"),
        (["--http", "8385x"], "--http"),
        (["--buffer-memory", "1"], "--buffer-memory"),
        (["--history", "0"], "--history"),
        (["--pending-disk", "1"], "--pending-disk"),
        (["--max-store", "much"], "100GiB"),
    ],
)
def test_invalid_options(arguments: list[str], message: str) -> None:
    result = subprocess.run([*SERVE, *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    assert result.returncode == 2 and message in result.stderr
    assert not Path("data").exists()


def test_an_unknown_device_is_logged_with_the_command_that_accepts_it() -> None:
    with serving("--http", "none", "--data", "my data") as running:
        port = listening_port(running)
        running.wait_for('"event": "ready"')
        with knocking(port, "new\n\x1b[2Jlaptop") as device_id:
            running.wait_for('"accept": ')
        (event,) = (event for line in running.text.splitlines() if "accept" in (event := json.loads(line)))
        assert event["accept"] == f"untrusted-s3 peers add --data 'my data' {device_id}"
        assert running.end() == 0


@pytest.mark.parametrize("answer", ["y", ""])
def test_on_a_terminal_it_welcomes_and_asks(run_cli: RunCLI, answer: str) -> None:
    with serving("--http", "none", terminal=True) as running:
        port = listening_port(running)
        welcome = running.wait_for(
            r"(?s)Device ID: ([A-Z2-7-]{63})\s.*█.*Add Remote Device.*(tcp://127\.0\.0\.1:\d+).*Save"
        )
        assert welcome[2] == f"tcp://127.0.0.1:{port}"
        running.wait_for("0/0 devices")
        with knocking(port, "new\x1b[2Jlaptop") as device_id:
            asked = running.wait_for(
                r'device ID  (\S+)\s+its name   "(.*)"\s+Compare the whole device ID .*\s.*Accept this device\? \[y/N\]'
            )
            assert (asked[1], asked[2]) == (str(device_id), "new\\x1b[2Jlaptop")
            assert running.process.stdin is not None
            running.process.stdin.write(answer.encode() + b"\n")
            running.wait_for("device accepted" if answer == "y" else f"untrusted-s3 peers add {device_id}")
        running.wait_for("0/1 devices" if answer == "y" else "0/0 devices")
        peers = json.loads(run_cli("peers", "list", "--json").stdout)
        assert [peer["device_id"] for peer in peers] == ([str(device_id)] if answer == "y" else [])
        pid = store_pid()
        running.process.stdin.write(b"\x03")  # Ctrl-C
        assert running.process.wait(TIMEOUT) == 0
        assert not is_alive(pid)


def test_a_second_signal_while_it_stops_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The gateway of this test never comes to its end by itself."""
    program = (
        "import asyncio, sys\n"
        "from untrusted_s3.gateway.gateway import Gateway\n"
        "async def stop(self):\n"
        "    print('stopping', file=sys.stderr, flush=True)\n"
        "    await asyncio.sleep(1000)\n"
        "Gateway.stop = stop\n"
        "from untrusted_s3.cli.main import main\n"
        "from untrusted_s3.settings import Settings, UpkeepSettings\n"
        "sys.exit(main(settings=Settings(upkeep=UpkeepSettings(same_signal=0.0))))\n"
    )
    monkeypatch.setattr(f"{__name__}.SERVE", [sys.executable, "-c", program, *SERVE[3:]])
    with serving("--http", "none") as running:
        running.wait_for('"event": "ready"')
        pid = store_pid()
        running.process.send_signal(signal.SIGINT)
        running.wait_for("\nstopping")
        assert running.end(signal.SIGINT) == 130
        assert not is_alive(pid)


def test_a_signal_that_arrives_twice_at_once_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import sys\n"
        "from untrusted_s3.cli.main import main\n"
        "from untrusted_s3.settings import Settings, UpkeepSettings\n"
        "sys.exit(main(settings=Settings(upkeep=UpkeepSettings(same_signal=1000.0))))\n"
    )
    monkeypatch.setattr(f"{__name__}.SERVE", [sys.executable, "-c", program, *SERVE[3:]])
    with serving("--http", "none") as running:
        running.wait_for('"event": "ready"')
        running.process.send_signal(signal.SIGTERM)
        assert running.end(signal.SIGTERM) == 0


def test_a_status_that_fails_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is restarted until it succeeds, which it does here at the second try."""
    program = (
        "import sys\n"
        "from untrusted_s3.gateway.gateway import Gateway\n"
        "status, calls = Gateway.status, []\n"
        "def fail_once(self):\n"
        "    calls.append(1)\n"
        "    return status(self) if len(calls) > 1 else 1 / 0\n"
        "Gateway.status = fail_once\n"
        "from untrusted_s3.cli.main import main\n"
        "from untrusted_s3.settings import Settings, UpkeepSettings\n"
        "sys.exit(main(settings=Settings(upkeep=UpkeepSettings(restart_delay=0.01))))\n"
    )
    monkeypatch.setattr(f"{__name__}.SERVE", [sys.executable, "-c", program, *SERVE[3:]])
    with serving("--http", "none") as running:
        port = listening_port(running)
        running.wait_for('"event": "background task failed"')
        with knocking(port, "laptop"):
            running.wait_for('"accept": ')
        assert running.end() == 0
