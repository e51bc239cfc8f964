"""The gateway: listens, dials, takes folders in and gives them back. It cannot decrypt: it never imports `crypto`."""
