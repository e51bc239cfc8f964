"""Try a real Syncthing against the gateway, step by step."""
