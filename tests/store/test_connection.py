"""Connections to S3 servers, as options and the environment give them; no request is sent."""

from __future__ import annotations

from pathlib import Path

import pytest

from untrusted_s3.errors import InvalidEndpoint, StoreRefused, UsageError
from untrusted_s3.settings import StoreSettings
from untrusted_s3.store.connection import S3Credentials, connect

CREDENTIALS = S3Credentials("access", "secret")


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://host with space"])
def test_an_endpoint_url_that_is_none(url: str) -> None:
    with pytest.raises(InvalidEndpoint):
        connect(url, CREDENTIALS)


def test_a_profile_that_does_not_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_PROFILE", "missing")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    with pytest.raises(StoreRefused, match="AWS_PROFILE"):
        connect(None)


def test_a_region_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "not a region")
    with pytest.raises(UsageError, match="not a region") as caught:
        connect("http://127.0.0.1:9", CREDENTIALS)
    assert not isinstance(caught.value, InvalidEndpoint)


def test_settings_reach_the_client() -> None:
    config = connect(None, CREDENTIALS, StoreSettings(timeout=770.0, connect_timeout=630.0)).client.meta.config
    assert (config.read_timeout, config.connect_timeout) == (770.0, 630.0)  # type: ignore[attr-defined]
    assert config.retries["total_max_attempts"] == 1  # type: ignore[attr-defined]


def test_the_secret_is_not_shown() -> None:
    assert "secret" not in repr(CREDENTIALS).replace("secret_key", "")
