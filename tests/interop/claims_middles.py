"""What devices that are never online at the same time meet, in the trials of `claims_trial`."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Protocol

from tests.peers.gateway import Gateway
from tests.peers.syncthing import Syncthing

_SURELY_SENT_SECONDS = 8.0


class Middle(Protocol):
    """What the devices meet."""

    device_id: str
    listen_address: str

    def accept(self, device: Syncthing) -> None:
        """Let a device in."""

    def share(self, folder: str, devices: Sequence[Syncthing]) -> None:
        """Let devices share a folder."""

    def is_idle(self) -> bool:
        """Return whether it has nothing to do."""

    def has_lost(self, device: Syncthing) -> bool:
        """Return whether a device is not connected."""

    def progress(self) -> object:
        """Return what changes when anything happens to its indexes, or those of others that it knows."""

    def in_step(
        self, device: Syncthing, known: Mapping[str, tuple[int, int]], told: Container[str], quiet: float
    ) -> bool:
        """Return whether it and a device know each other's indexes.

        `known` has by folder the device's own sequence number, and up to where the device knows the one in the middle.
        `told` has the folders of which the device has had an index message in this meeting. Nothing has happened for
        `quiet` seconds.
        """


class NativeMiddle:
    """A Syncthing with receive-encrypted folders."""

    def __init__(self, syncthing: Syncthing) -> None:
        self._syncthing = syncthing
        self.device_id = syncthing.device_id
        self.listen_address = syncthing.listen_address
        self._folders: list[str] = []

    def accept(self, device: Syncthing) -> None:
        self._syncthing.add_device(device.device_id, device.name)

    def share(self, folder: str, devices: Sequence[Syncthing]) -> None:
        shared = {device.device_id: "" for device in devices}
        self._syncthing.add_folder(folder, self._syncthing.home / "data" / folder, shared, type="receiveencrypted")
        self._folders.append(folder)

    def is_idle(self) -> bool:
        return all(self._syncthing.folder_status(folder)["state"] == "idle" for folder in self._folders)

    def in_step(
        self, device: Syncthing, known: Mapping[str, tuple[int, int]], told: Container[str], quiet: float
    ) -> bool:
        return all(
            self._syncthing.completion(device.device_id, folder)["sequence"] == own
            and self._syncthing.folder_status(folder)["sequence"] == ours
            for folder, (own, ours) in known.items()
        )

    def progress(self) -> object:
        return [self._syncthing.folder_status(folder)["sequence"] for folder in self._folders]

    def has_lost(self, device: Syncthing) -> bool:
        connections = self._syncthing.rest("GET", "system/connections")["connections"]
        return not connections.get(device.device_id, {}).get("connected", False)


class GatewayMiddle:
    """Our gateway."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self.device_id = gateway.device_id
        self.listen_address = gateway.listen_address

    def accept(self, device: Syncthing) -> None:
        self._gateway.add_peer(device.device_id)

    def share(self, folder: str, devices: Sequence[Syncthing]) -> None:
        """It learns of folders from the devices."""

    def is_idle(self) -> bool:
        folders = self._gateway.status()["folders"]
        return all(folder["state"] == "idle" and folder["pending_files"] == 0 for folder in folders)

    def in_step(
        self, device: Syncthing, known: Mapping[str, tuple[int, int]], told: Container[str], quiet: float
    ) -> bool:
        """Syncthing 1.19 does not note the sequence number of a version that it is shown again.

        Then it has had an index message all the same: what it does not know is sent with each connection.
        """
        folders = {folder["id"]: folder for folder in self._gateway.status()["folders"]}
        return all(
            folder in folders
            and folders[folder]["remote_sequence"].get(device.device_id) == own
            and (folders[folder]["sequence"] == ours or (folder in told and quiet >= _SURELY_SENT_SECONDS))
            for folder, (own, ours) in known.items()
        )

    def progress(self) -> object:
        folders = self._gateway.status()["folders"]
        return [(folder["id"], folder["sequence"], folder["remote_sequence"]) for folder in folders]

    def has_lost(self, device: Syncthing) -> bool:
        return not self._gateway.peer(device.device_id).get("connected", False)
