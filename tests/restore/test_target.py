"""Writing below a directory, whatever the names are and whatever exists there already."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from untrusted_s3.errors import NotRestored, PathTaken, UsageError
from untrusted_s3.restore.descriptors import path_components
from untrusted_s3.restore.metadata import Metadata
from untrusted_s3.restore.target import Target

PLAIN = Metadata(mode=0o640, modified_ns=1_234_567_890_123_456_789)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "target"


@pytest.fixture
def target(root: Path) -> Iterator[Target]:
    with Target(root) as opened:
        yield opened


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory outside the target, which must stay unchanged."""
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "precious").write_bytes(b"precious")
    return directory


def write(target: Target, path: str, data: bytes, metadata: Metadata = PLAIN, *, overwrite: bool = False) -> list[str]:
    with target.new_file(path, metadata, overwrite=overwrite) as file:
        file.write(0, data)
        return file.finish(len(data))


def names(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


# What is written


def test_a_file_has_content_mode_and_time(target: Target, root: Path) -> None:
    before = descriptors()
    assert write(target, "a/b/file", b"content") == []
    file = root / "a/b/file"
    assert file.read_bytes() == b"content"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert file.stat().st_mtime_ns == PLAIN.modified_ns
    assert names(root) == {"a", "a/b", "a/b/file"}
    assert descriptors() == before


def test_without_permissions_the_umask_decides(target: Target, root: Path) -> None:
    before = os.umask(0o027)
    try:
        write(target, "file", b"", Metadata())
        target.make_directory("directory")
    finally:
        os.umask(before)
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((root / "directory").stat().st_mode) == 0o750


def test_nobody_else_can_read_an_unfinished_file(target: Target, root: Path) -> None:
    with target.new_file("file", Metadata(mode=0o644)) as file:
        file.write(0, b"secret")
        (temporary,) = root.iterdir()
        assert stat.S_IMODE(temporary.stat().st_mode) == 0o600
        file.finish(6)
    assert stat.S_IMODE((root / "file").stat().st_mode) == 0o644


def test_a_file_that_is_not_finished_leaves_nothing(target: Target, root: Path) -> None:
    before = descriptors()
    with pytest.raises(KeyboardInterrupt), target.new_file("file", PLAIN) as file:
        file.write(0, b"half")
        raise KeyboardInterrupt
    assert names(root) == set()
    assert descriptors() == before


def test_directories_get_their_metadata_afterwards(target: Target, root: Path) -> None:
    target.make_directory("closed", 0o700)
    write(target, "closed/file", b"1")
    assert target.set_metadata("closed", Metadata(mode=0o500, modified_ns=5)) == []
    status = (root / "closed").stat()
    assert (stat.S_IMODE(status.st_mode), status.st_mtime_ns) == (0o500, 5)
    # Again, as after an interruption: the directory must be writable.
    target.make_directory("closed", 0o700)
    assert stat.S_IMODE((root / "closed").stat().st_mode) == 0o700


def test_a_symlink_keeps_its_target_unchanged(target: Target, root: Path) -> None:
    for number, link_target in enumerate((b"../../outside", b"/etc/passwd", b"nowhere", b"\xff not UTF-8")):
        assert target.make_symlink(f"links/{number}", link_target, Metadata(modified_ns=number)) == []
        assert os.fsencode((root / f"links/{number}").readlink()) == link_target
        assert target.link_target(f"links/{number}") == link_target
        assert (root / f"links/{number}").lstat().st_mtime_ns == number


def test_the_target_is_made_and_may_be_reached_by_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real").mkdir()
    with Target(tmp_path / "link" / "new" / "one") as target:
        write(target, "file", b"1")
    assert (tmp_path / "real/new/one/file").read_bytes() == b"1"


def test_a_target_that_is_a_file_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="nothing can be restored to"):
        Target(tmp_path / "file")


# What is there already


def test_nothing_is_replaced_without_overwrite(target: Target, root: Path) -> None:
    write(target, "file", b"mine")
    (root / "link").symlink_to("file")
    for path in ("file", "link"):
        with pytest.raises(PathTaken, match="something else is there"):
            write(target, path, b"theirs")
        with pytest.raises(PathTaken, match="something else is there"):
            target.make_symlink(path, b"elsewhere", Metadata())
    assert names(root) == {"file", "link"}
    assert (root / "file").read_bytes() == b"mine"
    assert (root / "link").readlink() == Path("file")


def test_a_file_that_appears_meanwhile_is_not_replaced(target: Target, root: Path) -> None:
    with target.new_file("file", PLAIN) as file:
        file.write(0, b"theirs")
        (root / "file").write_bytes(b"mine")
        with pytest.raises(NotRestored, match="something else is there"):
            file.finish(6)
    assert (root / "file").read_bytes() == b"mine"
    assert names(root) == {"file"}


def test_overwriting_replaces_the_link_not_its_target(target: Target, root: Path, outside: Path) -> None:
    (root / "hard").hardlink_to(outside / "precious")
    (root / "soft").symlink_to(outside / "precious")
    for path in ("hard", "soft"):
        write(target, path, b"theirs", overwrite=True)
        assert (root / path).read_bytes() == b"theirs"
        assert not (root / path).is_symlink()
    assert (outside / "precious").read_bytes() == b"precious"
    target.make_symlink("soft", b"there", Metadata(), overwrite=True)
    assert (root / "soft").readlink() == Path("there")


