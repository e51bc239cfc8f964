"""When a store that refuses objects counts as one that refuses everything."""

from __future__ import annotations

import pytest

from untrusted_s3.errors import ObjectArchived, RequestRefused
from untrusted_s3.vault.refusals import Refusals


def test_twenty_refusals_and_nothing_read_end_it() -> None:
    refusals = Refusals()
    for _ in range(19):
        refusals.note(RequestRefused("403"))
    with pytest.raises(RequestRefused):
        refusals.note(RequestRefused("403"))


def test_once_an_object_was_read_any_number_may_be_refused() -> None:
    refusals = Refusals()
    refusals.note_read()
    for _ in range(1000):
        refusals.note(RequestRefused("403"))


def test_archived_objects_do_not_count() -> None:
    refusals = Refusals()
    for _ in range(1000):
        refusals.note(ObjectArchived("cold"))
