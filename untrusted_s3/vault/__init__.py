"""The key holder's view of a folder: open it with the password, list it, read its files. Writes nothing."""
