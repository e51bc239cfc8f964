"""Constants of the Block Exchange Protocol and of its encrypted folders. Sizes are in bytes.

The first group has Syncthing's own values (BEP specification, "Message Limits"; Syncthing v2.1.3
lib/protocol/protocol.go and lib/protocol/encryption.go). The second group has the values up to which this program
accepts messages.
"""

from __future__ import annotations

from typing import Final

from untrusted_s3.units import KIB, MIB

# Syncthing's values

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
# Syncthing's own batches of file infos (v2.1.3 lib/model/fileinfobatch.go).
INDEX_BATCH_FILES: Final = 1000
INDEX_BATCH_SIZE: Final = 250 * KIB

# Accepted values

# Syncthing's batch is about a megabyte, but holds at least one file info, however many blocks that has. 64 MiB suffice
# for 580,000 blocks of 16 MiB.
MAX_INDEX_SIZE: Final = 64 * MIB
MAX_INDEX_FILES: Final = 20_000
# Folder, two sequence numbers and the file infos, and as many again of a later version of the protocol.
MAX_INDEX_FIELDS: Final = 2 * MAX_INDEX_FILES
MAX_CLUSTER_CONFIG_SIZE: Final = 4 * MIB
# A response is the largest of the other messages.
MAX_OTHER_MESSAGE_SIZE: Final = 17 * MIB
# A response has three.
MAX_RESPONSE_FIELDS: Final = 64
MAX_REQUEST_SIZE: Final = 2 * MAX_BLOCK_SIZE
# The best ratio of LZ4.
LZ4_MAX_RATIO: Final = 255
# Fields that a file info may have beside its blocks. Syncthing's have 20 kinds at most.
MAX_FILE_INFO_FIELDS: Final = 256
# An encrypted name is base32hex of a path plus 16 bytes, with slashes; Windows allows 32,767 characters in a path.
MAX_NAME_SIZE: Final = 64 * KIB
MAX_FILE_BLOCKS: Final = 8_000_000
# A block takes about 60 bytes in the fake and again in the real file info, which is encrypted in it.
# Extended attributes count too: resource forks, for example.
MAX_FILE_INFO_SIZE: Final = 16 * MIB
MAX_FILE_INFO_SIZE_PER_BLOCK: Final = 256
MAX_FOLDERS: Final = 1000
# All fields of a cluster config with those of its folders and devices. A device has 8 fields.
MAX_CLUSTER_CONFIG_FIELDS: Final = 200_000
MAX_FOLDER_ID_SIZE: Final = 256
MAX_FOLDER_LABEL_SIZE: Final = 4 * KIB
MAX_PASSWORD_TOKEN_SIZE: Final = 1 * KIB
