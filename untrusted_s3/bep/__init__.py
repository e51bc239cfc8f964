"""Syncthing's Block Exchange Protocol (BEP) v1 for an untrusted device, without I/O and without a clock."""
