"""Conflicting changes at devices that do not see each other, and what they come to when the devices are connected.

A scenario is a folder of its own, with a sequence of phases. In each phase devices change the folder while nobody is
connected; then they meet until nothing changes any more. Of a phase the devices make their changes in the order of
their names, each in a second of its own: a later change has a larger counter (`v2.1.3 lib/protocol/vector.go`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

DIRECTORY: Final = "(directory)"
# A minute after any deletion here, which has the time at which it was noticed.
LATER: Final = 10_000_000
# This device is away after it has met the others in phase 0, and comes back in this phase.
AWAY: Final = "D"
COMES_BACK: Final = 3


@dataclass(frozen=True)
class Write:
    """Write a file with this text, modified in this minute."""

    path: str
    text: str
    minute: int


@dataclass(frozen=True)
class MakeDirectory:
    """Make a directory, modified in this minute, in the place of a file if there is one."""

    path: str
    minute: int


@dataclass(frozen=True)
class Delete:
    path: str


@dataclass(frozen=True)
class Rename:
    path: str
    to: str


@dataclass(frozen=True)
class Forget:
    """Remove the folder from Syncthing's database and add it again. Its files stay."""


@dataclass(frozen=True)
class Join:
    """Add the folder, with what is in it already. Devices without this change have the folder from the beginning."""


Change = Write | MakeDirectory | Delete | Rename | Forget | Join
Tree = Mapping[str, str]
"""The items of a folder by path: the text of a file, or DIRECTORY. Where a conflict copy's name has time and device,
this has `sync-conflict` alone."""


@dataclass(frozen=True)
class Scenario:
    """One folder and what happens to it.

    Attributes:
        name: Its name in the tests, and its folder's ID.
        title: What happens, for the table.
        phases: Of each phase, the changes of each device.
        end: What all devices have at the end when they are connected directly.
        send_only: Devices that have the folder as send-only, and what they have at the end.
        other_end: What all devices may have instead when another device with the folder's content, trusted or not, was
            between them.
        end_of_2: What all devices with Syncthing 2 have at the end, if that is something else: there a deletion can
            win, with a copy of the edit, and no copy is kept of the content from which the winner was made.
    """

    name: str
    title: str
    phases: Sequence[Mapping[str, Sequence[Change]]]
    end: Tree
    send_only: Mapping[str, Tree] = field(default_factory=dict)
    other_end: Tree | None = None
    end_of_2: Tree | None = None

    @property
    def devices(self) -> str:
        """The names of the devices that share the folder."""
        return "".join(sorted({"A", "B"}.union(*self.phases)))

    def is_expected(self, trees: Mapping[str, Tree], *, directly: bool, generation: int = 1) -> bool:
        """Return whether devices have what they must have at the end, connected directly or not.

        `generation` is the first number of their version of Syncthing.
        """
        end = self.end if generation == 1 or self.end_of_2 is None else self.end_of_2
        expected = {device: self.send_only.get(device, end) for device in self.devices}
        if trees == expected:
            return True
        return not directly and self.other_end is not None and trees == dict.fromkeys(self.devices, self.other_end)

    def joins_in(self, device: str) -> int:
        """Return the phase in which a device adds the folder."""
        for number, phase in enumerate(self.phases):
            if Join() in phase.get(device, ()):
                return number
        return 0


_OF_A, _OF_B, _OF_C, _OF_D = (f"edit of {device}" for device in "ABCD")
_FIRST = Write("f", "first", 0)


def _copy(path: str) -> str:
    return f"{path}.sync-conflict"


def _both_edit(maker: str, newer: str) -> Scenario:
    minutes = {"A": 10, "B": 10, newer: 20}
    texts = {"A": _OF_A, "B": _OF_B}
    (older,) = {"A", "B"} - {newer}
    return Scenario(
        f"edits-{maker}-{newer}",
        f"{maker} makes a file. Both edit it; the edit of {newer} is newer.",
        [{maker: [_FIRST]}, {device: [Write("f", texts[device], minutes[device])] for device in "AB"}],
        {"f": texts[newer], _copy("f"): texts[older]},
    )


