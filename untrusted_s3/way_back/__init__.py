"""The way back after an attack or a mistake: entries of a folder are taken back, or the folder is taken back to a time.

Nothing is deleted. What changes is written to the folder's log as a renewal (docs/format.md, "Renewals").
"""
