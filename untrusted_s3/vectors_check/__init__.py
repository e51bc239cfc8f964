"""Checks of implementations of Syncthing's folder encryption against known answers."""
