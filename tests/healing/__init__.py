"""Stores that lose what they had, played in virtual time: `python -m tests.healing --schedules 100000`."""
