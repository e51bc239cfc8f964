"""Connections to peers: TLS, BEP over a transport, dialing and listening by scheme, admission."""
