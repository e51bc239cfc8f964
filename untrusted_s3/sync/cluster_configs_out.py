"""The cluster configs that a peer gets from us, and why a folder of the peer is not in them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from untrusted_s3.bep.cluster_config import FolderOffer, IndexState, folder_message
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
        # By folder ID, the index id of each folder in the cluster config that was sent last; None for paused ones.
        self._announced: dict[str, int | None] | None = None

    def forget(self) -> None:
        """Let the next config be sent even if it says nothing new.

        This is for a peer that does not list all folders that we offer: its user may have added such a folder only now.
        A peer that is to receive encrypted data cannot say so, for it learns the token from our offer. A gateway takes
        an offer at once or never, and might offer something to us.
        """
        self._announced = None

    def send(
        self,
        folders: Sequence[tuple[Folder, IndexState]],
        device_id: DeviceID,
        unavailable: Iterable[FolderOffer] = (),
    ) -> None:
        """Send a device the shared folders and those to offer to it, each with what it need not send of its index.

        `unavailable` are the device's offers of folders that cannot be shared now. They are said to be paused: it is
        the one way to show its user that the trouble is here (v2.1.3 lib/model/model.go, ccHandleFolders). A folder
        that we refuse otherwise must not be among them: the peer would close the connection for the same reason. A
        config that says nothing new is not sent: two gateways would answer each other without end.
        """
        paused = list(unavailable)
        content: dict[str, int | None] = {
            folder.record.folder_id: peer_index.index_id for folder, peer_index in folders
        } | {offer.folder_id: None for offer in paused}
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
        messages += [
            folder_message(
                offer.folder_id,
                offer.label,
                offer.token,
                self._own_id,
                IndexState(),
                device_id,
                IndexState(),
                paused=True,
            )
            for offer in paused
        ]
        self._transport.write(self._transport.bep.cluster_config(messages, asyncio.get_running_loop().time()))
