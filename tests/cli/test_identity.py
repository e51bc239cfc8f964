"""The sources of the identity: `id`, `serve` and `peers add` with each source, and with mistakes in it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cli.conftest import RunCLI
from tests.peers.s3_server import S3Server
from untrusted_s3.cli.identity import IdentityOptions
from untrusted_s3.identity.certificate import Identity, generate
from untrusted_s3.settings import IdentitySettings, Settings
from untrusted_s3.store.connection import connect

PASSPHRASE = "correct horse battery staple"
VARIABLE = "UNTRUSTED_S3_IDENTITY_"
COMMANDS = (("id",), ("serve", "--http", "none"), ("peers", "add", str(generate().device_id)))


@pytest.fixture
def own() -> Identity:
    return generate()


@pytest.fixture
def settings() -> Settings:
    """Scrypt with less memory and time."""
    return Settings(identity=IdentitySettings(scrypt_n=16))


def write_secrets(identity: Identity) -> list[str]:
    Path("secrets").mkdir(exist_ok=True)
    Path("secrets/tls.crt").write_bytes(identity.certificate_pem)
    Path("secrets/tls.key").write_bytes(identity.private_key_pem)
    return ["--identity-cert", "secrets/tls.crt", "--identity-key", "secrets/tls.key"]


def set_texts(monkeypatch: pytest.MonkeyPatch, certificate: str | None, key: str | None) -> None:
    for name, text in (("CERT_PEM", certificate), ("KEY_PEM", key)):
        if text is not None:
            monkeypatch.setenv(VARIABLE + name, text)


def assert_refused(run_cli: RunCLI, command: Sequence[str], *parts: str, exit_code: int = 2) -> None:
    outcome = run_cli(*command)
    assert (outcome.exit_code, outcome.stdout) == (exit_code, ""), outcome
    assert all(part in outcome.stderr for part in parts), outcome
    assert outcome.stderr.count("\n") == 1 and "PRIVATE" not in outcome.stderr and PASSPHRASE not in outcome.stderr


# Secret files


def test_secret_files_of_any_name(run_cli: RunCLI, own: Identity) -> None:
    options = write_secrets(own)
    assert run_cli("id", *options).stdout == f"{own.device_id}\n"
    assert not Path("data").exists()
    assert_refused(run_cli, ["peers", "add", str(own.device_id), *options], "own device ID")


@pytest.mark.parametrize("command", COMMANDS[::2])
def test_secret_files_are_never_made(run_cli: RunCLI, command: tuple[str, ...]) -> None:
    options = ["--identity-cert", "secrets/tls.crt", "--identity-key", "secrets/tls.key"]
    assert_refused(run_cli, [*command, *options], "cannot read secrets/tls.crt")
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("missing", ["cert", "key"])
@pytest.mark.parametrize("command", COMMANDS)
def test_one_secret_file_is_not_enough(run_cli: RunCLI, command: tuple[str, ...], missing: str, own: Identity) -> None:
    certificate, key = write_secrets(own)[:2], write_secrets(own)[2:]
    options = key if missing == "cert" else certificate
    assert_refused(run_cli, [*command, *options], f"{options[0]} needs --identity-{missing} too")


def test_secret_files_that_do_not_fit(run_cli: RunCLI, own: Identity) -> None:
    options = write_secrets(own)
    Path("secrets/tls.key").write_bytes(generate().private_key_pem)
    assert_refused(run_cli, ["id", *options], "secrets/tls.key does not belong to tls.crt", "both files")
    Path("secrets/tls.key").write_text("garbage")
    assert_refused(run_cli, ["id", *options], "secrets/tls.key is not a private key")


# The environment


@pytest.mark.parametrize("line_break", ["\n", "\\n", "\r\n"])
def test_texts_in_the_environment(
    run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch, own: Identity, line_break: str
) -> None:
    texts = [pem.decode().replace("\n", line_break) for pem in (own.certificate_pem, own.private_key_pem)]
    set_texts(monkeypatch, *texts)
    assert run_cli("id").stdout == f"{own.device_id}\n"
    assert not Path("data").exists()
    assert_refused(run_cli, ["peers", "add", str(own.device_id)], "own device ID")


@pytest.mark.parametrize("command", COMMANDS)
def test_one_text_is_not_enough(
    run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch, own: Identity, command: tuple[str, ...]
) -> None:
    set_texts(monkeypatch, None, own.private_key_pem.decode())
    assert_refused(run_cli, command, f"{VARIABLE}KEY_PEM needs {VARIABLE}CERT_PEM too")


@pytest.mark.parametrize("key", ["garbage", "\udcff", generate().private_key_pem.decode()])
def test_a_text_that_does_not_fit(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch, own: Identity, key: str) -> None:
    set_texts(monkeypatch, own.certificate_pem.decode(), key)
    assert_refused(run_cli, ["id"], f"{VARIABLE}KEY_PEM ", "set both from one identity")


def test_empty_variables_are_as_good_as_none(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    """As compose files write "not set"."""
    set_texts(monkeypatch, "", "")
    for name in ("NAME", "CERT", "KEY", "PASSPHRASE", "PASSPHRASE_FILE"):
        monkeypatch.setenv(VARIABLE + name, "")
    assert run_cli("id").exit_code == 0
    assert Path("data/identity/cert.pem").exists()


# Several


SOURCES = {
    "--identity": ["--identity", "folder"],
    "--identity-cert": ["--identity-cert", "secrets/tls.crt", "--identity-key", "secrets/tls.key"],
    f"{VARIABLE}CERT_PEM": [],
    "--identity-name": ["--identity-name", "one"],
}


@pytest.mark.parametrize(("first", "second"), list(itertools.combinations(SOURCES, 2)))
@pytest.mark.parametrize("command", COMMANDS)
def test_two_sources_are_one_too_many(
    run_cli: RunCLI,
    monkeypatch: pytest.MonkeyPatch,
    own: Identity,
    command: tuple[str, ...],
    first: str,
    second: str,
) -> None:
    write_secrets(own)
    if VARIABLE + "CERT_PEM" in (first, second):
        set_texts(monkeypatch, own.certificate_pem.decode(), own.private_key_pem.decode())
    assert_refused(run_cli, [*command, *SOURCES[first], *SOURCES[second]], f"{first} and {second} are both set")
    assert not Path("folder").exists() and not Path("data").exists()


def test_two_sources_from_different_places(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("config.toml").write_text('identity = "folder"')
    monkeypatch.setenv(VARIABLE + "NAME", "one")
    assert_refused(run_cli, ["id", "--config", "config.toml"], "--identity and --identity-name are both set")


def test_the_options_do_not_show_secrets(own: Identity) -> None:
    texts = (own.certificate_pem.decode(), own.private_key_pem.decode())
    shown = repr(IdentityOptions(Path(), texts=texts, passphrase=PASSPHRASE))
    assert "PRIVATE" not in shown and PASSPHRASE not in shown


# In the store


def test_a_name_needs_a_passphrase(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE + "PASSPHRASE", PASSPHRASE)
    assert_refused(run_cli, ["id"], "needs --identity-name")
    Path("passphrase").write_text(PASSPHRASE)
    both = ["id", "--identity-name", "one", "--identity-passphrase-file", "passphrase"]
    assert_refused(run_cli, both, f"--identity-passphrase-file and {VARIABLE}PASSPHRASE are both set")
    monkeypatch.delenv(VARIABLE + "PASSPHRASE")
    assert_refused(run_cli, ["id", "--identity-passphrase-file", "passphrase"], "needs --identity-name")


@pytest.mark.store
def test_an_identity_in_the_store(run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch, store_arguments: list[str]) -> None:
    Path("passphrase").write_text(PASSPHRASE + "\n")
    from_file = ["--identity-name", "one", "--identity-passphrase-file", "passphrase", *store_arguments]
    outcome = run_cli("id", *from_file)
    assert outcome.exit_code == 0 and outcome.stderr == ""
    assert list(Path().iterdir()) == [Path("passphrase")]
    assert run_cli("id", *from_file) == outcome

    # The passphrase in the environment, the rest in the file of the configuration.
    Path("config.toml").write_text('identity-name = "one"\n')
    own_id = outcome.stdout.strip()
    # To know its device ID takes no passphrase.
    add = ["peers", "add", own_id, "--config", "config.toml", *store_arguments]
    assert_refused(run_cli, add, "own device ID")
    assert run_cli("peers", "add", str(generate().device_id), *add[3:]).exit_code == 0
    monkeypatch.setenv(VARIABLE + "PASSPHRASE", PASSPHRASE)
    assert run_cli("id", "--config", "config.toml", *store_arguments) == outcome
    assert run_cli("id", "--identity-name", "two", *store_arguments).stdout not in ("", outcome.stdout)


@pytest.mark.store
@pytest.mark.parametrize("command", COMMANDS[:2])
def test_mistakes_with_an_identity_in_the_store(
    run_cli: RunCLI, monkeypatch: pytest.MonkeyPatch, store_arguments: list[str], command: tuple[str, ...]
) -> None:
    # --single-writer spares `serve` a trial of the store.
    named = [*command, *store_arguments, "--identity-name", "one", *(["--single-writer"] if len(command) > 1 else [])]
    assert_refused(run_cli, named, f"--identity-passphrase-file or {VARIABLE}PASSPHRASE")
    assert_refused(run_cli, [*named, "--identity-passphrase-file", "missing"], "cannot read", "missing: No such file")
    Path("binary").write_bytes(b"\xff" * 20)
    assert_refused(run_cli, [*named, "--identity-passphrase-file", "binary"], "binary", "UTF-8")
    monkeypatch.setenv(VARIABLE + "PASSPHRASE", "too short")
    assert_refused(run_cli, named, "at least 12 characters")
    monkeypatch.setenv(VARIABLE + "PASSPHRASE", PASSPHRASE)
    assert_refused(run_cli, [*named, "--identity-name", "a/b"], "'a/b' is no name for an identity")
    assert run_cli("id", *store_arguments, "--identity-name", "one").exit_code == 0
    monkeypatch.setenv(VARIABLE + "PASSPHRASE", "not " + PASSPHRASE)
    assert_refused(run_cli, named, "passphrase does not open the identity 'one'", exit_code=4)


@pytest.mark.store
def test_a_damaged_identity_in_the_store(
    run_cli: RunCLI,
    monkeypatch: pytest.MonkeyPatch,
    store_arguments: list[str],
    s3_server: S3Server,
    bucket_prefix: str,
) -> None:
    monkeypatch.setenv(VARIABLE + "PASSPHRASE", PASSPHRASE)
    named = ["id", *store_arguments, "--identity-name", "one"]
    assert run_cli(*named).exit_code == 0
    bucket, key = s3_server.bucket, f"{bucket_prefix}/identities/one.json"
    client = connect(s3_server.endpoint_url).client
    record = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    damaged = record.replace(b'"sealed": "', b'"sealed": "AAAA')
    client.put_object(Bucket=bucket, Key=key, Body=damaged)
    assert_refused(run_cli, named, "identities/one.json cannot be read", "checksum", exit_code=1)
    assert client.get_object(Bucket=bucket, Key=key)["Body"].read() == damaged
