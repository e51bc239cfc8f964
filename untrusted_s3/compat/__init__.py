"""Tests of a real Syncthing together with this gateway, and drivers of both as child processes."""
