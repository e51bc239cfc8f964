"""Sending our index of a folder to a peer."""

from __future__ import annotations

import asyncio

from untrusted_s3.bep.constants import INDEX_BATCH_FILES, INDEX_BATCH_SIZE
from untrusted_s3.bep.device_id import DeviceID
from untrusted_s3.bep.file_info import with_sequence
from untrusted_s3.counters import Counters
from untrusted_s3.sync.connection import PeerConnection
from untrusted_s3.sync.folder import Folder


async def send_index(
    folder: Folder, device_id: DeviceID, start: int, connection: PeerConnection, counters: Counters
) -> None:
    """Send a device the folder's index above the sequence number `start`, and then every change, until cancelled."""
    with folder.telling():
        await _send_index(folder, device_id, start, connection, counters)


async def _send_index(
    folder: Folder, device_id: DeviceID, start: int, connection: PeerConnection, counters: Counters
) -> None:
    update, sent = start > 0, start
    folder.index_sent(device_id, start)
    while True:
        batch: list[bytes] = []
        size, last = 0, sent
        for sequence, raw in folder.file_infos_after(sent, INDEX_BATCH_FILES, device_id):
            batch.append(with_sequence(raw, sequence))
            last = sequence
            size += len(raw)
            if size > INDEX_BATCH_SIZE:
                break
        if not batch:
            await folder.changed_since(max(sent, folder.own_index.max_sequence))
            continue
        message = connection.bep.index(
            folder.record.folder_id,
            batch,
            update=update,
            prev_sequence=sent,
            last_sequence=last,
            now=asyncio.get_running_loop().time(),
        )
        connection.write(message)
        counters.index_entries_sent.inc(len(batch))
        update, sent = True, last
        await connection.drained()
        folder.index_sent(device_id, last)
