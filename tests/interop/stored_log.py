"""A check of a folder's log in the bucket, from its beginning, for what must hold at any moment."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import crc32c

from tests.interop.sharing import s3_client, stored_keys
from tests.peers.gateway import Gateway
from untrusted_s3.index.entry import Entry
from untrusted_s3.index.segment import EMPTY_SEGMENT, decode_segment
from untrusted_s3.store.layout import FolderKeys, StoreLocation
from untrusted_s3.store.multipart import part_ranges


def check_log(gateway: Gateway, folder: str, *, contents: bool = False) -> dict[str, Entry]:
    """Return the newest entry of each encrypted name of an untrimmed log.

    Fail if positions or sequence numbers have gaps, an entry is repeated, or an entry lacks an object of its size; with
    `contents` also if an object has other checksums.
    """
    assert gateway.store is not None
    client, bucket = s3_client(gateway), gateway.store.bucket
    location, keys = StoreLocation(bucket, gateway.prefix), FolderKeys.of(folder)

    def get(key: str) -> bytes:
        return client.get_object(Bucket=bucket, Key=location.prefix + key)["Body"].read()

    with ThreadPoolExecutor(8) as threads:
        positions = sorted(int(name) for name in stored_keys(gateway, keys.base + "log/"))
        assert positions == list(range(1, len(positions) + 1)), positions
        names = [keys.segment(position) for position in positions]
        segments = [decode_segment(body, key) for key, body in zip(names, threads.map(get, names), strict=True)]
        # Read after the log: what an entry names must be there before the entry.
        sizes = stored_keys(gateway, keys.base)
        newest: dict[str, Entry] = {}
        sequence = 0
        objects: dict[str, Entry] = {}
        for segment in segments:
            if segment is EMPTY_SEGMENT:
                continue
            assert segment.first_sequence == sequence + 1, (segment.first_sequence, sequence)
            sequence = segment.last_sequence
            for entry in segment.entries:
                name = entry.file_info.name
                # A version may come again with other claims: a device that stays with its own has become a dissent.
                assert newest.get(name) != entry, "said twice"
                newest[name] = entry
                assert (entry.stored is not None) == entry.file_info.has_data
                if entry.stored is not None:
                    key = keys.object(name, entry.stored.object_name)
                    assert sizes.get(key.removeprefix(keys.base)) == entry.stored.size, f"{key}: {entry.stored}"
                    objects[key] = entry
        if contents:
            for (key, entry), body in zip(objects.items(), threads.map(get, objects), strict=True):
                assert entry.stored is not None
                parts = part_ranges(entry.stored.size, entry.stored.part_size)
                checksums = [crc32c.crc32c(body[start:end]) for start, end in parts]
                assert checksums == list(entry.stored.part_crc32c), key
    return newest
