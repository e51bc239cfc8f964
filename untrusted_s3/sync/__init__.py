"""Synchronizing a folder with its peers: indexes in and out, blocks in and out. Knows no TLS."""
