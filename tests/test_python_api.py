"""The public surface is what docs/python-api.md says, and it costs nothing until it is used."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import untrusted_s3
from tests.peers.s3_server import S3Server
from tests.vault.stored_folder import FOLDER_ID, MODIFIED_NS, PASSWORD, START, StoredFolder
from tests.waiting import PATIENCE
from untrusted_s3.store.connection import S3Credentials
from untrusted_s3.store.layout import StoreLocation
from untrusted_s3.store.s3 import S3Bucket

DOCUMENT = Path(__file__).parents[1] / "docs" / "python-api.md"


def test_the_document_names_what_is_public_and_nothing_else() -> None:
    section = DOCUMENT.read_text(encoding="utf-8").partition("\n## Public names\n")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == sorted(untrusted_s3.__all__)


@pytest.mark.parametrize("name", untrusted_s3.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert name in dir(untrusted_s3)
    value = getattr(untrusted_s3, name)
    assert name == "__version__" or value.__name__ == name


def test_nothing_else_is_given() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Restoration'"):
        untrusted_s3.Restoration  # type: ignore[attr-defined]  # noqa: B018


def test_importing_the_package_loads_nothing_else() -> None:
    program = "\n".join(
        [
            "import sys",
            "import importlib, typing",
            "before = set(sys.modules)",
            "import untrusted_s3",
            "print(sorted(set(sys.modules) - before))",
        ]
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert found.stdout.strip() == "['untrusted_s3']"


@pytest.mark.store
async def test_the_example(
    s3_server: S3Server,
    bucket_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    location = StoreLocation(s3_server.bucket, bucket_prefix + "/")
    credentials = S3Credentials(s3_server.access_key, s3_server.secret_key)
    bucket = await S3Bucket.open(location, s3_server.endpoint_url, credentials)
    stored = await StoredFolder(bucket, tmp_path).create()
    await stored.append(stored.directory("sub"), await stored.file("sub/file", b"first"), time=START)
    await stored.append(await stored.file("sub/file", b"the second version"), await stored.file("../out"), time=START)
    await bucket.close()

    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    namespace: dict[str, Any] = {}
    exec(compile(example, str(DOCUMENT), "exec"), namespace)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    await namespace["main"](str(location), s3_server.endpoint_url, FOLDER_ID, PASSWORD)
    since = "  since 2023-11-14 22:13:20+00:00"
    assert capsys.readouterr().out.splitlines() == [
        f"sub/file 18 {MODIFIED_NS} b'the second versi'",
        since,
        since,
        "damaged: ../out its name is not a harmless path",
    ]
