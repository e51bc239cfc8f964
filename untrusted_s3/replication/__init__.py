"""Copies a store into another bucket, object by object as it is. Needs no password."""
