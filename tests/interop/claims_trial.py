"""Plays the scenarios of `claims_scenarios` with real Syncthings, all at once: each is a folder of its own.

The devices run all the time. They are apart while they have paused each other, or the device in the middle.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from bench.sharing import PASSWORD
from tests.interop.claims_middles import GatewayMiddle, Middle, NativeMiddle
from tests.interop.claims_scenarios import (
    AWAY,
    COMES_BACK,
    DIRECTORY,
    Change,
    Delete,
    Forget,
    Join,
    MakeDirectory,
    Rename,
    Scenario,
    Tree,
    Write,
)
from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing
from tests.peers.trees import manifest

_FIRST_MINUTE = 1_767_225_600  # 2026-01-01: modification times are those of the scenarios
_CONFLICT: Final = re.compile(r"\.sync-conflict-\d{8}-\d{6}-[A-Z2-7]{7}")
_EVENTS: Final = "LocalIndexUpdated,RemoteIndexUpdated,StateChanged,ItemFinished,FolderErrors"
_MOST_ROUNDS = 8

# How long nothing happens before a meeting is over: where both have everything; where both know the other's index and
# something is lacking; and else.
_QUIET_SECONDS = 0.5
_STUCK_SECONDS = 2.5
_OUT_OF_STEP_SECONDS = 90.0
_LONGEST_MEETING = 180.0
_LONGEST_WAIT = 120.0
_POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Shown:
    """What a device says of another one's copy: `db/completion`.

    Attributes:
        percent: How much the other one has.
        items: How many items it lacks.
        sequence: Up to where this device has heard of the other one's index.
    """

    percent: float
    items: int
    sequence: int

    @property
    def complete(self) -> bool:
        """Whether the other one is shown as having everything."""
        return self.items == 0 and self.percent == 100

    @classmethod
    def of(cls, completion: Mapping[str, Any]) -> Self:
        """Read the answer of Syncthing."""
        items = completion["needItems"] + completion["needDeletes"]
        return cls(completion["completion"], items, completion["sequence"])


@dataclass(frozen=True)
class View:
    """What a device says of a folder.

    Attributes:
        state: As in Syncthing's interface.
        sequence: Of its own index.
        needs: How many items it needs itself.
        shown: What it says of the others' copies, or of that in the middle, by device ID.
    """

    state: str
    sequence: int
    needs: int
    shown: Mapping[str, Shown]

    @property
    def least(self) -> Shown:
        """What it says of the least complete copy."""
        return min(self.shown.values(), key=lambda shown: (shown.percent, -shown.items))


@dataclass(frozen=True)
class Outcome:
    """The end of a scenario.

    Attributes:
        trees: What each device has.
        views: What each device says.
        rounds: In how many rounds of meetings something changed after the last changes.
    """

    trees: Mapping[str, Tree]
    views: Mapping[str, View]
    rounds: int

    @property
    def complete(self) -> bool:
        """Whether all devices show the others, or the one in the middle, as having everything."""
        return all(view.least.complete for view in self.views.values())

    @property
    def state(self) -> object:
        """What changes when a meeting changes anything."""
        return self.trees, self.views

    def is_settled(self, present: Sequence[str]) -> bool:
        """Return whether these devices have the same, and show everything as complete."""
        trees = [self.trees[name] for name in present if name in self.trees]
        return self.complete and all(tree == trees[0] for tree in trees)


class Trial(ABC):
    """The scenarios with one set of devices of one version of Syncthing, in folders below `home`."""

    def __init__(self, binary: Path, home: Path, scenarios: Iterable[Scenario]) -> None:
        self.scenarios = {scenario.name: scenario for scenario in scenarios}
        self.stuck_seconds = _STUCK_SECONDS
        self._home = home
        names = sorted({device for scenario in self.scenarios.values() for device in scenario.devices})
        self.devices = {name: Syncthing(binary, home / f"home {name}", name) for name in names}
        self._second = 0
        self._heard = dict.fromkeys(names, 0)
        # By device, the folders of which it has had an index message in this meeting.
        self.told: dict[str, set[str]] = {name: set() for name in names}
        self._rounds = dict.fromkeys(self.scenarios, 0)
        self._added: set[tuple[str, str]] = set()

    # How the devices are connected

    @abstractmethod
    def peers_of(self, device: str, scenario: Scenario) -> Mapping[str, str]:
        """Return the devices, and their passwords, with which a device shares a scenario's folder."""

    @abstractmethod
    def introduce(self) -> None:
        """Let the devices know each other, or the one in the middle. They are running and paused."""

    @abstractmethod
    def meet(self, devices: Sequence[str]) -> None:
        """Let these devices meet: all together, or the one in the middle, one after the other."""

    @abstractmethod
    def middle_is_idle(self) -> bool:
        """Return whether what is in the middle has nothing to do."""

    @abstractmethod
    def in_step(self, views: Mapping[tuple[str, str], View], quiet: float) -> bool:
        """Return whether those that meet know each other's indexes.

        `views` is by device and scenario. Nothing has happened for `quiet` seconds.
        """

    # The course

    def run(self) -> dict[str, Outcome]:
        """Play all scenarios and return how they end."""
        with ExitStack() as stack:
            for device in self.devices.values():
                stack.enter_context(device)
                device.rest("GET", "events", events=_EVENTS, limit=1, timeout=0)
            self.introduce()
            last = max(len(scenario.phases) for scenario in self.scenarios.values()) - 1
            for phase in range(last + 1):
                self.change(phase)
                present = [name for name in self.devices if name != AWAY or phase in (0, COMES_BACK)]
                self._meet_until_nothing_changes(phase, present, last=phase == last)
            return self._outcomes()

    def _meet_until_nothing_changes(self, phase: int, present: Sequence[str], *, last: bool) -> None:
        for name, scenario in self.scenarios.items():
            if phase < len(scenario.phases):
                self._rounds[name] = 0
        before = self._outcomes()
        for _ in range(_MOST_ROUNDS):
            self.meet(present)
            after = self._outcomes()
            changed = [name for name in after if after[name].state != before[name].state]
            if not changed:
                return
            for name in changed:
                self._rounds[name] += 1
            if not last and all(outcome.is_settled(present) for outcome in after.values()):
                return
            before = after

    # Changes

    def change(self, phase: int) -> None:
        """Make the changes of a phase."""
        for name, device in self.devices.items():
            scenarios = [
                scenario
                for scenario in self.scenarios.values()
                if phase < len(scenario.phases) and (phase == 0 or name in scenario.phases[phase])
            ]
            if not scenarios:
                continue
            self._wait_for_another_second()
            for scenario in scenarios:
                for change in scenario.phases[phase].get(name, ()):
                    self._apply(device, scenario, change)
                if phase == scenario.joins_in(name) == 0 and name in scenario.devices:
                    self._add_folder(device, scenario)
                if name in scenario.devices and phase >= scenario.joins_in(name):
                    device.rest("POST", "db/scan", folder=scenario.name)

    def _apply(self, device: Syncthing, scenario: Scenario, change: Change) -> None:
        root = self._root(device.name, scenario)
        match change:
            case Write(path, text, minute):
                (root / path).parent.mkdir(parents=True, exist_ok=True)
                parent_time = (root / path).parent.stat().st_mtime_ns
                (root / path).write_text(text)
                _set_time(root / path, minute)
                os.utime((root / path).parent, ns=(parent_time, parent_time))
            case MakeDirectory(path, minute):
                (root / path).unlink(missing_ok=True)
                (root / path).mkdir(parents=True)
                _set_time(root / path, minute)
            case Delete(path):
                (root / path).unlink()
            case Rename(path, to):
                (root / path).rename(root / to)
            case Join():
                self._add_folder(device, scenario)
            case Forget():
                device.rest("POST", "db/scan", folder=scenario.name)
                device.rest("DELETE", f"config/folders/{scenario.name}")
                shutil.rmtree(root / ".stfolder", ignore_errors=True)
                self._add_folder(device, scenario)

    def _add_folder(self, device: Syncthing, scenario: Scenario) -> None:
        kind = "sendonly" if device.name in scenario.send_only else "sendreceive"
        peers = self.peers_of(device.name, scenario)
        device.add_folder(scenario.name, self._root(device.name, scenario), peers, type=kind)
        self._added.add((device.name, scenario.name))

    def _wait_for_another_second(self) -> None:
        while int(time.time()) <= self._second:
            time.sleep(_POLL_SECONDS)
        self._second = int(time.time())

    def _root(self, device: str, scenario: Scenario) -> Path:
        return self._home / f"folders {device}" / scenario.name

    # Meetings

    def settle(self, names: Sequence[str]) -> None:
        """Wait until nothing happens any more at the devices and in the middle."""
        started = quiet_since = time.monotonic()
        for name in names:
            self.told[name].clear()
        while time.monotonic() - started < _LONGEST_MEETING:
            heard = [self._hears(name) for name in names]
            if any(heard):
                quiet_since = time.monotonic()
            quiet = time.monotonic() - quiet_since
            if quiet >= _OUT_OF_STEP_SECONDS:
                return
            if quiet >= _QUIET_SECONDS and self._is_over(names, quiet):
                return
            time.sleep(_POLL_SECONDS)

    def _hears(self, name: str) -> bool:
        """Return whether anything has happened at a device since this was last asked."""
        events = self.devices[name].rest("GET", "events", events=_EVENTS, since=self._heard[name], timeout=0)
        if events:
            self._heard[name] = events[-1]["id"]
        self.told[name].update(event["data"]["folder"] for event in events if event["type"] == "RemoteIndexUpdated")
        return bool(events)

    def folders(self, name: str) -> Iterator[Scenario]:
        """Yield the scenarios whose folder a device has (already)."""
        yield from (scenario for scenario in self.scenarios.values() if (name, scenario.name) in self._added)

    def _is_over(self, names: Sequence[str], quiet: float) -> bool:
        views = {(name, scenario.name): self._view(name, scenario) for name in names for scenario in self.folders(name)}
        if not self.middle_is_idle() or any(view.state != "idle" for view in views.values()):
            return False
        if not self.in_step(views, quiet):
            return False
        return quiet >= self.stuck_seconds or all(
            view.needs == 0 and all(shown.complete for shown in view.shown.values()) for view in views.values()
        )

    # What there is

    def _view(self, name: str, scenario: Scenario) -> View:
        device = self.devices[name]
        status = device.folder_status(scenario.name)
        shown = {one: Shown.of(device.completion(one, scenario.name)) for one in self.peers_of(name, scenario)}
        return View(status["state"], status["sequence"], status["needTotalItems"], shown)

    def _tree(self, name: str, scenario: Scenario) -> Tree:
        root, tree = self._root(name, scenario), dict[str, set[str]]()
        for path, entry in sorted(manifest(root).items()):
            text = (root / path).read_text() if entry.kind == "file" else DIRECTORY
            # Two devices may both keep the loser, in different seconds.
            tree.setdefault(_CONFLICT.sub(".sync-conflict", path), set()).add(text)
        return {path: "; ".join(sorted(texts)) for path, texts in tree.items()}

    def _outcomes(self) -> dict[str, Outcome]:
        """Return what there is of each scenario."""
        outcomes = {}
        for scenario in self.scenarios.values():
            present = [name for name in scenario.devices if (name, scenario.name) in self._added]
            outcomes[scenario.name] = Outcome(
                {name: self._tree(name, scenario) for name in present},
                {name: self._view(name, scenario) for name in present},
                self._rounds[scenario.name],
            )
        return outcomes


