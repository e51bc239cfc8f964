"""Syncthing's folder encryption, for who has the password: keys, names, blocks, file infos.

Facts from the untrusted devices specification and lib/protocol/encryption.go. The gateway never imports this package.
"""
