"""The numbers of devices in a folder's state (docs/format.md, "Checkpoints")."""

from __future__ import annotations

from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.index.database import Database

# Devices whose numbers are in memory.
_CACHED_DEVICES = 1000


class Devices:
    """The table `devices` of a state.

    Numbers rise from 1 in the order in which segments name devices, so every gateway gives a device the same one.
    """

    def __init__(self, connection: Database) -> None:
        self._connection = connection
        self._numbers: dict[bytes, int] = {}  # those of some devices
        self._ids: dict[int, DeviceID] = {}

    def rolled_back(self) -> None:
        """Forget the numbers that a transaction gave: it was rolled back."""
        self._numbers.clear()
        self._ids.clear()

    def number(self, device_id: DeviceID) -> int:
        """Return the number of a device, which gets one if it has none."""
        number = self._numbers.get(device_id.raw)
        if number is None:
            self._connection.execute("INSERT OR IGNORE INTO devices (device_id) VALUES (?)", (device_id.raw,))
            number = self.find(device_id)
            assert number is not None
        return number

    def find(self, device_id: DeviceID) -> int | None:
        """Return the number of a device, or None if it has none."""
        number = self._numbers.get(device_id.raw)
        if number is None:
            row = self._connection.execute(
                "SELECT number FROM devices WHERE device_id = ?", (device_id.raw,)
            ).fetchone()
            if row is not None:
                number = int(row[0])
                self._keep(number, device_id)
        return number

    def index_id(self, device_id: DeviceID) -> int | None:
        """Return the id of a device's index, or None if no cursor has told it."""
        row = self._connection.execute("SELECT index_id FROM devices WHERE device_id = ?", (device_id.raw,)).fetchone()
        return int(row[0]) if row is not None and row[0] is not None else None

    def count(self) -> int:
        """Return how many devices have a number."""
        return int(self._connection.execute("SELECT count(*) FROM devices").fetchone()[0])

    def without_cursor(self) -> list[DeviceID]:
        """Return the devices of whose present index the log reflects nothing."""
        rows = self._connection.execute(
            "SELECT number FROM devices WHERE device_id NOT IN (SELECT device_id FROM cursors)"
        )
        return [self.device_id(row[0]) for row in rows.fetchall()]

    def device_id(self, number: int) -> DeviceID:
        """Return the device with a number."""
        device_id = self._ids.get(number)
        if device_id is None:
            row = self._connection.execute("SELECT device_id FROM devices WHERE number = ?", (number,)).fetchone()
            try:
                device_id = DeviceID(row[0])
            except (ValueError, TypeError) as error:
                raise self._connection.damaged(f"device {number} is missing") from error
            self._keep(number, device_id)
        return device_id

    def _keep(self, number: int, device_id: DeviceID) -> None:
        if len(self._numbers) >= _CACHED_DEVICES:
            self.rolled_back()
        self._numbers[device_id.raw] = number
        self._ids[number] = device_id

    def set_index(self, device_id: DeviceID, index_id: int, sequence: int) -> int | None:
        """Note the id of a device's index, of which a cursor tells.

        If it had another one, what it claimed up to `sequence` is void: return its number then, else None.
        """
        number = self.number(device_id)
        row = self._connection.execute("SELECT index_id FROM devices WHERE number = ?", (number,)).fetchone()
        if row[0] == str(index_id):
            return None
        is_other = row[0] is not None
        self._connection.execute(
            "UPDATE devices SET index_id = ?2, void_until = iif(?3, ?4, void_until) WHERE number = ?1",
            (number, str(index_id), is_other, sequence),
        )
        return number if is_other else None
