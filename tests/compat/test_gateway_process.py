"""The driver of a gateway with a script instead of the program."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.store.http_server import Answer, Request, http_server
from tests.waiting import PATIENCE
from untrusted_s3.compat.commands import command_environment, run_command, store_arguments
from untrusted_s3.compat.gateway_process import GatewayProcess
from untrusted_s3.errors import GatewayUnreachable


@dataclass(frozen=True)
class Store:
    endpoint_url: str = "http://127.0.0.1:9"
    bucket: str = "bucket"
    access_key: str = "access"
    secret_key: str = "secret"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "program"


def gateway(home: Path, script: Path, text: str) -> GatewayProcess:
    home.mkdir(exist_ok=True)
    script.write_text(text)
    return GatewayProcess(home, Store(), "prefix/", options=["--name", "one"], program=[sys.executable, str(script)])


def test_its_command_line_and_its_environment(tmp_path: Path, script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNTRUSTED_S3_LISTEN", "tcp://0.0.0.0:1")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    text = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)])); sys.exit(3)"
    process = gateway(tmp_path / "home", script, text)
    with pytest.raises(GatewayUnreachable, match="ended with 3, waiting for readiness"):
        process.start()
    arguments, environment = json.loads((tmp_path / "home" / "gateway.log").read_text())
    assert arguments[:5] == ["serve", "--store", "s3://bucket/prefix", "--endpoint-url", "http://127.0.0.1:9"]
    assert arguments[-2:] == ["--name", "one"]
    assert process.listen_address in arguments and str(process.state) in arguments
    assert environment["UNTRUSTED_S3_LOG_FORMAT"] == "json"
    assert (environment["AWS_ACCESS_KEY_ID"], environment["AWS_SECRET_ACCESS_KEY"]) == ("access", "secret")
    assert "UNTRUSTED_S3_LISTEN" not in environment and "AWS_PROFILE" not in environment


def test_an_error_ends_with_its_log(tmp_path: Path, script: Path) -> None:
    process = gateway(tmp_path / "home", script, "print('first'); print('last words'); raise SystemExit(1)")
    with pytest.raises(GatewayUnreachable, match="first\nlast words"):
        process.start()
    assert process.process is None


def test_stop_and_kill_may_be_called_when_it_does_not_run(tmp_path: Path, script: Path) -> None:
    process = gateway(tmp_path / "home", script, "")
    assert process.stop() is None
    process.kill()


def test_stop_gives_the_exit_code(tmp_path: Path, script: Path) -> None:
    process = gateway(tmp_path / "home", script, "")
    process.process = subprocess.Popen(["sleep", "600"])
    assert process.stop() == -15
    assert process.process is None


def test_what_it_tells_by_http(tmp_path: Path, script: Path) -> None:
    status: dict[str, Any] = {
        "peers": [{"device_id": "A", "connected": True}],
        "folders": [{"id": "f", "state": "idle"}],
    }
    metrics = 'untrusted_s3_pulls_total 3.0\n# HELP x\nuntrusted_s3_store_requests_total{operation="GET"} 7.0\n'

    def answer(request: Request) -> Answer:
        pages = {"/api/status": json.dumps(status).encode(), "/metrics": metrics.encode()}
        page = pages.get(request.path)
        return Answer(200, page) if page is not None else Answer(503)

    process = gateway(tmp_path / "home", script, "")
    process.log_file.touch()
    with http_server(answer) as url:
        process.http_port = int(url.rpartition(":")[2])
        assert process.peer("A")["connected"] is True and process.peer("B") == {}
        assert process.folder("f") == {"id": "f", "state": "idle"} and process.folder("g") == {}
        assert process.counter("pulls") == 3
        assert process.store_requests() == {"GET": 7}
        assert process.wait_connected("A") == status["peers"][0]
        assert process.http_get("/readyz")[0] == 503
        with pytest.raises(GatewayUnreachable, match="took longer than 0 s, waiting for a miracle"):
            process.wait_for("a miracle", lambda: None, timeout=0)


def test_another_command_on_the_store() -> None:
    done = run_command(["--version"], command_environment(Store(), {"MORE": "1"}), PATIENCE)
    assert done.returncode == 0 and done.stdout.startswith("untrusted-s3 ")
    assert store_arguments(Store()) == ["--store", "s3://bucket", "--endpoint-url", "http://127.0.0.1:9"]
