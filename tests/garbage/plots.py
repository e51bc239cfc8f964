"""What is frequent in schedules: with chance alone, hardly any would come to what some rules are for."""

from __future__ import annotations

from dataclasses import dataclass

from tests.garbage.checked_store import Event

NAMES = 2
CONTENTS = 2
# What somebody who stands still waits for. If it does not happen, nobody else can go on at last.
_RECORD_GONE = (Event.RECORD_DELETED,)
_WRITTEN_AFTER = (Event.RECORD_DELETED, Event.SEGMENT_WRITTEN)
_ANY_EVENT = (
    (),
    (Event.RECORD_WRITTEN,),
    (Event.OBJECT_DELETED,),
    (Event.OBJECT_DELETED, Event.SEGMENT_WRITTEN),
    _RECORD_GONE,
    _WRITTEN_AFTER,
)


@dataclass(frozen=True, slots=True)
class Plot:
    """What is frequent in a schedule.

    Attributes:
        teams: How many gateways and collectors there may be.
        changes: The least changes of a gateway, and the most of all.
        turns: The least and the most turns of all collectors.
        names: How many names files have.
        contents: How many contents files have.
        begins_with_garbage: How often there are candidates at the beginning.
        jumps: How often time passes up to about a moment at which something becomes due.
        hold: How often something else may go on at a call's request or answer.
        only_answers: Whether requests arrive at once. The signatures of most others expire.
        goes_back: How often a change brings an old version back, beside others that do.
        checkpoints: How often a checkpoint is written instead of a change, beside others.
        restarts: How often a gateway begins again after a change.
        stalls_at_random: How often a process stands still at any call. If it is 0, only one gateway and one collector
            stand still, in the other ways.
        stall_after_look: How often a gateway stands still when it has read about candidates.
        stall_before_entry: How often one stands still between a file's object and its entry.
        stall_in_turn: How often a collector stands still at an answer.
        stall_in_sweep: How often one stands still when it has read what there is to delete.
        stall_before_deletion: How often the deletion of an object takes long to arrive.
        slow_uploads: How often a file comes slowly.
        awaits: What somebody who stands still waits for.
    """

    teams: tuple[tuple[int, int], ...] = ((2, 2),)
    changes: tuple[int, int] = (2, 10)
    turns: tuple[int, int] = (4, 12)
    names: int = 1
    contents: int = CONTENTS
    begins_with_garbage: float = 0.8
    jumps: float = 0.7
    hold: float = 0.3
    only_answers: bool = False
    restarts: float = 0.15
    goes_back: float = 0.0
    checkpoints: float = 0.0
    stalls_at_random: float = 0.0
    stall_after_look: float = 0.0
    stall_before_entry: float = 0.0
    stall_in_turn: float = 0.0
    stall_in_sweep: float = 0.0
    stall_before_deletion: float = 0.0
    slow_uploads: float = 0.0
    awaits: tuple[tuple[Event, ...], ...] = _ANY_EVENT


WHATEVER = Plot(
    teams=((2, 2), (2, 2), (2, 1), (3, 2), (4, 3)),
    changes=(5, 50),
    turns=(10, 40),
    names=NAMES,
    begins_with_garbage=0.0,
    jumps=0.0,
    restarts=0.0,
    stalls_at_random=0.4,
    stall_before_entry=0.1,
    stall_after_look=0.05,
    stall_in_sweep=0.05,
    slow_uploads=0.05,
)
_MANY_CHECKPOINTS = Plot(
    teams=((1, 1), (2, 2)), changes=(10, 30), turns=(8, 20), begins_with_garbage=0.5, jumps=0.5, checkpoints=0.35
)
_SLOW = (
    Plot(teams=((1, 2), (2, 1)), only_answers=True, stall_before_entry=0.7, jumps=0.9, awaits=(_RECORD_GONE,)),
    Plot(only_answers=True, stall_after_look=0.3, goes_back=0.4),
    Plot(only_answers=True, stall_in_turn=0.02, stall_in_sweep=0.7, awaits=(_RECORD_GONE, _WRITTEN_AFTER)),
    Plot(
        only_answers=True, stall_before_deletion=0.7, awaits=(_WRITTEN_AFTER, (*_WRITTEN_AFTER, Event.SEGMENT_WRITTEN))
    ),
    Plot(teams=((1, 2), (2, 1)), only_answers=True, begins_with_garbage=0.0, slow_uploads=0.5, jumps=0.2),
)
# By the seed. The first two take longest.
PLOTS = (WHATEVER, _MANY_CHECKPOINTS, *_SLOW, *_SLOW, *_SLOW)
