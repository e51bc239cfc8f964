"""Constants of the Block Exchange Protocol and of its encrypted folders. Sizes are in bytes.

The first group is what Syncthing itself uses (BEP specification, "Message Limits"; Syncthing v2.1.3
lib/protocol/protocol.go and lib/protocol/encryption.go). The second group is what this program accepts of it.
"""

from __future__ import annotations

from typing import Final

from untrusted_s3.units import KIB, MIB

# What Syncthing uses

MAX_HELLO_SIZE: Final = 32_767
MAX_HEADER_SIZE: Final = 32_767
MAX_MESSAGE_SIZE: Final = 500_000_000
MAX_BLOCK_SIZE: Final = 16 * MIB
# An encrypted block has a nonce of 24 bytes before it and an authentication tag of 16 bytes behind it.
BLOCK_OVERHEAD: Final = 40
# Smaller plain blocks are padded to 1,024 bytes.
MIN_ENCRYPTED_BLOCK_SIZE: Final = 1024 + BLOCK_OVERHEAD
MAX_ENCRYPTED_BLOCK_SIZE: Final = MAX_BLOCK_SIZE + BLOCK_OVERHEAD
# A block token: AES-SIV of a SHA-256.
TOKEN_SIZE: Final = 48
# Syncthing's own batches of file infos (lib/model/fileinfobatch.go).
INDEX_BATCH_FILES: Final = 1000
INDEX_BATCH_SIZE: Final = 250 * KIB

# What this program accepts

# An index batch is about a megabyte but holds at least one file, however many blocks it has: 64 MiB are 580,000 blocks,
# a file of 8 TiB.
MAX_INDEX_SIZE: Final = 64 * MIB
MAX_INDEX_FILES: Final = 20_000
MAX_CLUSTER_CONFIG_SIZE: Final = 4 * MIB
# Of the other messages a response is the largest.
MAX_OTHER_MESSAGE_SIZE: Final = 17 * MIB
MAX_REQUEST_SIZE: Final = 2 * MAX_BLOCK_SIZE
# The best ratio that LZ4 can reach.
LZ4_MAX_RATIO: Final = 255
# An encrypted name is base32hex of a path plus 16 bytes, with slashes; Windows allows 32,767 characters in a path.
MAX_NAME_SIZE: Final = 64 * KIB
MAX_FILE_BLOCKS: Final = 8_000_000
# A file info is as long as its blocks make it, twice 60 bytes each, and what else is in it.
MAX_FILE_INFO_SIZE: Final = 1 * MIB
MAX_FILE_INFO_SIZE_PER_BLOCK: Final = 256
MAX_FOLDERS: Final = 1000
MAX_FOLDER_ID_SIZE: Final = 256
MAX_FOLDER_LABEL_SIZE: Final = 4 * KIB
MAX_PASSWORD_TOKEN_SIZE: Final = 1 * KIB
