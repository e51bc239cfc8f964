"""The cluster configs that a peer gets from us, and why a folder of the peer is not in them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from untrusted_s3.bep.cluster_config import IndexState, folder_message
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.errors import FolderRefused
from untrusted_s3.sync.connection import PeerConnection
from untrusted_s3.sync.folder import Folder


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a folder of a peer is refused.

    Attributes:
        label: The peer's label for the folder.
        reason: What is wrong.
        kind: The kind of the FolderRefused.
    """

    label: str
    reason: str
    kind: str = FolderRefused.kind


class ClusterConfigsOut:
    """Sends cluster configs over one connection."""

    def __init__(self, device_id: DeviceID, transport: PeerConnection) -> None:
        """`device_id` is ours."""
        self._own_id = device_id
        self._transport = transport
        # By folder ID, the index id of each folder in the cluster config that was sent last.
        self._announced: dict[str, int] | None = None

    def forget(self) -> None:
        """Let the next config be sent even if it says nothing new.

        This is for a peer that does not list all folders that we offer: its user may have added such a folder only now.
        A peer that is to receive encrypted data cannot say so, for it learns the token from our offer. A gateway takes
        an offer at once or never, and might offer something to us.
        """
        self._announced = None

    def send(self, folders: Sequence[tuple[Folder, IndexState]], device_id: DeviceID) -> None:
        """Send a device the shared folders and those to offer to it, each with what it need not send of its index.

        A folder that we refuse must not be among them: the peer would close the connection for the same reason. A
        config that says nothing new is not sent: two gateways would answer each other without end.
        """
        content = {folder.record.folder_id: peer_index.index_id for folder, peer_index in folders}
        if content == self._announced:
            return
        self._announced = content
        messages = [
            folder_message(
                folder.record.folder_id,
                folder.record.label,
                folder.record.token,
                self._own_id,
                folder.own_index,
                device_id,
                peer_index,
            )
            for folder, peer_index in folders
        ]
        self._transport.write(self._transport.bep.cluster_config(messages, asyncio.get_running_loop().time()))