def _edit_and_delete(maker: str, editor: str) -> Scenario:
    (deleter,) = {"A", "B"} - {editor}
    return Scenario(
        f"delete-{maker}-{deleter}",
        f"{maker} makes a file. {deleter} deletes it, {editor} edits it.",
        [{maker: [_FIRST]}, {editor: [Write("f", f"edit of {editor}", 10)], deleter: [Delete("f")]}],
        {"f": f"edit of {editor}"},
        end_of_2={_copy("f"): f"edit of {editor}"},
    )


def _both_make(newer: str) -> Scenario:
    minutes = {"A": 10, "B": 10, newer: 20}
    (older,) = {"A", "B"} - {newer}
    return Scenario(
        f"new-{newer}",
        f"Both make a file of the same name; that of {newer} is newer.",
        [{"A": [Write("other", "other", 0)]}, {device: [Write("f", device, minutes[device])] for device in "AB"}],
        {"other": "other", "f": newer, _copy("f"): older},
    )


def _rename_and_edit(renamer: str) -> Scenario:
    (editor,) = {"A", "B"} - {renamer}
    return Scenario(
        f"rename-{renamer}",
        f"A makes a file. {renamer} renames it, {editor} edits it.",
        [{"A": [_FIRST]}, {renamer: [Rename("f", "g")], editor: [Write("f", f"edit of {editor}", 10)]}],
        {"f": f"edit of {editor}", "g": "first"},
        end_of_2={"g": "first", _copy("f"): f"edit of {editor}"},
    )


def _three_edit(newest: str) -> Scenario:
    minutes = {"A": 10, "B": 11, "C": 12, newest: 20}
    texts = {"A": _OF_A, "B": _OF_B, "C": _OF_C}
    return Scenario(
        f"three-{newest}",
        f"A makes a file. Three devices edit it; the edit of {newest} is the newest.",
        [{"A": [_FIRST]}, {device: [Write("f", texts[device], minutes[device])] for device in texts}],
        {"f": texts[newest], _copy("f"): "; ".join(sorted(set(texts.values()) - {texts[newest]}))},
    )


def _joins(kind: str, title: str, file: Write, end: Tree) -> Scenario:
    return Scenario(
        f"joins-{kind}",
        f"A has a folder. B joins with {title}.",
        [{"A": [Write("f", "of A", 10)]}, {"B": [file, Join()]}],
        end,
    )


