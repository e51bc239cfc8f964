"""Restore a folder to a local directory."""
