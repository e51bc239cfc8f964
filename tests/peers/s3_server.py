"""The S3 servers of the tests, and marks for tests that run on each of them."""

from __future__ import annotations

import pytest

from tests.peers.debian import SYNCTHING_VERSIONS
from untrusted_s3.compat.commands import ReachableStore as S3Server

__all__ = ["S3Server", "on_each_peer", "on_each_s3_server"]

_CEPH = pytest.mark.ceph
on_each_s3_server = pytest.mark.parametrize(
    "s3_server", ["seaweedfs", pytest.param("ceph_rgw", marks=_CEPH)], indirect=True
)
"""Runs a test that uses the fixture `s3_server`, also indirectly, on SeaweedFS and on Ceph RGW."""

on_each_peer = pytest.mark.parametrize(
    ("syncthing_version", "s3_server"),
    [
        *((version, "seaweedfs") for version in SYNCTHING_VERSIONS),
        pytest.param(SYNCTHING_VERSIONS[-1], "ceph_rgw", marks=_CEPH),
    ],
    indirect=True,
)
"""Runs a test that also uses `syncthing_binary` with all its versions on SeaweedFS, and the newest one on Ceph RGW."""