def _set_time(path: Path, minute: int) -> None:
    modified = _FIRST_MINUTE + 60 * minute
    os.utime(path, (modified, modified))


class DirectTrial(Trial):
    """The devices know each other, and meet all together."""

    def peers_of(self, device: str, scenario: Scenario) -> Mapping[str, str]:
        return {self.devices[other].device_id: "" for other in scenario.devices if other != device}

    def introduce(self) -> None:
        for one, device in self.devices.items():
            for other, peer in self.devices.items():
                if one != other:
                    addresses = [peer.listen_address] if one < other else []
                    device.add_device(peer.device_id, other, addresses)
                    device.pause_device(peer.device_id)

    def meet(self, devices: Sequence[str]) -> None:
        # Where both sides have paused each other, the side that does not dial must be ready first.
        pairs = [(one, other) for one in devices for other in devices if one < other]
        for one, other in pairs:
            self.devices[other].resume_device(self.devices[one].device_id)
        for one, other in pairs:
            self.devices[one].resume_device(self.devices[other].device_id)
        for one, other in pairs:
            self.devices[one].wait_connected(self.devices[other].device_id)
        self.settle(devices)
        for one, other in pairs:
            self.devices[one].pause_device(self.devices[other].device_id)
            self.devices[other].pause_device(self.devices[one].device_id)
        for one, other in pairs:
            self.devices[one].wait_connected(self.devices[other].device_id, connected=False)

    def middle_is_idle(self) -> bool:
        return True

    def in_step(self, views: Mapping[tuple[str, str], View], quiet: float) -> bool:
        ids = {device.device_id: name for name, device in self.devices.items()}
        return all(
            shown.sequence == views[(ids[peer], folder)].sequence
            for (_, folder), view in views.items()
            for peer, shown in view.shown.items()
            if (ids[peer], folder) in views
        )


