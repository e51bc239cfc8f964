"""What the documents name exists: files, headings, modules, commands, options and environment variables."""

from __future__ import annotations

import importlib
import importlib.util
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import pytest

from untrusted_s3.bep import constants
from untrusted_s3.cli.main import COMPLETION_VARIABLE, cli
from untrusted_s3.index.schema import STATE_VERSION
from untrusted_s3.settings import ConnectionSettings, LogSettings, ObjectSettings, SyncSettings, UpkeepSettings
from untrusted_s3.store import format as store_format
from untrusted_s3.units import GIB, KIB, MIB

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "untrusted_s3"
RECORDS = ROOT / "docs" / "adr"
CONNECTIONS, LOG, SYNC, UPKEEP = ConnectionSettings(), LogSettings(), SyncSettings(), UpkeepSettings()
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "vectors").glob("*.md"),
        *(ROOT / "tests").rglob("*.md"),
    ]
)
# What protoc makes names its input in its own way.
MODULES = sorted(path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".proto") and "_pb2" not in path.name)
OTHERS = [ROOT / name for name in ("Dockerfile", "compose.yaml", ".env.example", "Makefile", "pyproject.toml")]

WORKFLOWS = sorted((ROOT / "docs" / "ci").glob("*.yml"))
BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
# What looks like a path of the repository: keys in the bucket, what the program makes, a type of secret.
OTHER_NAMES = {"folders/", "peers/", "damaged/", "losses/", "./data", ".venv/bin", "kubernetes.io/tls"}
# Options of other programs that a document names by themselves, with the program.
OTHER_OPTIONS = {
    "--build-arg": "docker build",
    "--continue": "syncthing decrypt",
    "--init": "docker run",
    "--no-healthcheck": "docker run",
    "--user": "docker run",
}
# A command line that begins with one of these is of another program.
OTHER_PROGRAMS = (
    *("aws", "curl", "docker", "git", "grep", "head", "jq", "nice", "pip", "podman", "python", "rclone", "sudo"),
    "syncthing",
)


@dataclass(frozen=True)
class Code:
    """A code span, or one command line of a code block."""

    text: str
    in_block: bool


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def present(path: Path) -> str:
    """The text of a document, without what it says of the past."""
    return re.split(r"^## The layout before$", read(path), flags=re.MULTILINE)[0]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def code_of(text: str) -> Iterator[Code]:
    for block in BLOCK.finditer(text):
        lines = block[0].replace("\\\n", " ").splitlines()[1:-1]
        yield from (Code(line.strip(), in_block=True) for line in lines if line.strip())
    for span in re.finditer(r"`([^`]+)`", BLOCK.sub("", text)):
        yield Code(" ".join(span[1].split()), in_block=False)


def anchors_of(path: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings_of(path)}


def headings_of(path: Path) -> list[str]:
    return re.findall(r"^#+ +(.*?) *$", BLOCK.sub("", read(path)), re.MULTILINE)


@cache
def commands() -> dict[str, click.Command]:
    """All commands by their names, such as "peers add"."""
    found: dict[str, click.Command] = {}

    def add(command: click.Command, name: str) -> None:
        found[name] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for child in command.list_commands(context):
                loaded = command.get_command(context, child)
                assert loaded is not None
                add(loaded, f"{name} {child}".strip())

    add(cli, "")
    return found


def options_of(command: click.Command) -> set[str]:
    with click.Context(command) as context:
        parameters = command.get_params(context)
    return {option for parameter in parameters for option in (*parameter.opts, *parameter.secondary_opts)}


@cache
def all_options() -> set[str]:
    """The options of all commands and of the bench."""
    bench = {option for path in (ROOT / "bench").glob("*.py") for option in re.findall(r'"(--[a-z-]+)', read(path))}
    return bench.union(*map(options_of, commands().values()))


