"""All limits in one place. Sizes are bytes, times are seconds."""

from __future__ import annotations

from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Block Exchange Protocol (BEP specification, "Message Limits"; lib/protocol/protocol.go)
MAX_HELLO_SIZE: Final = 32_767
MAX_HEADER_SIZE: Final = 32_767
MAX_MESSAGE_SIZE: Final = 500_000_000
# What we take of them. An index batch is about a megabyte, but holds at least one file, however many blocks it has
# (lib/model/fileinfobatch.go): 64 MiB are 580,000 blocks, a file of 8 TiB. Of the others a response is the largest.
MAX_INDEX_SIZE: Final = 64 * MIB
MAX_INDEX_FILES: Final = 20_000  # Syncthing sends 1000
MAX_CLUSTER_CONFIG_SIZE: Final = 4 * MIB
MAX_OTHER_MESSAGE_SIZE: Final = 17 * MIB
MAX_BLOCK_SIZE: Final = 16 * MIB
BLOCK_OVERHEAD: Final = 40
MIN_ENCRYPTED_BLOCK_SIZE: Final = 1024 + BLOCK_OVERHEAD
MAX_ENCRYPTED_BLOCK_SIZE: Final = MAX_BLOCK_SIZE + BLOCK_OVERHEAD
MAX_REQUEST_SIZE: Final = 2 * MAX_BLOCK_SIZE
LZ4_MAX_RATIO: Final = 255
PING_INTERVAL: Final = 90.0
RECEIVE_TIMEOUT: Final = 300.0
HANDSHAKE_TIMEOUT: Final = 20.0  # TLS and Hello together
STALL_TIMEOUT: Final = 120.0
SLOWEST_PEER: Final = 1.0 * KIB  # bytes a second, over STALL_TIMEOUT
INDEX_BATCH_FILES: Final = 1000
INDEX_BATCH_SIZE: Final = 250 * KIB

# Names: an encrypted name is base32hex of a path plus 16 bytes, with slashes; Windows allows 32,767 characters
MAX_NAME_SIZE: Final = 64 * KIB
MAX_FILE_BLOCKS: Final = 8_000_000
# A file info is as long as its blocks make it, twice 60 bytes each, and what else is in it.
MAX_FILE_INFO_SIZE: Final = 1 * MIB
MAX_FILE_INFO_SIZE_PER_BLOCK: Final = 256
MAX_FILE_SIZE: Final = 9000 * 4 * 1024 * MIB

# Objects
SINGLE_PUT_SIZE: Final = 8 * MIB
MIN_PART_SIZE: Final = 8 * MIB
MAX_PARTS: Final = 9000
MAX_OBJECT_KEYS: Final = 8
PRESIGNED_GET_LIFETIME: Final = 6 * 3600
PRESIGNED_PUT_LIFETIME: Final = 900
STORE_TIMEOUT: Final = 60.0
SLOWEST_UPLOAD: Final = 32.0 * KIB  # bytes a second
MAX_CLOCK_SKEW: Final = 300.0

FILE_UPLOAD_LIFETIME: Final = 6 * 3600

# The log
SEGMENT_ENTRIES: Final = 1000
SEGMENT_SIZE: Final = 8 * MIB
SEGMENT_INTERVAL: Final = 0.25
SEGMENT_BURST: Final = 100
SEGMENT_PACE: Final = 5.0
APPEND_LIFETIME: Final = 900
SEGMENT_COST: Final = 32 * KIB  # what reading a segment costs beside its bytes
CHECKPOINT_COST: Final = 100 * SEGMENT_COST
CHECKPOINT_SHARE: Final = 0.125  # of the size of the state
SEGMENT_RETENTION: Final = 86_400.0
HISTORY_RETENTION: Final = 30 * 86_400.0
MIN_HISTORY_RETENTION: Final = 86_400.0
TRIM_LIFETIME: Final = 3600.0
UPLOAD_RETENTION: Final = 7 * 86_400.0
FIRST_MAINTENANCE_DELAY: Final = 60.0
MAINTENANCE_INTERVAL: Final = 6 * 3600.0
CONCURRENT_DELETES: Final = 16
LOG_POLL_INTERVAL: Final = 15.0
CURSOR_INTERVAL: Final = 60.0
MAX_APPEND_DELAY: Final = 15.0
SEGMENT_READ_AHEAD: Final = 16