class MiddleTrial(Trial):
    """The devices know only the one in the middle, and are never connected at the same time.

    Of several in the middle each device knows one, in turn. Those are connected with each other all the time.
    """

    def __init__(
        self, binary: Path, home: Path, scenarios: Iterable[Scenario], *middles: Middle, last_first: bool
    ) -> None:
        """With `last_first`, the last device in the order of the names is the first to meet the one in the middle."""
        super().__init__(binary, home, scenarios)
        self._middles = middles
        self._middle_of = dict(zip(self.devices, itertools.cycle(middles), strict=False))
        self._last_first = last_first

    def peers_of(self, device: str, scenario: Scenario) -> Mapping[str, str]:
        return {self._middle_of[device].device_id: PASSWORD}

    def introduce(self) -> None:
        for name, device in self.devices.items():
            middle = self._middle_of[name]
            device.add_device(middle.device_id, "middle", [middle.listen_address], untrusted=True)
            device.pause_device(middle.device_id)
            middle.accept(device)
        for scenario in self.scenarios.values():
            for middle in self._middles:
                middle.share(
                    scenario.name,
                    [self.devices[name] for name in scenario.devices if self._middle_of[name] is middle],
                )

    def meet(self, devices: Sequence[str]) -> None:
        for name in sorted(devices, reverse=self._last_first):
            device, middle = self.devices[name], self._middle_of[name]
            device.resume_device(middle.device_id)
            device.wait_connected(middle.device_id)
            self.settle([name])
            device.pause_device(middle.device_id)
            device.wait_connected(middle.device_id, connected=False)
            self._wait_lost(device, middle)
            if len(self._middles) > 1:
                self._wait_for_middles()

    def _wait_for_middles(self) -> None:
        """Wait until nothing happens between those in the middle."""
        deadline = time.monotonic() + _LONGEST_WAIT
        before: object = None
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < self.stuck_seconds:
            if time.monotonic() > deadline:
                raise TimeoutError("those in the middle do not come to rest")
            now = [middle.progress() for middle in self._middles]
            if now != before or not self.middle_is_idle():
                before, quiet_since = now, time.monotonic()
            time.sleep(_POLL_SECONDS)

    def _wait_lost(self, device: Syncthing, middle: Middle) -> None:
        deadline = time.monotonic() + _LONGEST_WAIT
        while not middle.has_lost(device):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the one in the middle still has the connection of {device.name}")
            time.sleep(_POLL_SECONDS)

    def middle_is_idle(self) -> bool:
        return all(middle.is_idle() for middle in self._middles)

    def in_step(self, views: Mapping[tuple[str, str], View], quiet: float) -> bool:
        for name in {name for name, _ in views}:
            middle = self._middle_of[name]
            known = {
                folder: (view.sequence, view.shown[middle.device_id].sequence)
                for (device, folder), view in views.items()
                if device == name
            }
            if not middle.in_step(self.devices[name], known, self.told[name], quiet):
                return False
        return True


