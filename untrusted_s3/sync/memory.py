"""The memory and the local disk that peers make a gateway use, in accounts."""

from __future__ import annotations

from dataclasses import dataclass

from untrusted_s3.accounts import Account, ByteCache
from untrusted_s3.index.block_table import BlockTables
from untrusted_s3.settings import SyncSettings
from untrusted_s3.sync.pace import IndexPaces, Paces
from untrusted_s3.threads import LargeWork


@dataclass(frozen=True, slots=True)
class SyncMemory:
    """Accounts over all folders and connections. An account's owners are device IDs, unless its text names others.

    Attributes:
        messages: Messages that wait to be handled. When it is exceeded, the device with the most is disconnected.
        parsed: Parsed file infos: those that wait to be pulled, and, owned by the state's file, those of entries that
            were looked up lately.
        requested: Blocks that were requested of peers and are not here yet.
        large_entries: The blocks of very large files that peers have requested lately.
        large_work: Work on the file infos of very large files, in turns by device.
        pending: Bytes of the local disk that announced entries take until they are in the log.
        in_work: Parsed file infos of entries that are being pulled or wait for the log.
        large_in_work: Those of files that are written in parts.
        blocks_in: Blocks and parts on their way to the store.
        index_paces: How fast the file infos of each device are taken.
        share_paces: How many folders each device may share how often, in cluster configs.
        blocks_out: Blocks on their way to peers. A device that waits for no other block may always get one.
        recent_ranges: The most bytes of objects that are kept for the requests that follow.
    """

    messages: Account
    parsed: Account
    requested: Account
    large_entries: BlockTables
    large_work: LargeWork
    pending: Account
    in_work: Account
    large_in_work: Account
    blocks_in: Account
    blocks_out: Account
    recent_ranges: int
    index_paces: IndexPaces
    share_paces: Paces

    @classmethod
    def of(
        cls,
        *,
        blocks: int,
        messages: int,
        parsed: int,
        in_work: int,
        pending: int,
        large_entries: int,
        settings: SyncSettings,
    ) -> SyncMemory:
        """Make accounts of these capacities, in bytes, and paces.

        Of `blocks`, half is for blocks that come in, a quarter for blocks that go out, and a quarter for what was read
        of the store lately.
        """
        return cls(
            messages=Account(messages),
            parsed=Account(parsed),
            requested=Account(blocks // 2, guarantee=True),
            large_entries=ByteCache(Account(large_entries), "large entries", keep_one=True),
            large_work=LargeWork(settings.index_piece_size),
            pending=Account(pending, guarantee=True),
            in_work=Account(in_work, guarantee=True),
            large_in_work=Account(in_work, guarantee=True),
            blocks_in=Account(blocks // 2),
            index_paces=IndexPaces(settings),
            share_paces=Paces(settings.share_burst, settings.share_rate),
            blocks_out=Account(blocks // 4, guarantee=True),
            recent_ranges=blocks // 4,
        )
