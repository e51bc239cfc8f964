"""Mending a store that a check has found damaged, without any password."""