@cache
def environment() -> set[str]:
    """The environment variables of all options, and those that the code names elsewhere."""
    found: set[str] = set()
    for command in commands().values():
        for parameter in command.params:
            if isinstance(parameter.envvar, str):
                found.add(parameter.envvar)
    for folder in ("untrusted_s3", "tests", "bench"):
        for path in (ROOT / folder).rglob("*.py"):
            found.update(re.findall(r"\"(UNTRUSTED_S3_[A-Z0-9_]+)\"", read(path)))
    return found


def command_named(words: list[str]) -> str | None:
    """The command that the first words name, as many words as possible."""
    return next((name for count in (2, 1) if (name := " ".join(words[:count])) in commands()), None)


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_links_lead_somewhere(path: Path) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", read(path)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        found = path.parent / file if file else path
        if not found.exists() or (anchor and anchor not in anchors_of(found)):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("path", [*DOCUMENTS, *MODULES, *OTHERS], ids=relative)
def test_paths_exist(path: Path) -> None:
    """A path is relative to the repository, to the package, or to the file that names it."""
    text = present(path)
    # Paths of Syncthing's sources follow a version.
    text = re.sub(r"\bv\d+\.\d+\.\d+\s+[\w./-]+", "", text)
    named = set(re.findall(r"(?<![\w./{}:-])((?:[\w.-]+/)+[\w-]+\.(?:py|proto|md|yml|yaml))\b", text))
    named |= set(re.findall(r"(?<![\w./{}-])((?:untrusted_s3|tests|bench|docs|vectors)/(?:[\w-]+/)*)", text))
    wrong = [name for name in named if not any((base / name).exists() for base in (ROOT, PACKAGE, path.parent))]
    assert sorted(wrong) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_names_in_code_exist(path: Path) -> None:
    """Directories such as `index/`, modules such as `index/log` and `file.py`, tests such as `test_log.py::test_it`."""
    wrong = []
    text = present(path)
    for code in code_of(text):
        name = code.text
        if code.in_block or name in OTHER_NAMES:
            continue
        if re.fullmatch(r"[a-z_.]+/(?:[a-z_]+/)*[a-z_]*|[\w.-]+\.(?:py|md|txt|yaml)", name) and not any(
            (base / name).exists() or (base / f"{name}.py").is_file() for base in (ROOT, PACKAGE, path.parent)
        ):
            wrong.append(name)
        test = re.fullmatch(r"(\S+\.py)::(\w+)", name)
        if test and f"def {test[2]}(" not in read(ROOT / test[1]):
            wrong.append(name)
    assert wrong == []


def test_names_in_the_architecture_exist() -> None:
    """Modules, classes and functions, such as `puller`, `Puller` and `store.bucket.Bucket`."""
    text = present(ROOT / "docs" / "architecture.md")
    names = {code.text for code in code_of(text) if re.fullmatch(r"[A-Za-z]\w*(?:\.\w+)*", code.text)}
    known = {"untrusted_s3"} | commands().keys()
    for path in PACKAGE.rglob("*.py"):
        known |= {path.stem, path.parent.name, path.name}
        known |= set(re.findall(r"^(?:class|def|async def) (\w+)", read(path), re.MULTILINE))
    assert sorted(name for name in names - known if not exists(f"untrusted_s3.{name}")) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_python_names_exist(path: Path) -> None:
    """Names such as untrusted_s3.vault.reading or tests.loops.one_loop."""
    wrong = []
    text = read(path)
    for name in sorted(set(re.findall(r"(?<![\w./-])((?:untrusted_s3|tests|bench)(?:\.[A-Za-z_]\w*)+)", text))):
        if not exists(name):
            wrong.append(name)
    assert wrong == []


def exists(name: str) -> bool:
    """Whether a dotted name is a module, or an attribute of one."""
    module, _, attribute = name.rpartition(".")
    try:
        if importlib.util.find_spec(name) is not None:
            return True
    except ModuleNotFoundError:
        pass
    try:
        return hasattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return False


