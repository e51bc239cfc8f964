"""No test depends on how fast the machine is.

A deadline bounds only how long a failure takes, so it is long: `tests.waiting.PATIENCE`. What must happen is waited for
with `until`. What a timer does is tested on a loop of `tests/virtual_time.py`, whose time the test controls.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).parent
LEAST_DEADLINE = 300.0
CONTROLLED = {"virtual_time", "paused_time", "run_in_virtual_time"}
DURATIONS = ("timeout", "interval", "delay", "lifetime")
# Positional arguments that are deadlines: name of the function -> number of the argument.
DEADLINES = {"timeout": 0, "wait_for": 1, "wait": 0, "join": 0}

# What goes by real time all the same, and why no machine can be too slow or too fast for it.
_OFTEN = "it only looks more often, and the test waits for what it sees"
_NEVER = "what it waits for never happens, so the deadline passes on any machine"
_CLOCK = "the clock is an argument"
_STORE = "a real store has a real clock; here it may only go too far"
_VIRTUAL = "it is used in virtual time only"
EXCEPTIONS = {
    "check/record_trial.py::_play": _VIRTUAL,
    "check/trial.py::module": _VIRTUAL,
    "check/trial.py::Trial": _VIRTUAL,
    "compat/test_syncthing.py::test_a_program_that_does_not_end": _NEVER,
    "connections/test_admission.py::table_of": _CLOCK,
    "connections/test_stall.py::started": _CLOCK,
    "gateway/test_dialing.py::Network": _CLOCK,
    "gateway/test_folders.py::Store": _NEVER,
    "gateway/damage.py::module": _VIRTUAL,
    "gateway/damage.py::Trial": _VIRTUAL,
    "gateway/idle.py::module": _VIRTUAL,
    "gateway/idle.py::Idle": _VIRTUAL,
    "gateway/test_gateway.py::tuned": _OFTEN,
    "healing/world.py::module": _VIRTUAL,
    "healing/world.py::Peer": _VIRTUAL,
    "healing/world.py::Gateway": _VIRTUAL,
    "healing/world.py::World": _VIRTUAL,
    "gateway/test_gateway.py::test_a_device_that_is_removed_or_changed_is_disconnected": _OFTEN,
    "gateway/test_gateway.py::test_accepted_devices_are_read_while_the_heartbeat_cannot_be_written": _OFTEN,
    "gateway/test_gateway.py::test_damage_in_one_folder_is_local_and_loud_until_it_is_mended": _OFTEN,
    "gateway/test_gateway.py::test_local_files_that_cannot_be_made_stop_no_other_folder": _OFTEN,
    "gateway/test_gateway.py::test_a_stray_record_of_a_device_stops_no_other": _OFTEN,
    "gateway/test_gateway.py::test_a_folder_that_is_removed_is_dropped_and_its_peers_come_again": _OFTEN,
    "gateway/test_gateway.py::test_what_is_lost_stays_said_until_the_operator_has_noted_it": _OFTEN,
    "gateway/test_gateway.py::test_a_gateway_hears_of_a_loss_that_another_one_finds": _OFTEN,
    "gateway/test_gateway.py::test_a_quota_holds_files_up_until_it_is_raised": _OFTEN,
    "gateway/test_heartbeat.py::test_it_goes_on_while_the_store_is_away": _OFTEN,
    "store/embedded/test_server.py::test_stop_kills_a_server_that_hangs": _NEVER,
    "store/embedded/test_server.py::test_a_directory_that_stays_locked_is_refused": _NEVER,
    "store/test_adaptive_limit.py::FarStore": _VIRTUAL,
    "store/test_credentials.py::test_the_provider_is_asked_once_in_a_while": _CLOCK,
    "store/test_fault_proxy.py::test_a_store_that_hangs_is_given_up_after_one_timeout": _NEVER,
    "store/test_retries.py::Attempts": _VIRTUAL,
    "store/test_s3.py::test_a_file_whose_upload_takes_too_long_is_refused_by_the_store": _STORE,
    "store/test_s3.py::test_a_store_that_stops_to_read_is_given_up": _NEVER,
    "sync/test_crashes.py::Process": _VIRTUAL,
    "sync/test_full_disk.py::story": _VIRTUAL,
    "sync/test_random_changes.py::World": _VIRTUAL,
    "sync/test_session.py::test_an_index_for_which_there_is_no_room_is_asked_for_again": _OFTEN,
    "test_threads.py::test_nobody_waits_for_a_call_that_hangs": _NEVER,
}
# Drivers of real programs, and the tests that use them: for these, `short_deadline` is the rule.
REAL_PROGRAMS = ("hostile/", "interop/", "peers/", "soak/")
ALSO_WITH_REAL_PROGRAMS = ("tests/vectors", "bench/filled_store.py", "bench/scripted_peer.py", "bench/sharing.py")
# Positional arguments that are deadlines in these.
REAL_DEADLINES = {
    "communicate": 1,
    "create_connection": 1,
    "settimeout": 0,
    "wait_completion": 2,
    "wait_connected": 1,
    "wait_folder": 1,
    "wait_for": 2,
    "wait_in_sync": 2,
}
DEADLINE_EXCEPTIONS = {
    "tests/hostile/devices.py::module": "a hostile device gives up when it likes, and the end waits for none",
    "tests/interop/test_killed.py::Walk": "it only looks in between",
}


def real_time(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Find what sleeps, and deadlines and other durations under five minutes, outside of controlled time.

    Yields the outermost function or class, and the source.
    """
    if any(is_mark(statement) and names(statement) & CONTROLLED for statement in tree.body):
        return
    for statement in tree.body:
        name = getattr(statement, "name", "module")
        yield from ((name, ast.unparse(node)) for node in uncontrolled(statement) if goes_by_real_time(node))


