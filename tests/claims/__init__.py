"""A model of trusted Syncthing devices that meet at untrusted ones: `python -m tests.claims --help`."""
