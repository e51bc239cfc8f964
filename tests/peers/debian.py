"""Real programs from Debian's packages, unpacked into a cache; nothing is installed and no root is needed.

`python -m tests.peers.debian` fetches both Syncthings and rclone, and prints where they are. The cache is
`$UNTRUSTED_S3_TEST_CACHE`, by default `~/.cache/untrusted-s3-tests`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from tests.waiting import PATIENCE

SyncthingVersion = Literal["1.19.2", "1.29.5"]
SYNCTHING_VERSIONS: tuple[SyncthingVersion, ...] = get_args(SyncthingVersion)

_SUITES: dict[SyncthingVersion, str] = {"1.19.2": "bookworm", "1.29.5": "trixie"}
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DEBIAN_SUITE = re.compile(
    r"(buster|bullseye|bookworm|trixie|forky|duke|sid|oldoldstable|oldstable|stable|testing|unstable)(-updates)?"
)


class PeerUnavailable(Exception):
    """A real program is not available on this machine; the message says why."""


@dataclass(frozen=True)
class _Source:
    """A line or stanza of apt's sources."""

    addresses: list[str]
    suites: list[str]
    components: list[str]


def syncthing_binary(version: SyncthingVersion) -> Path:
    """Return the Syncthing of that version. Raises PeerUnavailable."""
    binary = debian_package("syncthing", _SUITES[version]) / "usr/bin/syncthing"
    try:
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise PeerUnavailable(f"{binary} does not run: {error}") from error
    answer = done.stdout
    if not answer.startswith(f"syncthing v{version}"):
        raise PeerUnavailable(f"Debian {_SUITES[version]} no longer has Syncthing {version}, but: {answer.strip()}")
    return binary


def rclone() -> Path:
    """Return Debian's rclone. Raises PeerUnavailable."""
    binary = debian_package("rclone", "trixie") / "usr/bin/rclone"
    try:
        subprocess.run([binary, "version"], capture_output=True, timeout=PATIENCE, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise PeerUnavailable(f"{binary} does not run: {error}") from error
    return binary


def debian_package(name: str, suite: str) -> Path:
    """Return the folder of an unpacked package, without its dependencies. Raises PeerUnavailable.

    It is fetched once, also when several processes ask at the same time.
    """
    parent = cache_directory() / "debian" / suite
    root = parent / name
    if root.is_dir():
        return root
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise PeerUnavailable(f"there is no {program} here to fetch Debian's package {name} with")
    parent.mkdir(parents=True, exist_ok=True)
    with _locked(parent / ".lock"):
        if not root.is_dir():
            with tempfile.TemporaryDirectory(dir=parent, prefix=".apt-") as work:
                unpacked = _fetch(name, suite, Path(work))
                unpacked.rename(root)
    return root


def _fetch(name: str, suite: str, work: Path) -> Path:
    for folder in ("lists/partial", "cache/archives/partial", "download", "root"):
        (work / folder).mkdir(parents=True)
    (work / "status").touch()
    signed_by = f"[signed-by={_KEYRING}] " if _KEYRING.exists() else ""
    (work / "sources.list").write_text(f"deb {signed_by}{_mirror()} {suite} main\n")
    # Read after the machine's configuration, whose proxies are needed and whose hooks must not run.
    (work / "apt.conf").write_text(f"""
        #clear APT::Update::Pre-Invoke;
        #clear APT::Update::Post-Invoke;
        #clear APT::Update::Post-Invoke-Success;
        #clear DPkg::Post-Invoke;
        #clear Acquire::IndexTargets;
        Acquire::IndexTargets::deb::Packages {{
            MetaKey "$(COMPONENT)/binary-$(ARCHITECTURE)/Packages";
            ShortDescription "Packages";
            Description "$(RELEASE)/$(COMPONENT) $(ARCHITECTURE) Packages";
        }};
        Acquire::Languages "none";
        Acquire::Retries "2";
        APT::Sandbox::User "root";
        Dir::Etc::sourcelist "{work}/sources.list";
        Dir::Etc::sourceparts "/dev/null";
        Dir::Etc::preferences "/dev/null";
        Dir::Etc::preferencesparts "/dev/null";
        Dir::State::lists "{work}/lists";
        Dir::State::status "{work}/status";
        Dir::Cache "{work}/cache";
    """)
    apt = ["apt-get", f"--config-file={work}/apt.conf", "-qq"]
    _run([*apt, "update"], work)
    _run([*apt, "download", name], work / "download")
    packages = list((work / "download").glob("*.deb"))
    if len(packages) != 1:
        raise PeerUnavailable(f"apt fetched no package {name} from {suite}")
    _run(["dpkg-deb", "--extract", str(packages[0]), str(work / "root")], work)
    return work / "root"


def _run(command: list[str], folder: Path) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PeerUnavailable(f"{' '.join(command)} took more than {PATIENCE:.0f} s") from error
    if done.returncode != 0:
        raise PeerUnavailable(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")


def _mirror() -> str:
    """Return the address of the Debian archive that this machine uses."""
    folder = Path("/etc/apt")
    files = [folder / "sources.list", *sorted((folder / "sources.list.d").glob("*"))]
    for file in files:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            text = file.read_text()
            for source in read_deb822_sources(text) if file.suffix == ".sources" else read_one_line_sources(text):
                if "main" in source.components and any(_DEBIAN_SUITE.fullmatch(suite) for suite in source.suites):
                    return source.addresses[0]
    raise PeerUnavailable("this machine's apt sources name no Debian archive")


def read_deb822_sources(text: str) -> Iterator[_Source]:
    """Yield the enabled binary sources of a file in the deb822 format of sources.list(5)."""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for stanza in re.split(r"\n\s*\n", "\n".join(lines)):
        fields: dict[str, list[str]] = {}
        last: list[str] = []
        for line in stanza.splitlines():
            if line[:1].isspace():
                last += line.split()
            elif ":" in line:
                key, value = line.split(":", 1)
                last = fields[key.strip().lower()] = value.split()
        if "deb" in fields.get("types", []) and fields.get("uris") and fields.get("enabled") != ["no"]:
            yield _Source(fields["uris"], fields.get("suites", []), fields.get("components", []))


def read_one_line_sources(text: str) -> Iterator[_Source]:
    """Yield the binary sources of a file in the one-line format of sources.list(5)."""
    for line in text.splitlines():
        words = re.sub(r"^\s*deb\s+\[[^]]*\]", "deb ", line.split("#", 1)[0]).split()
        if len(words) >= 4 and words[0] == "deb":
            yield _Source([words[1]], [words[2]], words[3:])


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def cache_directory() -> Path:
    """Return the folder that holds everything the tests fetch."""
    named = os.environ.get("UNTRUSTED_S3_TEST_CACHE")
    return (Path(named) if named else Path.home() / ".cache" / "untrusted-s3-tests").resolve()


def main() -> int:
    """Fetch what the tests need. Return exit code 1 if something is not available."""
    missing = 0
    programs: dict[str, Callable[[], Path]] = {
        f"syncthing {version}": partial(syncthing_binary, version) for version in SYNCTHING_VERSIONS
    }
    programs["rclone"] = rclone
    for name, fetch in programs.items():
        try:
            print(f"{name}: {fetch()}")
        except PeerUnavailable as error:
            print(f"{name}: {error}", file=sys.stderr)
            missing = 1
    return missing


if __name__ == "__main__":
    sys.exit(main())
