"""The S3 servers of the tests: what they have in common, and the mark of a test that is to hold on each of them."""

from __future__ import annotations

import pytest

from tests.peers.debian import SYNCTHING_VERSIONS
from untrusted_s3.compat.commands import ReachableStore as S3Server

__all__ = ["S3Server", "on_each_peer", "on_each_s3_server"]

_CEPH = pytest.mark.ceph
on_each_s3_server = pytest.mark.parametrize(
    "s3_server", ["seaweedfs", pytest.param("ceph_rgw", marks=_CEPH)], indirect=True
)
"""For a test that uses the fixture `s3_server`, perhaps by way of others: runs it on SeaweedFS and on Ceph RGW."""

on_each_peer = pytest.mark.parametrize(
    ("syncthing_version", "s3_server"),
    [
        *((version, "seaweedfs") for version in SYNCTHING_VERSIONS),
        pytest.param(SYNCTHING_VERSIONS[-1], "ceph_rgw", marks=_CEPH),
    ],
    indirect=True,
)
"""For a test that uses `syncthing_binary` as well: runs it with all versions of Syncthing on SeaweedFS, and with the
newest on Ceph RGW."""
