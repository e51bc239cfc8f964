"""What is written to the embedded store reaches the disk when others rely on it."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from tests.store.http_server import Answer, Request, http_server
from tests.waiting import PATIENCE, wait_until
from untrusted_s3.errors import PreconditionFailed, StoreUnreachable
from untrusted_s3.store import layout
from untrusted_s3.store.connection import S3Credentials, connect
from untrusted_s3.store.embedded.disk_sync import DiskSync, EmbeddedBucket
from untrusted_s3.store.layout import FolderKeys, StoreLocation

KEYS = FolderKeys.of("folder")
OBJECT = KEYS.object("name", "0" * 32)
OTHERS = [layout.STORE, KEYS.record, KEYS.segment(1), KEYS.checkpoint(1), "peers/objects/x/y.json"]


def path_of(descriptor: int) -> Path:
    return Path(f"/proc/self/fd/{descriptor}").readlink()


def age(*paths: Path) -> None:
    for path in paths:
        os.utime(path, (1e9, 1e9))


def test_changed_files_and_directories_are_synced_and_others_not(tmp_path: Path) -> None:
    synced: list[Path] = []
    disk = DiskSync(tmp_path, lambda descriptor: synced.append(path_of(descriptor)))
    inner, first, second = tmp_path / "inner", tmp_path / "inner/first", tmp_path / "second"
    inner.mkdir()
    first.write_bytes(b"1")
    second.write_bytes(b"2")
    (tmp_path / "pipe").symlink_to("second")
    age(first, second, inner, tmp_path)
    disk.sync()
    assert sorted(synced) == sorted([first, inner, second, tmp_path])
    assert synced.index(first) < synced.index(inner) < synced.index(tmp_path)
    synced.clear()
    disk.sync()
    assert synced == []
    first.write_bytes(b"12")
    disk.sync()
    assert synced == [first]
    synced.clear()
    disk.sync()
    assert synced == [first]  # it could have changed once more at the same time
    age(first)
    disk.sync()
    synced.clear()
    second.unlink()
    disk.sync()
    assert synced == [tmp_path]


def test_a_failure_is_raised_and_the_file_is_synced_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    age(tmp_path / "file", tmp_path)
    failing = [True]
    synced: list[Path] = []

    def fsync(descriptor: int) -> None:
        if failing.pop() if failing else False:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        synced.append(path_of(descriptor))

    disk = DiskSync(tmp_path, fsync)
    with pytest.raises(OSError, match="Input/output"):
        disk.sync()
    disk.sync()
    assert synced == [tmp_path / "file", tmp_path]


def test_callers_that_wait_share_one_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    begun, go = threading.Event(), threading.Event()
    runs: list[Path] = []

    def fsync(descriptor: int) -> None:
        runs.append(path_of(descriptor))
        begun.set()
        assert go.wait(PATIENCE)

    disk = DiskSync(tmp_path, fsync)
    first = threading.Thread(target=disk.sync)
    first.start()
    assert begun.wait(PATIENCE)
    others = [threading.Thread(target=disk.sync) for _ in range(10)]
    for other in others:
        other.start()
    wait_until(lambda: disk.waiting == 10)
    go.set()
    for thread in (first, *others):
        thread.join(PATIENCE)
    assert runs.count(tmp_path) == 2  # of the first caller, and of one for all others


class CountingDisk(DiskSync):
    """Counts its calls, and may fail."""

    def __init__(self, error: OSError | None = None) -> None:
        super().__init__(Path("nowhere"))
        self.calls = 0
        self._error = error

    def sync(self) -> None:
        self.calls += 1
        if self._error is not None:
            raise self._error


def opened(url: str, disk: DiskSync) -> EmbeddedBucket:
    bucket = EmbeddedBucket(StoreLocation("bucket", ""), connect(url, S3Credentials("a", "s")))
    bucket.disk = disk
    return bucket


async def test_all_but_the_data_of_files_is_on_the_disk_when_a_write_returns() -> None:
    disk = CountingDisk()
    with http_server(lambda request: Answer()) as url:
        bucket = opened(url, disk)
        await bucket.put(OBJECT, [b"data"])
        assert disk.calls == 0
        for calls, key in enumerate(OTHERS, 1):
            await bucket.put(key, [b"data"])
            assert disk.calls == calls
        await bucket.delete(layout.STORE)
        assert disk.calls == len(OTHERS) + 1
        await bucket.close()


async def test_a_key_that_is_taken_may_be_our_own_and_is_synced() -> None:
    def answer(request: Request) -> Answer:
        return Answer(status=412)

    disk = CountingDisk()
    with http_server(answer) as url:
        bucket = opened(url, disk)
        with pytest.raises(PreconditionFailed):
            await bucket.put(KEYS.segment(1), [b"data"], if_none_match=True)
        await bucket.close()
    assert disk.calls == 1


async def test_a_disk_that_fails_is_a_store_that_fails() -> None:
    disk = CountingDisk(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with http_server(lambda request: Answer()) as url:
        bucket = opened(url, disk)
        with pytest.raises(StoreUnreachable, match="No space left"):
            await bucket.put(KEYS.segment(1), [b"data"])
        await bucket.close()