@pytest.mark.parametrize("path", [*MODULES, *OTHERS], ids=relative)
def test_sections_of_documents_exist(path: Path) -> None:
    """References such as (docs/format.md, "Checkpoints")."""
    text = re.sub(r"\s+(?:# |// )?", " ", read(path))
    wrong = [
        f"{document}, {section}"
        for document, section in re.findall(r"(docs/[\w/-]+\.md), \"([^\"]+)\"", text)
        if section not in headings_of(ROOT / document)
    ]
    assert wrong == []


@pytest.mark.parametrize("path", [*DOCUMENTS, *WORKFLOWS], ids=relative)
def test_commands_and_options_exist(path: Path) -> None:
    wrong = []
    text = read(path)
    for code in code_of(text if path in DOCUMENTS else f"```\n{text}\n```"):
        *before, after = re.split(r"(?<![\w/.'-])untrusted-s3 (?=[a-z]+(?![\w-]))", code.text)
        if before:
            name = command_named(re.findall(r"[a-z]+(?![\w-])|\S+", after))
            if name is None:
                wrong.append(code.text)
                continue
            options = options_of(commands()[name])
        elif code.text.startswith(OTHER_PROGRAMS) or path in WORKFLOWS:
            continue
        elif name := command_named(code.text.split()):
            options = options_of(commands()[name])
        else:
            options = all_options() | OTHER_OPTIONS.keys()
        wrong += [f"{option} in {code.text}" for option in options_in(after) if option not in options]
    assert wrong == []


def options_in(text: str) -> list[str]:
    return re.findall(r"(?<![\w-])(--[a-z][a-z-]*|-[a-zA-Z](?![\w-]))", text)


@pytest.mark.parametrize("path", [*DOCUMENTS, *OTHERS], ids=relative)
def test_environment_variables_exist(path: Path) -> None:
    named = set(re.findall(r"_?UNTRUSTED_S3_[A-Z0-9_]+", read(path))) - {COMPLETION_VARIABLE}
    assert sorted(named - environment()) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=relative)
def test_blocks_of_code_have_fences(path: Path) -> None:
    """So that the other tests see them."""
    text = BLOCK.sub("", read(path))
    assert re.findall(r"(?<=\n\n) {4}.*", text) == []


