"""The sources of options: command line, environment, configuration file, default, in this order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from tests.cli.conftest import RunCLI
from untrusted_s3.addresses import HostPort
from untrusted_s3.cli.commands.serve import serve
from untrusted_s3.cli.main import cli
from untrusted_s3.cli.options import Setting, all_commands, parse_http
from untrusted_s3.errors import UsageError

SETTINGS: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def _settings_instead_of_a_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `serve` record its options and do nothing else."""
    SETTINGS.clear()
    monkeypatch.setattr(serve, "callback", click.pass_context(lambda context, **given: SETTINGS.update(given)))


def write_config(text: str) -> Path:
    path = Path("config.toml")
    path.write_text(text, encoding="utf-8")
    return path


def test_precedence(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_cli("serve").exit_code == 0
    assert SETTINGS["name"] == "untrusted-s3"
    config = write_config('name = "file"')
    run_cli("serve", "--config", config)
    assert SETTINGS["name"] == "file"
    monkeypatch.setenv("UNTRUSTED_S3_NAME", "environment")
    run_cli("serve", "--config", config)
    assert SETTINGS["name"] == "environment"
    run_cli("serve", "--config", config, "--name", "command line")
    assert SETTINGS["name"] == "command line"


def test_garbage_is_collected_unless_somebody_says_no(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    def collects(*options: str) -> object:
        run_cli("serve", *options)
        return SETTINGS["gc"]

    assert collects() is True
    assert collects("--no-gc") is False
    assert collects("--config", str(write_config("gc = false"))) is False
    monkeypatch.setenv("UNTRUSTED_S3_GC", "false")
    assert collects() is False
    assert collects("--gc") is True


def test_the_file_itself_may_come_from_the_environment(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNTRUSTED_S3_CONFIG", str(write_config('name = "file"')))
    run_cli("serve")
    assert SETTINGS["name"] == "file"


def test_every_kind_of_value_from_the_file(run_cli: RunCLI) -> None:
    config = write_config(
        """
        listen = ["tcp://127.0.0.1:1", "tcp://127.0.0.1:2"]
        endpoint_url = "http://127.0.0.1:9"  # the same as endpoint-url
        [a-section-of-any-name]
        single-writer = true
        buffer-memory = 100
        state = "somewhere"
        """
    )
    assert run_cli("serve", "--config", config).exit_code == 0
    assert SETTINGS["listen"] == ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")
    assert SETTINGS["endpoint_url"] == "http://127.0.0.1:9"
    assert SETTINGS["single_writer"] is True
    assert SETTINGS["buffer_memory"] == 100
    assert SETTINGS["state"] == Path("somewhere")


def test_one_text_is_a_list_of_one(run_cli: RunCLI) -> None:
    run_cli("serve", "--config", write_config('listen = "tcp://127.0.0.1:1"'))
    assert SETTINGS["listen"] == ("tcp://127.0.0.1:1",)


def test_several_values_from_the_environment(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNTRUSTED_S3_LISTEN", "tcp://127.0.0.1:1 tcp://127.0.0.1:2")
    monkeypatch.setenv("UNTRUSTED_S3_SINGLE_WRITER", "1")
    monkeypatch.setenv("UNTRUSTED_S3_STORE", "")  # as compose files write "not set"
    run_cli("serve")
    assert SETTINGS["listen"] == ("tcp://127.0.0.1:1", "tcp://127.0.0.1:2")
    assert SETTINGS["single_writer"] is True
    assert SETTINGS["store"] is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense = 1", "unknown key 'nonsense'"),
        ("[store]\nbuckett = 1", "unknown key 'buckett'"),
        ('config = "other.toml"', "unknown key 'config'"),
        ('[a.b]\nname = "x"', "unknown key 'b'"),
        ('name = "x"\n[a]\nname = "y"', "'name' is given twice"),
        ('endpoint-url = "x"\nendpoint_url = "y"', "'endpoint_url' is given twice"),
        ("name = ", "not valid TOML"),
        ('name = ["x"]', "'name' takes one value"),
        ("listen = [1.5]", "'listen' takes a list of texts"),
        ("name = 2026-01-01", "'name' takes one value"),
        ("buffer-memory = 1", "--buffer-memory"),
        ('log-level = "loud"', "--log-level"),
    ],
)
def test_mistakes_in_the_file_are_named(run_cli: RunCLI, text: str, message: str) -> None:
    outcome = run_cli("serve", "--config", write_config(text))
    assert outcome.exit_code == 2
    assert message in outcome.stderr
    assert outcome.stderr.startswith("error: ") and outcome.stderr.count("\n") == 1


def test_a_missing_file_and_a_binary_file(run_cli: RunCLI) -> None:
    assert run_cli("serve", "--config", "missing.toml").exit_code == 2
    Path("binary.toml").write_bytes(b"\xff\xfe\x00")
    outcome = run_cli("serve", "--config", "binary.toml")
    assert outcome.exit_code == 2 and "not valid TOML" in outcome.stderr


def test_keys_of_other_commands_are_fine(run_cli: RunCLI) -> None:
    config = write_config('buffer-memory = 100\npeers-add-name = "x"\nidentity = "here"')
    assert run_cli("id", "--config", config).exit_code == 0
    assert Path("here/cert.pem").exists()


def test_an_endpoint_without_a_store_is_a_mistake(run_cli: RunCLI) -> None:
    outcome = run_cli("folders", "list", "--endpoint-url", "http://127.0.0.1:9")
    assert outcome.exit_code == 2 and "--store" in outcome.stderr


def test_every_option_is_an_environment_variable_with_one_meaning() -> None:
    meanings: dict[str, tuple[str, Any]] = {}
    for command in all_commands(click.Context(cli)):
        for parameter in command.params:
            if not isinstance(parameter, click.Option) or isinstance(command, click.Group):
                continue
            assert isinstance(parameter, Setting), (command.name, parameter.name)
            assert parameter.envvar == "UNTRUSTED_S3_" + parameter.key.upper().replace("-", "_")
            meaning = (str(parameter.name), parameter.multiple)
            assert meanings.setdefault(parameter.key, meaning) == meaning
    assert {"listen", "peers-add-share", "byte-range"} <= meanings.keys()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("127.0.0.1:80", "127.0.0.1", 80), ("[::1]:0", "::1", 0), (":1", "", 1), ("a:65535", "a", 65535)],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert parse_http(text) == HostPort(host, port)


@pytest.mark.parametrize(
    "text", ["", "80", "host", "host:", "host:x", "host:65536", "::1:80", "http://h:1", "h:-1", "h:١"]
)
def test_invalid_addresses(text: str) -> None:
    with pytest.raises(UsageError, match="--http"):
        parse_http(text)
