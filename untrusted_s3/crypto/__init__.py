"""Syncthing's folder encryption, for the key holder: keys, names, blocks, file infos.

The formats come from the untrusted devices specification and Syncthing v2.1.3 lib/protocol/encryption.go. The gateway
never imports this package.
"""
