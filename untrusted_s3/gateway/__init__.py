"""The running gateway: it owns the folders, the peers, and every background task."""