def test_a_directory_is_never_replaced(target: Target, root: Path) -> None:
    write(target, "directory/file", b"mine")
    with pytest.raises(NotRestored, match="a directory is in its place"):
        write(target, "directory", b"theirs", overwrite=True)
    with pytest.raises(NotRestored, match="a directory is in its place"):
        target.make_symlink("directory", b"there", Metadata(), overwrite=True)
    assert names(root) == {"directory", "directory/file"}


def test_a_file_never_becomes_a_directory(target: Target, root: Path) -> None:
    write(target, "file", b"mine")
    with pytest.raises(NotRestored, match="where a directory should be"):
        write(target, "file/below", b"theirs", overwrite=True)
    with pytest.raises(NotRestored, match="where a directory should be"):
        target.make_directory("file")
    assert (root / "file").read_bytes() == b"mine"


def test_status(target: Target, root: Path) -> None:
    write(target, "file", b"1234")
    (root / "link").symlink_to("file")
    status, link = target.status("file"), target.status("link")
    assert status is not None and (status.st_size, status.st_mtime_ns) == (4, PLAIN.modified_ns)
    assert link is not None and stat.S_ISLNK(link.st_mode)
    assert target.status("missing") is None
    assert target.status("missing/below") is None


def test_without_hard_links_a_rename_does(target: Target, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    write(target, "file", b"first")
    with pytest.raises(NotRestored, match="something else is there"):
        write(target, "file", b"second")
    assert (root / "file").read_bytes() == b"first"
    assert names(root) == {"file"}


# Names and symlinks that lead out


@pytest.mark.parametrize(
    "path",
    ["", ".", "..", "../x", "a/../../x", "/etc/x", "a//b", "a/", "/", "a/./b", "a/..", "nul\0", "a\0/../b", "a/b\0c"],
)
def test_a_name_that_leads_out_is_refused(target: Target, root: Path, path: str) -> None:
    acts: list[Callable[[], object]] = [
        lambda: path_components(path),
        lambda: write(target, path, b"1", overwrite=True),
        lambda: target.make_directory(path),
        lambda: target.make_symlink(path, b"x", Metadata(), overwrite=True),
        lambda: target.set_metadata(path, PLAIN),
        lambda: target.status(path),
    ]
    for act in acts:
        with pytest.raises(NotRestored, match="no path below the target"):
            act()
    assert names(root) == set()
    assert names(root.parent) == {"target"}


def test_a_symlink_in_the_way_is_not_followed(target: Target, root: Path, outside: Path) -> None:
    (root / "way").symlink_to(outside)
    (root / "nested").mkdir()
    (root / "nested/way").symlink_to("../../outside")
    before = outside.stat()
    for way in ("way", "nested/way"):
        acts: list[Callable[[str], object]] = [
            lambda way: write(target, f"{way}/precious", b"theirs", overwrite=True),
            lambda way: write(target, f"{way}/new/file", b"theirs"),
            lambda way: target.make_directory(f"{way}/new"),
            lambda way: target.make_directory(way),
            lambda way: target.make_symlink(f"{way}/new", b"x", Metadata()),
            lambda way: target.set_metadata(f"{way}/precious", PLAIN),
            lambda way: target.set_metadata(way, PLAIN),
            lambda way: target.status(f"{way}/precious"),
        ]
        for act in acts:
            with pytest.raises(NotRestored, match="a symlink or a file is where a directory should be"):
                act(way)
    assert names(outside) == {"precious"}
    assert (outside / "precious").read_bytes() == b"precious"
    assert (outside.stat().st_mode, outside.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)


def test_a_directory_that_becomes_a_symlink_while_a_file_is_written(target: Target, root: Path, outside: Path) -> None:
    with target.new_file("directory/precious", PLAIN, overwrite=True) as file:
        (root / "directory").rename(root / "moved")
        (root / "directory").symlink_to(outside)
        file.write(0, b"theirs")
        file.finish(6)
    assert (outside / "precious").read_bytes() == b"precious"
    assert (root / "moved/precious").read_bytes() == b"theirs"


def test_a_symlink_with_the_temporary_name_is_not_followed(
    target: Target, root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: "guessed")
    (root / ".untrusted-s3-guessed.tmp").symlink_to(outside / "precious")
    with pytest.raises(NotRestored):
        write(target, "file", b"theirs", overwrite=True)
    assert (outside / "precious").read_bytes() == b"precious"


def test_a_name_that_is_too_long_is_reported(target: Target) -> None:
    with pytest.raises(NotRestored, match="File name too long"):
        write(target, "x" * 256, b"1")


# What the system refuses


def test_a_full_disk_is_reported(target: Target, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(NotRestored, match="No space left on device"):
        write(target, "file", b"1")
    assert names(root) == set()


def test_a_write_that_comes_up_short_goes_on(target: Target, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:3], offset))
    write(target, "file", b"0123456789")
    assert (root / "file").read_bytes() == b"0123456789"
