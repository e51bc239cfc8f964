"""The driver of a real Syncthing, for a machine that may be busy."""

from tests.waiting import PATIENCE
from untrusted_s3.compat import syncthing
from untrusted_s3.compat.ports import free_port
from untrusted_s3.errors import SyncthingFailed

__all__ = ["Syncthing", "SyncthingFailed", "free_port"]


class Syncthing(syncthing.Syncthing):
    """One device. Its waits fail after `tests.waiting.PATIENCE`."""

    patience = PATIENCE
