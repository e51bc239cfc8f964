"""Derives each folder key once."""

from __future__ import annotations

import pytest

from tests.vault.stored_folder import derive
from untrusted_s3.crypto.folder_key import FolderKey


@pytest.fixture(autouse=True)
def _derive_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reuse folder keys: a derivation takes a tenth of a second."""
    monkeypatch.setattr(FolderKey, "derive", derive)
