"""Fixtures that need real programs.

Where one cannot be had, its tests are skipped; with UNTRUSTED_S3_REQUIRE_PEERS=1, as in CI, they fail.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, cast

import pytest

from tests.peers.ceph import CephRGW
from tests.peers.ceph import ceph_rgw as run_ceph_rgw
from tests.peers.debian import SYNCTHING_VERSIONS, PeerUnavailable, SyncthingVersion
from tests.peers.debian import syncthing_binary as fetch_syncthing
from tests.peers.s3_server import S3Server
from untrusted_s3.errors import UsageError
from untrusted_s3.store.embedded.process import find_weed
from untrusted_s3.store.embedded.server import EmbeddedStore


def _unavailable(error: Exception) -> NoReturn:
    if os.environ.get("UNTRUSTED_S3_REQUIRE_PEERS") == "1":
        pytest.fail(str(error))
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def weed() -> Path:
    """SeaweedFS's program."""
    try:
        return find_weed()
    except UsageError as error:
        _unavailable(error)


@pytest.fixture(scope="session")
def seaweedfs(weed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """A real S3 server, shared by all tests of the run."""
    with EmbeddedStore.start(tmp_path_factory.mktemp("seaweedfs")) as store:
        yield store


@pytest.fixture(scope="session")
def ceph_rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephRGW]:
    """Another real S3 server, shared as well."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(run_ceph_rgw(tmp_path_factory.mktemp("ceph") / "data"))
        except PeerUnavailable as error:
            _unavailable(error)
        yield server


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """The S3 server of the test: SeaweedFS, but see `tests.peers.s3_server.on_each_s3_server`."""
    server: S3Server = request.getfixturevalue(getattr(request, "param", "seaweedfs"))
    return server


@pytest.fixture
def bucket_prefix() -> str:
    """A prefix of keys that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(scope="session", params=SYNCTHING_VERSIONS)
def syncthing_version(request: pytest.FixtureRequest) -> SyncthingVersion:
    """Each version of Syncthing that we test against."""
    return cast(SyncthingVersion, request.param)


@pytest.fixture(scope="session")
def syncthing_binary(syncthing_version: SyncthingVersion) -> Path:
    """The real Syncthing of `syncthing_version`."""
    try:
        return fetch_syncthing(syncthing_version)
    except PeerUnavailable as error:
        _unavailable(error)


@pytest.fixture(scope="session")
def syncthing_binaries() -> dict[SyncthingVersion, Path]:
    """The real Syncthings of all versions."""
    try:
        return {version: fetch_syncthing(version) for version in SYNCTHING_VERSIONS}
    except PeerUnavailable as error:
        _unavailable(error)
