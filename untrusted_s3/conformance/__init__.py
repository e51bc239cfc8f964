"""Known answers for Syncthing's folder encryption and implementations that have to give them; trials of a Syncthing."""
