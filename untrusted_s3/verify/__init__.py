"""Check every byte of a folder against the log and its encryption."""
