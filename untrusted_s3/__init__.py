"""A Syncthing untrusted device that keeps encrypted folders in S3 and owns no disk."""

__version__ = "0.1.0"