# The gateway
DEFAULT_BUFFER_MEMORY: Final = 256 * MIB
MIN_BUFFER_MEMORY: Final = 64 * MIB
MESSAGE_MEMORY: Final = 128 * MIB
QUEUED_MESSAGE_MEMORY: Final = 4 * MIB
INDEX_PIECE_FILES: Final = 1000
INDEX_PIECE_SIZE: Final = 1 * MIB
MAX_UNADMITTED_CONNECTIONS: Final = 1024
MAX_OPEN_FILES: Final = 65_536
EVICTION_LOG_INTERVAL: Final = 10.0
CONCURRENT_DEVICE_LOOKUPS: Final = 4
REQUEST_WINDOW: Final = 32 * MIB
CONCURRENT_SMALL_FILES: Final = 64
CONCURRENT_LARGE_FILES: Final = 2
ENTRIES_IN_WORK: Final = 4000
FILE_INFOS_IN_WORK: Final = 32 * MIB
PENDING_BATCH_SIZE: Final = 4 * MIB
MAX_FOLDERS: Final = 1000
MAX_FOLDER_ID_SIZE: Final = 256
MAX_FOLDER_LABEL_SIZE: Final = 4 * KIB
MAX_TOKEN_SIZE: Final = 1 * KIB
QUEUED_LARGE_FILES: Final = 16
PULL_RETRY_INTERVAL: Final = 5.0
MAX_PULL_RETRY_INTERVAL: Final = 60.0
CONCURRENT_UPLOADS: Final = 16
CONCURRENT_PART_UPLOADS: Final = 4
CONCURRENT_PART_COPIES: Final = 8
READ_BACK_SIZE: Final = 16 * MIB
CONCURRENT_DOWNLOADS: Final = 16
CONCURRENT_DELETIONS: Final = 32
CONCURRENT_GETS_OF_OBJECT: Final = 2
COALESCED_GET_SIZE: Final = 4 * MIB
REQUEST_TIMEOUT: Final = 120.0
DIAL_INTERVAL: Final = 10.0
MAX_DIAL_INTERVAL: Final = 60.0
SECOND_CONNECTION_TIMEOUT: Final = 20.0
CLOSE_TIMEOUT: Final = 10.0
DRAIN_TIMEOUT: Final = 20.0
DRAIN_PULLS_TIMEOUT: Final = 8.0
DRAIN_CLOSE_TIMEOUT: Final = 2.0
FOLDER_RESTART_DELAY: Final = 10.0
UNKNOWN_DEVICES_SHOWN: Final = 32
UNKNOWN_DEVICE_LOOKUP_INTERVAL: Final = 5.0
HEARTBEAT_INTERVAL: Final = 30.0
HEARTBEAT_LIFETIME: Final = 90.0

# The key holder's side
DEFAULT_READ_MEMORY: Final = 256 * MIB
READ_SIZE: Final = 16 * MIB
READ_AHEAD: Final = 4  # reads of one file
CONCURRENT_READS: Final = 32
CONCURRENT_FILES_RESTORED: Final = 32
CONCURRENT_LARGE_FILES_RESTORED: Final = 4
SMALL_READ_SIZE: Final = 64 * KIB  # decrypted at once, for less than a change of threads costs

# A sealed identity
MIN_PASSPHRASE_CHARACTERS: Final = 12
MAX_SCRYPT_MEMORY: Final = 256 * MIB

# Trying a real Syncthing
COMPAT_TIME_LIMIT: Final = 300.0