def is_mark(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Assign) and names(statement.targets[0]) == {"pytestmark"}


def names(node: ast.AST) -> set[str]:
    return {found.id for found in ast.walk(node) if isinstance(found, ast.Name)}


def uncontrolled(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree without the functions that run in controlled time."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        decorators = set().union(*map(names, node.decorator_list))
        calls = {name for statement in node.body for name in names(statement)}
        if (decorators | calls) & CONTROLLED:
            return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from uncontrolled(child)


def goes_by_real_time(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    name = str(getattr(node.func, "attr", "") or getattr(node.func, "id", ""))
    if name == "sleep" and node.args:
        return not (isinstance(node.args[0], ast.Constant) and node.args[0].value == 0)
    place = DEADLINES.get(name)
    if place is not None and len(node.args) > place and is_short(node.args[place]):
        return True
    return any((keyword.arg or "").endswith(DURATIONS) and is_short(keyword.value) for keyword in node.keywords)


def is_short(value: ast.expr) -> bool:
    if not isinstance(value, ast.Constant) or not isinstance(value.value, int | float):
        return False
    return 0 < value.value < LEAST_DEADLINE


def short_deadline(node: ast.AST) -> bool:
    """Whether something in a test with real programs fails or gives up after less than five minutes.

    What a gateway is told to do quickly, by its settings, is not meant.
    """
    match node:
        case ast.Call(func=function, args=arguments, keywords=keywords):
            name = str(getattr(function, "attr", "") or getattr(function, "id", ""))
            if name.endswith("Settings"):
                return False
            place = REAL_DEADLINES.get(name, len(arguments))
            named = [keyword.value for keyword in keywords if (keyword.arg or "").endswith(("timeout", "deadline"))]
            return any(map(is_short, [*arguments[place : place + 1], *named]))
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return reads_the_clock(left) and is_short(right)
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return "TIMEOUT" in name and is_short(value)
        case ast.Assert(test=ast.Compare(left=ast.BinOp(left=left), ops=[ast.Lt() | ast.LtE()], comparators=[most])):
            # That something took less than some time
            return reads_the_clock(left) and ast.unparse(most) != "PATIENCE"
        case ast.arguments():
            positional = [*node.posonlyargs, *node.args]
            defaults = [None] * (len(positional) - len(node.defaults)) + [*node.defaults, *node.kw_defaults]
            pairs = zip([*positional, *node.kwonlyargs], defaults, strict=True)
            return any("timeout" in name.arg and value is not None and is_short(value) for name, value in pairs)
    return False


def reads_the_clock(node: ast.expr) -> bool:
    return ast.unparse(node) in ("time.monotonic()", "time.time()", "time.perf_counter()")


def short_deadlines(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Find them. Yields the outermost function or class, and the source."""
    for statement in tree.body:
        name = getattr(statement, "name", "module")
        yield from ((name, ast.unparse(node)) for node in ast.walk(statement) if short_deadline(node))


@functools.cache
def of_real_programs() -> dict[str, list[str]]:
    """Return the short deadlines of all tests with real programs, by `path::name`."""
    root = TESTS.parent
    paths = [TESTS / folder for folder in REAL_PROGRAMS] + [root / path for path in ALSO_WITH_REAL_PROGRAMS]
    places: dict[str, list[str]] = {}
    for path in sorted(file for place in paths for file in ([place] if place.is_file() else place.rglob("*.py"))):
        for name, source in short_deadlines(parsed(path)):
            places.setdefault(f"{path.relative_to(root)}::{name}", []).append(source)
    return places


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return a file's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"))


@functools.cache
def in_all_tests() -> dict[str, list[str]]:
    """Return what goes by real time, by `path::name`."""
    places: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("*.py")):
        if str(path.relative_to(TESTS)).startswith((*REAL_PROGRAMS, "waiting.py", "virtual_time.py")):
            continue
        for name, source in real_time(parsed(path)):
            places.setdefault(f"{path.relative_to(TESTS)}::{name}", []).append(source)
    return places