@pytest.mark.parametrize(
    ("document", "statements"),
    [
        (
            "SECURITY.md",
            [
                f"{CONNECTIONS.max_unadmitted}, or a quarter of the open files",
                f"TLS and Hello together have {CONNECTIONS.handshake_timeout:.0f} s",
                f"{UPKEEP.concurrent_lookups} at a time",
                f"{constants.MAX_INDEX_SIZE // MIB} MiB for an index",
                f"{constants.MAX_CLUSTER_CONFIG_SIZE // MIB} MiB for a cluster config",
                f"{constants.MAX_OTHER_MESSAGE_SIZE // MIB} MiB for others",
                f"{constants.MAX_INDEX_FILES:,} file infos",
                f"{constants.MAX_FOLDERS} folders",
                f"one device may create {UPKEEP.folders_of_device} of them",
                f"names of {constants.MAX_NAME_SIZE // KIB} KiB",
                f"a file info of {constants.MAX_FILE_INFO_SIZE // MIB} MiB and"
                f" {constants.MAX_FILE_INFO_SIZE_PER_BLOCK} bytes a block",
                f"{SYNC.queued_message_memory // MIB} MiB a connection",
                f"{UPKEEP.message_memory // MIB} MiB in all",
                f"{SYNC.file_infos_in_work // MIB} MiB in parsed form over all folders",
                f"{SYNC.concurrent_small_files} small files, {SYNC.concurrent_large_files} larger ones and"
                f" {SYNC.entries_in_work} entries",
                f"not arrived within {ObjectSettings().patience:.0f} s",
                f"{SYNC.parsed_file_infos // MIB} MiB over all folders",
                f"{SYNC.pending_disk // GIB} GiB over all folders",
                f"{SYNC.large_entries // MIB} MiB over all folders; one is kept",
                f"more than {SYNC.index_ratio} times as large",
                f"at {SYNC.index_rate / KIB:.0f} KiB a second",
                f"after the first {SYNC.index_burst // MIB} MiB",
                f"share {SYNC.share_burst} folders at once and {SYNC.share_rate:.0f} more a second",
                f"less than {UPKEEP.min_free_disk // MIB} MiB are free on the disk",
                f"One device gets at most {SYNC.request_window // MIB} MiB",
                f"{CONNECTIONS.stall_timeout:.0f} s at any speed; after that, at least"
                f" {CONNECTIONS.slowest_peer / KIB:.0f} KiB a second",
                f"pieces of {SYNC.index_piece_files} file infos or {SYNC.index_piece_size // MIB} MiB",
            ],
        ),
        (
            "docs/format.md",
            [
                f"This is format version {store_format.VERSION}",
                f"at most {store_format.MAX_OBJECT_KEYS} names",
                f"at most {store_format.PART_GRID.single_put_size // MIB} MiB, the object is written by a single PUT",
                f"at least {store_format.PART_GRID.min_part_size // MIB} MiB, doubled until"
                f" {store_format.PART_GRID.max_parts:,} parts",
                f"signed at most {store_format.APPEND_LIFETIME} s after",
                f"valid for {store_format.APPEND_LIFETIME} s",
                f"at least {store_format.SEGMENT_RETENTION // 3600:.0f} hours",
                f"more than {store_format.SEGMENT_RETENTION // 7200:.0f} hours ago",
                f"valid for {store_format.FILE_UPLOAD_LIFETIME // 3600} hours",
                f"by a running gateway every {UPKEEP.heartbeat_interval:.0f} s while a device shares a folder,"
                f" otherwise every {UPKEEP.idle_heartbeat_interval:.0f} s",
                f"whose record is {store_format.HEARTBEAT_LIFETIME:.0f} s old",
                f"least every {LOG.poll_interval:.0f} s",
                f"within {LOG.trusted_look:.0f} s",
                f"at least {LOG.checkpoint_cost / MIB} MiB and",
                f"its bytes and {LOG.segment_cost / KIB:.0f} KiB",
                f"PRAGMA user_version {STATE_VERSION}",
            ],
        ),
    ],
)
def test_numbers_are_those_of_the_code(document: str, statements: list[str]) -> None:
    text = " ".join(read(ROOT / document).split())
    assert [statement for statement in statements if statement not in text] == []


def test_each_promise_names_tests_that_exist() -> None:
    text = read(ROOT / "SECURITY.md").partition("## Promises and their tests")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \| (.+) \|$", text, re.MULTILINE)[1:]
    assert len(rows) > 20
    for promise, tests in rows:
        named = [re.fullmatch(r"`(tests/\S+\.py)::(test_\w+)`", test) for test in tests.split(", ")]
        assert named and all(named), promise
        for test in named:
            assert test is not None
            assert re.search(rf"^(async )?def {test[2]}\(", read(ROOT / test[1]), re.MULTILINE), test[0]


def test_every_exception_is_needed() -> None:
    named = {code.text for path in DOCUMENTS for code in code_of(read(path))}
    options = {option for text in named for option in options_in(text)}
    assert sorted(OTHER_OPTIONS.keys() - options) == []
    assert sorted(OTHER_OPTIONS.keys() & all_options()) == []
    assert sorted(OTHER_NAMES - named) == []


def test_the_index_of_decisions_is_complete() -> None:
    index = read(RECORDS / "README.md")
    rows = re.findall(r"^\| \[(\d+)\]\(([\w-]+\.md)\) \| (.+?) \| (.+?) \|", index, re.MULTILINE)
    found = []
    for path in sorted(RECORDS.glob("0*.md")):
        text = read(path)
        assert headings_of(path)[1:] == ["Context", "Decision", "Consequences"], path.name
        title = re.match(r"# (\d+)\. (.+)\n\nStatus: ([^.]+)\.", text)
        assert title is not None, path.name
        found.append((title[1], path.name, title[2], title[3]))
    assert rows == found
