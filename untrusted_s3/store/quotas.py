"""The record of quotas: how many bytes folders and devices may have in the store (docs/format.md, "Records").

All gateways on a store read it, so they agree. It is apart from the records of folders and devices, because a record
that is written often may be lost, and because a new quota must not end a device's connection.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from untrusted_s3.bep.constants import MAX_FOLDER_ID_SIZE
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.store import layout
from untrusted_s3.store.bucket import Bucket
from untrusted_s3.store.json_fields import Fields
from untrusted_s3.store.listing import MAX_RECORDS
from untrusted_s3.store.records import read_record, write_record

# More than any store holds.
MAX_QUOTA: Final = 2**62


@dataclass(frozen=True, slots=True)
class Quotas:
    """The quotas of a store, in bytes.

    Attributes:
        folders: By folder ID.
        devices: By device ID.
    """

    folders: Mapping[str, int] = field(default_factory=dict)
    devices: Mapping[DeviceID, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return {
            "folders": [{"id": folder_id, "bytes": size} for folder_id, size in sorted(self.folders.items())],
            "devices": [
                {"device_id": str(device_id), "bytes": size} for device_id, size in sorted(self.devices.items())
            ],
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Quotas:
        """Read the JSON object. Raises InvalidFieldError."""
        fields = Fields(value)
        folders, devices = (fields.objects(name, max_count=MAX_RECORDS) for name in ("folders", "devices"))
        return cls(
            {folder.text("id", max_length=MAX_FOLDER_ID_SIZE): _size(folder) for folder in folders},
            {device.device_id("device_id"): _size(device) for device in devices},
        )


def _size(fields: Fields) -> int:
    return fields.integer("bytes", minimum=0, maximum=MAX_QUOTA)


async def read_quotas(bucket: Bucket) -> Quotas:
    """Return the quotas of a store; without a record there are none. Raises DataError or StoreError."""
    return await read_record(bucket, layout.QUOTAS, Quotas.from_json) or Quotas()


async def write_quotas(bucket: Bucket, quotas: Quotas) -> None:
    """Write the quotas of a store. Raises StoreError."""
    await write_record(bucket, layout.QUOTAS, quotas.to_json())
