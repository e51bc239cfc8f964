"""Damage of one folder, record or local file stops nothing else, and is said."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.gateway.damage import (
    DAMAGES,
    FOLDER_KINDS,
    LOCAL_DAMAGES,
    NOTICED,
    SOUND,
    STORE_KINDS,
    Trial,
    damage,
)
from tests.virtual_time import virtual_time
from untrusted_s3.errors import DataError
from untrusted_s3.replication.kinds import OF_STORE, of_folder
from untrusted_s3.store import layout
from untrusted_s3.store.layout import FolderKeys

pytestmark = virtual_time

_ALWAYS = dict.fromkeys(DAMAGES, "not open")
# A record of no bytes counts as missing, and so does a list of none.
_NOT_EMPTY = {how for how in DAMAGES if how != "empty"}
_UNREADABLE = ("refused", "failing")

# What is said of parts of the log that are not needed, and of garbage, depends on how far scrub and upkeep are.
_OF_THE_LOG = {"log damaged", "garbage not collected", "not scrubbed"}
_MAY_BE_SAID = dict.fromkeys(("first segment", "last segment", "checkpoint", "kept checkpoint", "garbage"), _OF_THE_LOG)

# By kind, what is said of each damage that is there when the gateway starts without a local state. The others do no
# harm, or are mended by the gateway, or are met when somebody needs what is damaged: `check` names them.
AT_THE_START: Mapping[str, Mapping[str, str]] = {
    "record": _ALWAYS,
    "object": dict.fromkeys(DAMAGES, "files missing") | {"refused": "objects not readable", "failing": "not scrubbed"},
    "last segment": dict.fromkeys(_UNREADABLE, "not open"),
    "checkpoint": dict.fromkeys(DAMAGES, "log damaged") | dict.fromkeys(_UNREADABLE, "not open"),
    "losses": dict.fromkeys(_NOT_EMPTY, "losses not readable"),
    "scrub": dict.fromkeys(_UNREADABLE, "not scrubbed"),
    "rules": dict.fromkeys(_NOT_EMPTY, "log not trimmed"),
    "history": dict.fromkeys(_NOT_EMPTY, "log not trimmed"),
    "present objects": dict.fromkeys(_UNREADABLE, "present objects not listed"),
}
# The same of damage that appears while the gateway runs, with a state in which everything is.
WHILE_IT_RUNS: Mapping[str, Mapping[str, str]] = {
    **{kind: AT_THE_START[kind] for kind in ("object", "scrub", "rules", "history", "present objects")},
    "record": dict.fromkeys(_NOT_EMPTY, "record not readable"),
    "last segment": dict.fromkeys(_NOT_EMPTY, "log damaged") | dict.fromkeys(_UNREADABLE, "no progress"),
}


async def test_no_kind_of_key_is_left_out() -> None:
    """A key of a new kind has to be damaged too."""
    keys = FolderKeys.of(SOUND)
    damaged = [prefix(keys) for prefix in FOLDER_KINDS.values()]
    assert not [place for place in of_folder(keys) if not any(key.startswith(place) for key in damaged)]
    apart = {layout.STORE, layout.FOLDERS}  # they have tests of their own
    assert not [
        place
        for place in OF_STORE
        if not any(key.startswith(place) for key in STORE_KINDS.values()) and place not in apart
    ]


@pytest.mark.parametrize("while_it_runs", [False, True])
async def test_damaged_keys_of_folders(tmp_path: Path, while_it_runs: bool) -> None:
    expected = WHILE_IT_RUNS if while_it_runs else AT_THE_START
    trial = Trial(tmp_path)
    with capture_logs():
        await trial.fill()
        keys = {}
        for kind in expected if while_it_runs else FOLDER_KINDS:
            prefix = FOLDER_KINDS[kind]
            for how in DAMAGES:
                folder_keys = await trial.copy_folder(f"{kind}-{how}".replace(" ", "-"))
                keys[kind, how] = folder_keys, trial.store.keys(prefix(folder_keys))[-1]

        def damage_all() -> None:
            for (_, how), (_, key) in keys.items():
                damage(trial, key, how)

        if not while_it_runs:
            damage_all()
        async with trial.running():
            if while_it_runs:
                damage_all()
            await trial.takes(SOUND)
            await asyncio.sleep(NOTICED)
            await trial.takes(SOUND)
            problems = list(trial.problems())
            refused = {}
            for (kind, how), (folder_keys, _) in keys.items():
                refused[kind, how] = await trial.is_refused(folder_keys.base.split("/")[1])
    for (kind, how), (folder_keys, _) in keys.items():
        folder_id = folder_keys.base.split("/")[1]
        names = (f"folder {folder_id}: ", f"folder {folder_keys.record}: ")
        said = {problem.rpartition(": ")[2] for problem in problems if problem.startswith(names)}
        named = expected.get(kind, {}).get(how)
        assert (named in said) if named is not None else said <= _MAY_BE_SAID.get(kind, set()), (kind, how, said)
        assert refused[kind, how] == ("not open" in said), "devices hear of it"
    assert not any(problem.startswith(f"folder {SOUND}") for problem in problems)


@pytest.mark.parametrize("how", DAMAGES)
async def test_damaged_records_of_the_store(tmp_path: Path, how: str) -> None:
    trial = Trial(tmp_path / "first")
    with capture_logs():
        await trial.fill()
        for prefix in STORE_KINDS.values():
            damage(trial, trial.store.keys(prefix)[-1], how)
        trial.home = tmp_path / "second"
        async with trial.running():
            await trial.takes(SOUND)
            await asyncio.sleep(NOTICED)
            await trial.takes(SOUND)
            problems = set(trial.problems())
    expected = {f"{STORE_KINDS[kind]}: not readable" for kind in ("quotas", "device")} if how != "empty" else set()
    if how == "bit":
        # It is in the key of an optional field.
        expected -= {f"{STORE_KINDS['device']}: not readable"}
    if how != "empty":
        expected |= {"history not known"}
    if how in _UNREADABLE:
        expected |= {"requests not written down"}
    assert problems == expected


async def test_without_the_record_of_the_store_no_gateway_starts(tmp_path: Path) -> None:
    """Nobody knows of which format version the store is."""
    trial = Trial(tmp_path)
    with capture_logs():
        await trial.fill()
        damage(trial, layout.STORE, "cut")
        with pytest.raises(DataError, match=r"store\.json cannot be read"):
            async with trial.running():
                pass


async def test_damaged_local_files(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    damaged = {}
    with capture_logs():
        await trial.fill()
        for name in ("state", "pending"):
            for how in LOCAL_DAMAGES:
                damaged[name, how] = f"{name}-{how}".replace(" ", "-")
                await trial.copy_folder(damaged[name, how])
        async with trial.running():
            pass
        for (name, how), folder_id in damaged.items():
            LOCAL_DAMAGES[how](trial.local_directory(folder_id) / f"{name}.sqlite")
        async with trial.running():
            await trial.takes(SOUND)
            await asyncio.sleep(NOTICED)
            await trial.takes(SOUND)
            problems = set(trial.problems())
            for (_, how), folder_id in damaged.items():
                is_unusable = how in ("no file", "link", "no log file")
                assert (f"folder {folder_id}: not open" in problems) == is_unusable
                assert await trial.is_refused(folder_id) == is_unusable
                if not is_unusable:
                    await trial.takes(folder_id)  # it was loaded from the store again
            assert len(problems) == 6
