"""Checks of a store, without any password: its records, its logs and the objects with the data of files."""
