"""The metadata that a file info gives a file on the disk."""

from __future__ import annotations

import os
import pwd
import stat
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from untrusted_s3.bep import bep_pb2 as pb
from untrusted_s3.bep.file_info import FileInfo
from untrusted_s3.restore.metadata import Metadata
from untrusted_s3.vault.entry import Entry, Kind

xattr_names = st.one_of(
    st.sampled_from([b"user.", b"user.x", b"User.x", b"security.capability", b"system.posix_acl_access", b"trusted.x"]),
    st.binary(max_size=9),
)


def metadata(real: pb.FileInfo, *, asked: bool = False) -> Metadata:
    real.name = "file"
    kind = {pb.FILE: Kind.FILE, pb.DIRECTORY: Kind.DIRECTORY}.get(real.type, Kind.SYMLINK)
    entry = Entry("file", kind, real, FileInfo(b"", pb.FileInfo()), None, "")
    return Metadata.of(entry, owner=asked, xattrs=asked)


def test_time_and_permissions_come_from_the_file_info() -> None:
    real = pb.FileInfo(type=pb.FILE, permissions=0o644, modified_s=-1, modified_ns=999_999_999)
    assert metadata(real) == Metadata(0o644, -1)


def test_setuid_bits_do_not_come_from_a_bucket() -> None:
    assert metadata(pb.FileInfo(type=pb.FILE, permissions=0o104_4755)).mode == 0o755


def test_permissions_that_a_device_ignores_are_not_set() -> None:
    assert metadata(pb.FileInfo(type=pb.DIRECTORY, permissions=0o755, no_permissions=True)).mode is None


def test_a_symlink_has_no_permissions_and_perhaps_no_time() -> None:
    assert metadata(pb.FileInfo(type=pb.SYMLINK, permissions=0o777)) == Metadata()
    assert metadata(pb.FileInfo(type=pb.SYMLINK, modified_s=1)).modified_ns == 1_000_000_000


def test_ownership_and_attributes_only_where_asked_for() -> None:
    platform = pb.PlatformData(unix=pb.UnixData(uid=1234, gid=5678))
    platform.linux.xattrs.add(name=b"user.colour", value=b"red")
    real = pb.FileInfo(type=pb.FILE, platform=platform.SerializeToString())
    assert metadata(real) == Metadata(0, 0)
    assert metadata(real, asked=True) == Metadata(0, 0, (1234, 5678), (("user.colour", b"red"),))
    assert metadata(pb.FileInfo(type=pb.FILE), asked=True).owner is None


@given(st.lists(st.tuples(xattr_names, st.binary(max_size=9)), max_size=6), st.integers(0, 2**32 - 1))
def test_nothing_that_gives_rights_comes_from_a_bucket(xattrs: Any, permissions: int) -> None:
    platform = pb.PlatformData()
    for name, value in xattrs:
        platform.linux.xattrs.add(name=name, value=value)
    real = pb.FileInfo(type=pb.FILE, permissions=permissions, platform=platform.SerializeToString())
    found = metadata(real, asked=True)
    assert (found.mode or 0) & ~0o777 == 0
    assert all(name.startswith("user.") for name, _ in found.xattrs)
    names = {os.fsdecode(name) for name, _ in xattrs}
    assert {name for name, _ in found.xattrs} | set(found.left_out) == names
    assert not any(name.startswith("user.") for name in found.left_out)


def test_attributes_that_give_rights_are_set_where_asked_for_and_else_listed(tmp_path: Path) -> None:
    platform = pb.PlatformData()
    for name in (b"user.colour", b"security.capability", b"trusted.overlay.opaque"):
        platform.linux.xattrs.add(name=name, value=b"1")
    real = pb.FileInfo(type=pb.FILE, platform=platform.SerializeToString())
    set_names: list[str] = []

    def note(descriptor: int, name: str, value: bytes) -> None:
        set_names.append(name)

    with mock.patch("os.setxattr", note), (tmp_path / "file").open("w") as opened:
        refused = metadata(real, asked=True).apply(opened.fileno())
    assert set_names == ["user.colour"]
    assert refused == [
        "extended attribute security.capability: its namespace is not user",
        "extended attribute trusted.overlay.opaque: its namespace is not user",
    ]
    entry = Entry("file", Kind.FILE, real, FileInfo(b"", pb.FileInfo()), None, "")
    everything = Metadata.of(entry, privileged_xattrs=True)
    assert (len(everything.xattrs), everything.left_out) == (3, ())


def test_platform_data_that_cannot_be_parsed_count_as_missing() -> None:
    assert metadata(pb.FileInfo(type=pb.FILE, platform=b"\xff\xff"), asked=True) == Metadata(0, 0)


def test_a_name_of_this_machine_counts_more_than_a_number() -> None:
    here = pwd.getpwuid(os.getuid())
    unix = pb.UnixData(owner_name=here.pw_name.encode(), uid=4242, group_name=b"no such group here", gid=77)
    real = pb.FileInfo(type=pb.FILE, platform=pb.PlatformData(unix=unix).SerializeToString())
    assert metadata(real, asked=True).owner == (here.pw_uid, 77)


def test_attributes_are_set(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    try:
        os.setxattr(file, "user.probe", b"")
    except OSError as error:
        pytest.skip(f"no extended attributes here: {error}")
    with file.open("r+b") as opened:
        assert Metadata(mode=0o444, xattrs=(("user.colour", b"red"),)).apply(opened.fileno()) == []
    assert os.getxattr(file, "user.colour") == b"red"
    assert stat.S_IMODE(file.stat().st_mode) == 0o444


def test_what_the_system_refuses_is_reported_and_the_rest_is_set(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    impossible = Metadata(0o604, 5, (-7, -7), (("no.such.namespace", b""), ("user.nul\0", b"")))
    with file.open("r+b") as opened:
        refused = impossible.apply(opened.fileno())
    assert [what.partition(":")[0] for what in refused] == [
        "ownership",
        "extended attribute no.such.namespace",
        "extended attribute user.nul\0",
    ]
    assert (stat.S_IMODE(file.stat().st_mode), file.stat().st_mtime_ns) == (0o604, 5)


def test_an_impossible_time_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with file.open("r+b") as opened:
        (refused,) = Metadata(modified_ns=(1 << 63) * 1_000_000_000).apply(opened.fileno())
    assert refused.startswith("modification time")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_ownership_is_set_of_files_and_of_symlinks_themselves(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    with (tmp_path / "file").open("r+b") as opened:
        assert Metadata(owner=(1234, 5678)).apply(opened.fileno()) == []
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        assert Metadata(owner=(1, 2), modified_ns=3).apply_to_symlink(b"link", directory) == []
    finally:
        os.close(directory)
    file, link = (tmp_path / "file").stat(), (tmp_path / "link").lstat()
    assert (file.st_uid, file.st_gid) == (1234, 5678)
    assert (link.st_uid, link.st_gid, link.st_mtime_ns) == (1, 2, 3)
