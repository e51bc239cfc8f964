"""Keeping a store healthy, without the password of any folder."""