def play_directly(binary: Path, home: Path, scenarios: Iterable[Scenario]) -> dict[str, Outcome]:
    """Play scenarios with devices that are connected with each other."""
    return DirectTrial(binary, home, scenarios).run()


def play_with_native(
    binary: Path, home: Path, scenarios: Iterable[Scenario], *, last_first: bool
) -> dict[str, Outcome]:
    """Play scenarios with a receive-encrypted Syncthing between the devices."""
    with Syncthing(binary, home / "native", "native") as native:
        return MiddleTrial(binary, home, scenarios, NativeMiddle(native), last_first=last_first).run()


def play_with_gateways(
    binary: Path, home: Path, scenarios: Iterable[Scenario], *gateways: Gateway, last_first: bool, chance: float
) -> dict[str, Outcome]:
    """Play scenarios with a running gateway between the devices, or with several that are connected with each other.

    `chance` is how long it takes at most until the gateway notes that a device stays with its version, in seconds.
    """
    scenarios = list(scenarios)
    for one, other in itertools.pairwise(gateways):
        folders = [scenario.name for scenario in scenarios]
        one.add_peer(other.device_id, share=folders)
        other.add_peer(one.device_id, [one.listen_address], share=folders)
        one.wait_connected(other.device_id)
    trial = MiddleTrial(binary, home, scenarios, *map(GatewayMiddle, gateways), last_first=last_first)
    trial.stuck_seconds = chance + _STUCK_SECONDS
    return trial.run()
