"""The disk of a native untrusted device: a receive-encrypted folder of Syncthing. Needs no password."""
