"""Upkeep of a store."""
