"""Fixtures that every folder of tests uses: event loops, and real programs.

A test whose program is missing is skipped. With UNTRUSTED_S3_REQUIRE_PEERS=1, as in CI, it fails.

Async tests run on uvloop, which the gateway uses, and on asyncio. Tests of real peers run on uvloop alone: the gateway
is a child process there. `tests.loops.one_loop` marks long tests that run on uvloop alone, and
`tests.virtual_time.virtual_time` tests whose time is simulated.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, cast
from unittest import mock

import pytest
from botocore.loaders import create_loader
from hypothesis import HealthCheck, settings

from tests.interop.order import SECONDS
from tests.loops import LOOPS, RunAsync
from tests.peers.ceph import CephRGW
from tests.peers.ceph import ceph_rgw as run_ceph_rgw
from tests.peers.debian import SYNCTHING_VERSIONS, PeerUnavailable, SyncthingVersion
from tests.peers.debian import rclone as fetch_rclone
from tests.peers.debian import syncthing_binary as fetch_syncthing
from tests.peers.s3_server import S3Server
from tests.virtual_time import CONTROLLED_LOOPS
from tests.waiting import PATIENCE
from untrusted_s3.errors import UsageError
from untrusted_s3.settings import EmbeddedSettings
from untrusted_s3.store.embedded.process import find_weed
from untrusted_s3.store.embedded.server import EmbeddedStore

# On a loaded machine an example may take any time, and so may its generation.
_PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("local", **_PATIENT)
# The same examples in each run: what a change breaks must show with that change, not with a later one.
settings.register_profile("ci", **_PATIENT, derandomize=True)
settings.load_profile(os.environ.get("UNTRUSTED_S3_TEST_PROFILE", "local"))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--shuffle SEED`, which runs modules, and the tests of each, in another order."""
    parser.addoption("--shuffle", type=int, metavar="SEED", help="run the tests in an order that the seed determines")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return the event loops that an async test runs on, by the part of its name that stands for the loop."""
    marker = item.get_closest_marker("asyncio")
    for name in marker.kwargs.get("loop_factories") or () if marker is not None else ():
        if name in CONTROLLED_LOOPS:
            return {name: CONTROLLED_LOOPS[name]}
    return {"uvloop": LOOPS["uvloop"]} if item.get_closest_marker("interop") else LOOPS


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave tests on Ceph to uvloop: only their parameters tell them from those on SeaweedFS.

    Let files of tests that take long begin first, or shuffle if asked to.
    """
    twice = [
        item
        for item in items
        if item.get_closest_marker("ceph")
        and isinstance(item, pytest.Function)
        and LOOPS["asyncio"] in item.callspec.params.values()
    ]
    if twice:
        config.hook.pytest_deselected(items=twice)
        items[:] = [item for item in items if item not in twice]
    if (seed := config.getoption("--shuffle")) is not None:
        numbers = random.Random(seed)
        modules = {item.path: numbers.random() for item in items}
        places = {item: (modules[item.path], numbers.random()) for item in items}
        items.sort(key=places.__getitem__)
    else:
        items.sort(key=_turn)


def _turn(item: pytest.Item) -> tuple[int, str]:
    """Return a key by which tests are sorted: long files first, each as one, and the others as they are."""
    seconds = SECONDS.get(item.path.name, 0) if item.get_closest_marker("interop") else 0
    return -seconds, item.path.name if seconds else ""


@pytest.fixture(scope="session", params=LOOPS.values(), ids=list(LOOPS))
def run_async(request: pytest.FixtureRequest) -> RunAsync:
    """Run a coroutine on a new event loop: for tests that are not coroutines, on each loop."""

    def run(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(work)

    return run


@pytest.fixture(scope="session", autouse=True)
def _service_models_are_read_once() -> Iterator[None]:
    """Share what botocore reads from its files: it would read them for every connection to a store."""
    loader = create_loader()
    with mock.patch("botocore.session.create_loader", lambda search_path=None: loader):
        yield


def _unavailable(error: Exception) -> NoReturn:
    if os.environ.get("UNTRUSTED_S3_REQUIRE_PEERS") == "1":
        pytest.fail(str(error))
    pytest.skip(str(error))


@pytest.fixture(scope="session")
def weed() -> Path:
    """Return SeaweedFS's program."""
    try:
        return find_weed()
    except UsageError as error:
        _unavailable(error)


@pytest.fixture(scope="session")
def seaweedfs(weed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """Run a SeaweedFS for all tests of the session."""
    with EmbeddedStore.start(tmp_path_factory.mktemp("seaweedfs"), EmbeddedSettings(start_timeout=PATIENCE)) as store:
        yield store


@pytest.fixture(scope="session")
def ceph_rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CephRGW]:
    """Run a Ceph RGW for all tests of the session."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(run_ceph_rgw(tmp_path_factory.mktemp("ceph") / "data"))
        except PeerUnavailable as error:
            _unavailable(error)
        yield server


@pytest.fixture(scope="session")
def s3_server(request: pytest.FixtureRequest) -> S3Server:
    """Return the S3 server of the test: SeaweedFS, unless `tests.peers.s3_server.on_each_s3_server` says otherwise."""
    server: S3Server = request.getfixturevalue(getattr(request, "param", "seaweedfs"))
    return server


@pytest.fixture
def bucket_prefix() -> str:
    """Return a prefix of keys that no other test uses."""
    return f"test-{uuid.uuid4().hex}"


@pytest.fixture(scope="session", params=SYNCTHING_VERSIONS)
def syncthing_version(request: pytest.FixtureRequest) -> SyncthingVersion:
    """Return each tested version of Syncthing in turn."""
    return cast(SyncthingVersion, request.param)


@pytest.fixture(scope="session")
def syncthing_binary(syncthing_version: SyncthingVersion) -> Path:
    """Return the program of that version of Syncthing."""
    try:
        return fetch_syncthing(syncthing_version)
    except PeerUnavailable as error:
        _unavailable(error)


@pytest.fixture(scope="session")
def syncthing_binaries() -> dict[SyncthingVersion, Path]:
    """Return the programs of all tested versions of Syncthing."""
    try:
        return {version: fetch_syncthing(version) for version in SYNCTHING_VERSIONS}
    except PeerUnavailable as error:
        _unavailable(error)


@pytest.fixture(scope="session")
def rclone() -> Path:
    """Return the program."""
    try:
        return fetch_rclone()
    except PeerUnavailable as error:
        _unavailable(error)
