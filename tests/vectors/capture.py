"""Capture of vectors from real Syncthing, which encrypts as a trusted device for a scripted untrusted peer.

`python -m tests.vectors.capture` does so with each version that `tests.peers.debian` knows, and rewrites `vectors/`.
Nonces, device IDs and times differ between runs, and nothing else.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.peers.debian import SYNCTHING_VERSIONS, PeerUnavailable, SyncthingVersion, syncthing_binary
from tests.peers.syncthing import Syncthing
from tests.vectors import plan, standards
from tests.vectors.captured import ALTERED_TOKEN_OF, Capture, altered_tokens, captured_names
from tests.vectors.captured_documents import documents
from tests.vectors.untrusted_peer import UntrustedPeer
from untrusted_s3.crypto.file_info import decrypt_file_info
from untrusted_s3.crypto.folder_key import FolderKey
from untrusted_s3.identity.certificate import generate


def capture(version: SyncthingVersion, binary: Path, work: Path, huge: bool = True) -> Capture:
    """Capture from that Syncthing; without `huge`, no file with offsets of more than 32 bits."""
    identity, found = generate(), Capture(version)
    work.mkdir(exist_ok=True)
    paths = {share: work / f"folder {number}" for number, share in enumerate(plan.SHARES)}
    for path in paths.values():
        path.mkdir()
    plan.build_main(paths[plan.MAIN], huge)
    plan.build_other(paths[plan.OTHER])
    plan.build_shared_by_two(paths[plan.SHARED_BY_TWO])
    with (
        Syncthing(binary, work / "trusted", "trusted") as trusted,
        Syncthing(binary, work / "second", "second") as second,
    ):
        trusted.add_device(str(identity.device_id), "untrusted", untrusted=True)
        trusted.add_device(second.device_id, "second", [second.listen_address])
        for (folder, password), path in paths.items():
            trusted.add_folder(
                folder,
                path,
                {str(identity.device_id): password}
                | ({second.device_id: ""} if (folder, password) == plan.SHARED_BY_TWO else {}),
                label=f"label of {path.name}" if folder != "a" else "",
                sendOwnership=True,
                sendXattrs=True,
            )
            trusted.scan(folder)
        plan.change_main(paths[plan.MAIN])
        trusted.scan(plan.MAIN[0])
        _change_by_second(trusted, second, work / "folder of second")

        peer = UntrustedPeer(trusted, identity)
        tokens = peer.tokens()
        found.tokens = {(folder, password): tokens[folder] for folder, password in plan.SHARES}
        sequences = {folder: trusted.folder_status(folder)["sequence"] for folder in tokens}
        fakes = peer.file_infos(tokens, sequences)
        for share in (plan.MAIN, plan.OTHER, plan.SHARED_BY_TWO):
            key = FolderKey.derive(share[1], share[0])
            found.fakes[share] = {key.decrypt_name(name): fake for name, fake in fakes[share[0]].items()}
            found.reals[share] = {name: decrypt_file_info(key, fake) for name, fake in found.fakes[share].items()}
        _take_blocks(peer, found)
        peer.vanish()
    return found


def _change_by_second(trusted: Syncthing, second: Syncthing, path: Path) -> None:
    folder = plan.SHARED_BY_TWO[0]
    second.add_device(trusted.device_id, "trusted", [trusted.listen_address])
    second.add_folder(folder, path, {trusted.device_id: ""})
    second.wait_in_sync(folder, expected_files=2)
    plan.change_shared_by_two(path)
    second.scan(folder)
    trusted.wait_in_sync(folder, expected_files=1)


def _take_blocks(peer: UntrustedPeer, found: Capture) -> None:
    folder, password = plan.MAIN
    fakes = found.fakes[plan.MAIN]
    for name in captured_names():
        for number in range(len(fakes[name].message.blocks)):
            block = peer.block(folder, fakes[name], number)
            assert block is not None, f"{found.version} refuses block {number} of {name}"
            found.blocks[name, number] = block
    name, number = ALTERED_TOKEN_OF
    folder_key = FolderKey.derive(password, folder)
    key, other = folder_key.file_key(name), folder_key.file_key("another name")
    for kind, token in altered_tokens(key, other, found.reals[plan.MAIN][name].blocks[number]).items():
        if peer.block(folder, fakes[name], number, token) is not None:
            found.accepted_tokens.add(kind)


def main() -> int:
    """Write all files. Return exit code 1 if a version of Syncthing is not available."""
    captures = []
    for version in SYNCTHING_VERSIONS:
        with tempfile.TemporaryDirectory(prefix="untrusted-s3-vectors-") as work:
            try:
                captures.append(capture(version, syncthing_binary(version), Path(work)))
            except PeerUnavailable as error:
                print(f"syncthing {version}: {error}", file=sys.stderr)
                return 1
    for document in standards.documents():
        document.write()
    sources = {capture.source: f"Captured from Syncthing {capture.version} by tests/vectors" for capture in captures}
    for document in documents(captures):
        document.write(sources)
    return 0


if __name__ == "__main__":
    sys.exit(main())
