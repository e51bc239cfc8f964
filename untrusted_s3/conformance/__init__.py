"""Known answers, and implementations of Syncthing's folder encryption that have to give them."""