SCENARIOS: Final = (
    *(_both_edit(maker, newer) for maker in "AB" for newer in "AB"),
    *(_edit_and_delete(maker, editor) for maker in "AB" for editor in "AB"),
    *(_both_make(newer) for newer in "AB"),
    Scenario(
        "directory-older",
        "A makes a file, B makes a directory of the same name; the file is newer.",
        [
            {"A": [Write("other", "other", 0)]},
            {"A": [Write("f", "file", 20)], "B": [MakeDirectory("f", 10)]},
        ],
        {"other": "other", "f": "file"},
    ),
    Scenario(
        "directory-newer",
        "A makes a directory with a file in it, B makes a file of the directory's name; the directory is newer.",
        [
            {"A": [Write("other", "other", 0)]},
            {"A": [MakeDirectory("f", 20), Write("f/inside.txt", "inside", 20)], "B": [Write("f", "file", 10)]},
        ],
        {"other": "other", "f": DIRECTORY, "f/inside.txt": "inside", _copy("f"): "file"},
    ),
    Scenario(
        "directory-replaces",
        "A makes a file. A replaces it by a directory with a file in it, B edits it; the directory is newer.",
        [
            {"A": [_FIRST]},
            {"A": [MakeDirectory("f", 20), Write("f/inside.txt", "inside", 20)], "B": [Write("f", _OF_B, 10)]},
        ],
        {"f": DIRECTORY, "f/inside.txt": "inside", _copy("f"): _OF_B},
    ),
    *(_rename_and_edit(renamer) for renamer in "AB"),
    *(_three_edit(newest) for newest in "AC"),
    Scenario(
        "away",
        "A makes a file. D edits it and goes away before anyone sees that. A edits it, then B; D comes back.",
        [
            {"A": [_FIRST]},
            {"A": [Write("f", _OF_A, 10)], "D": [Write("f", _OF_D, 20)]},
            {"B": [Write("f", _OF_B, 30)]},
            {},
        ],
        {"f": _OF_B, _copy("f"): _OF_D},
    ),
    Scenario(
        "away-newest",
        "The same; the edit of D is newer than all others.",
        [
            {"A": [_FIRST]},
            {"A": [Write("f", _OF_A, 10)], "D": [Write("f", _OF_D, 50)]},
            {"B": [Write("f", _OF_B, 30)]},
            {},
        ],
        {"f": _OF_D, _copy("f"): _OF_B},
    ),
    Scenario(
        "reset",
        "A makes a file. B's database is reset.",
        [{"A": [_FIRST]}, {"B": [Forget()]}],
        {"f": "first"},
    ),
    Scenario(
        "reset-edit",
        "A makes a file, B edits it. B's database is reset, and A edits the file.",
        [{"A": [_FIRST]}, {"B": [Write("f", _OF_B, 10)]}, {"A": [Write("f", _OF_A, 20)], "B": [Forget()]}],
        {"f": _OF_A, _copy("f"): _OF_B},
        # If B meets the one in the middle before A does, it finds its edit there, as A knows it, with equal content and
        # time. Which of the two versions wins then depends on the device IDs. If B takes over the one that A knows, the
        # edit of A follows it, and there is no conflict (`v1.29.5 lib/model/folder_sendrecv.go`, `shortcutFile`).
        other_end={"f": _OF_A},
        end_of_2={"f": _OF_A},
    ),
    Scenario(
        "reset-edited",
        "A makes a file. B edits it, and B's database is reset before anyone sees that. A edits it too, later.",
        [
            {"A": [_FIRST]},
            {"A": [Write("f", _OF_A, 20)], "B": [Write("f", _OF_B, 10), Forget()]},
        ],
        {"f": _OF_A, _copy("f"): _OF_B},
    ),
    Scenario(
        "reset-both",
        "A makes a file, B edits it. The databases of both are reset.",
        [{"A": [_FIRST]}, {"B": [Write("f", _OF_B, 10)]}, {"A": [Forget()], "B": [Forget()]}],
        {"f": _OF_B},
    ),
    Scenario(
        "forgotten",
        "A makes a file, B deletes it, both forget the deletion, A makes the file again.",
        [{"A": [_FIRST]}, {"B": [Delete("f")]}, {"A": [Forget(), Write("f", "again", LATER)], "B": [Forget()]}],
        {"f": "again"},
    ),
    _joins("older", "an older copy", Write("f", "of B", 0), {"f": "of A", _copy("f"): "of B"}),
    _joins("newer", "a newer copy", Write("f", "of B", 20), {"f": "of B", _copy("f"): "of A"}),
    _joins("equal", "an equal copy", Write("f", "of A", 10), {"f": "of A"}),
    _joins("touched", "an equal copy with another time", Write("f", "of A", 0), {"f": "of A"}),
    Scenario(
        "send-only-older",
        "A, send-only, makes a file. Both edit it; the edit of B is newer.",
        [{"A": [_FIRST]}, {"A": [Write("f", _OF_A, 10)], "B": [Write("f", _OF_B, 20)]}],
        {"f": _OF_B},
        {"A": {"f": _OF_A}},
    ),
    Scenario(
        "send-only-newer",
        "A, send-only, makes a file. Both edit it; the edit of A is newer.",
        [{"A": [_FIRST]}, {"A": [Write("f", _OF_A, 20)], "B": [Write("f", _OF_B, 10)]}],
        {"f": _OF_A, _copy("f"): _OF_B},
        {"A": {"f": _OF_A}},
    ),
)
