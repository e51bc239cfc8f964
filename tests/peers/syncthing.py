"""The driver of a real Syncthing."""

from untrusted_s3.compat.ports import free_port
from untrusted_s3.compat.syncthing import Syncthing
from untrusted_s3.errors import SyncthingFailed

__all__ = ["Syncthing", "SyncthingFailed", "free_port"]
