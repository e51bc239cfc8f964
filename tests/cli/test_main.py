"""The command line as a whole: what is loaded when, and what `--help` says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.cli.conftest import RunCLI
from tests.waiting import PATIENCE
from untrusted_s3 import __version__
from untrusted_s3.cli.commands.folders import list_folders
from untrusted_s3.cli.main import COMPLETION_VARIABLE, cli
from untrusted_s3.errors import BROKEN_PIPE, EXIT_CODES, FAILED, INTERRUPTED, USAGE

HEAVY = ("OpenSSL", "aiohttp", "asyncio", "boto3", "botocore", "cryptography", "google.protobuf", "structlog", "uvloop")
SECRET = (
    "untrusted_s3.crypto",
    "untrusted_s3.vault",
    "untrusted_s3.restore",
    "untrusted_s3.verify",
    "untrusted_s3.vectors_check",
    "untrusted_s3.compat",
    "nacl",
    "miscreant",
)


def loaded_by(program: str) -> list[str]:
    """The modules that a program in a Python of its own has loaded at its end."""
    shown = "\nprint(chr(10) + ' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\n{program}{shown}"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    return done.stdout.splitlines()[-1].split()


def within(modules: list[str], packages: tuple[str, ...]) -> list[str]:
    return [
        module for module in modules if module.startswith(tuple(f"{name}." for name in packages)) or module in packages
    ]


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_help_and_version_load_no_heavy_module(argument: str) -> None:
    loaded = loaded_by(f"from untrusted_s3.cli.main import main; assert main([{argument!r}]) == 0")
    assert within(loaded, HEAVY) == []
    assert [module for module in loaded if module.startswith("untrusted_s3.cli.commands.")] == []


def test_the_gateway_loads_nothing_that_decrypts() -> None:
    loaded = loaded_by("from untrusted_s3.cli.main import main; assert main(['serve', '--help']) == 0")
    assert "untrusted_s3.gateway.gateway" in loaded
    assert within(loaded, SECRET) == []


def test_the_one_line_helps_are_those_of_the_commands(run_cli: RunCLI) -> None:
    context = click.Context(cli)
    names = cli.list_commands(context)
    assert len(names) >= 12
    shown = run_cli("--help").stdout
    width = max(map(len, names))
    for name in names:
        command = cli.get_command(context, name)
        assert command is not None and command.name == name
        help_text = command.get_short_help_str(limit=1000)
        assert f"  {name:<{width}}  {help_text}\n" in shown


def test_help_tells_every_exit_code(run_cli: RunCLI) -> None:
    shown = " ".join(run_cli("--help").stdout.split())
    for code, meaning in EXIT_CODES.items():
        assert f"{code} {meaning}" in shown


def test_the_version(run_cli: RunCLI) -> None:
    outcome = run_cli("--version")
    assert (outcome.exit_code, outcome.stdout, outcome.stderr) == (0, f"untrusted-s3 {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments", [[], ["peers"], ["nonsense"], ["serve", "--nonsense"], ["peers", "add"], ["id", "x"]]
)
def test_usage_mistakes(run_cli: RunCLI, arguments: list[str]) -> None:
    outcome = run_cli(*arguments)
    assert (outcome.exit_code, outcome.stdout) == (2, "")
    assert "--help" in outcome.stderr


def test_an_internal_error_leaves_a_traceback_in_a_file(
    run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(**_: object) -> None:
        raise KeyError("http://h/k?X-Amz-Signature=feed")

    monkeypatch.setattr(list_folders, "callback", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    outcome = run_cli("folders", "list")
    assert outcome.exit_code == 1 and outcome.stdout == ""
    assert outcome.stderr.count("\n") == 1 and "KeyError" in outcome.stderr and "Traceback" not in outcome.stderr
    (log,) = tmp_path.glob("untrusted-s3-*.log")
    assert str(log) in outcome.stderr
    assert "Traceback" in log.read_text()
    debug = run_cli("folders", "list", "--debug")
    assert debug.exit_code == 1 and "Traceback" in debug.stderr
    assert "feed" not in outcome.stderr + debug.stderr + log.read_text()
    assert len(list(tmp_path.glob("untrusted-s3-*.log"))) == 1


def test_an_interruption(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(list_folders, "callback", interrupt)
    assert run_cli("folders", "list").exit_code == INTERRUPTED


def test_nobody_reads_the_output() -> None:
    command = [sys.executable, "-m", "untrusted_s3", "id"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(PATIENCE) == BROKEN_PIPE


@pytest.mark.parametrize(
    ("redirection", "reason"), [(">&-", "it is closed"), (">/dev/full", "No space left on device")]
)
@pytest.mark.parametrize("command", ["--help", "vectors", "--version", "id"])
def test_output_that_cannot_be_written(command: str, redirection: str, reason: str) -> None:
    shell = f"{sys.executable} -m untrusted_s3 {command} {redirection}"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (
        FAILED,
        "",
        f"error: cannot write to standard output: {reason}\n",
    )


def test_all_streams_closed() -> None:
    shell = f"{sys.executable} -m untrusted_s3 --help >&- 2>&- <&-"
    assert subprocess.run(shell, shell=True, timeout=PATIENCE, check=False).returncode == FAILED


def test_an_encoding_that_lacks_characters() -> None:
    program = "from untrusted_s3.cli import main, output; main._prepare_streams(); output.print_json(['é漢\\udcff'])"
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=PATIENCE, check=True
    )
    assert json.loads(done.stdout) == ["é漢\udcff"]


@pytest.mark.parametrize("shell", ["bash", "fish", "zsh"])
def test_shell_completion_prints_a_script(run_cli: RunCLI, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPLETION_VARIABLE, f"{shell}_source")
    outcome = run_cli()
    assert outcome.exit_code == 0 and f"{shell}_complete" in outcome.stdout and "untrusted-s3" in outcome.stdout


@pytest.mark.parametrize(
    ("words", "completed"),
    [("untrusted-s3 pe", "peers"), ("untrusted-s3 peers a", "add"), ("untrusted-s3 serve --single", "--single-writer")],
)
def test_shell_completion_of_commands_and_options(
    run_cli: RunCLI, words: str, completed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(COMPLETION_VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(words.count(" ")))
    assert run_cli().stdout.splitlines() == [f"plain,{completed}"]


def test_shell_completion_for_an_unknown_shell(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(COMPLETION_VARIABLE, "csh_source")
    outcome = run_cli()
    assert outcome.exit_code == USAGE and "bash_source" in outcome.stderr
