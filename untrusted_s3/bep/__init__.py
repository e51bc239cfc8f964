"""Syncthing's Block Exchange Protocol (BEP) v1 for an untrusted device: no I/O, and the time is an argument."""
