"""Keys are derived once for each password."""

from __future__ import annotations

import pytest

from tests.vault.stored_folder import derive
from untrusted_s3.crypto.folder_key import FolderKey


@pytest.fixture(autouse=True)
def _derive_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A derivation takes a tenth of a second; that it is made only once is a test of its own."""
    monkeypatch.setattr(FolderKey, "derive", derive)
