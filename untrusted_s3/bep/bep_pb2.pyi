from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class MessageType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CLUSTER_CONFIG: _ClassVar[MessageType]
    INDEX: _ClassVar[MessageType]
    INDEX_UPDATE: _ClassVar[MessageType]
    REQUEST: _ClassVar[MessageType]
    RESPONSE: _ClassVar[MessageType]
    DOWNLOAD_PROGRESS: _ClassVar[MessageType]
    PING: _ClassVar[MessageType]
    CLOSE: _ClassVar[MessageType]

class MessageCompression(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NONE: _ClassVar[MessageCompression]
    LZ4: _ClassVar[MessageCompression]

class FolderType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEND_RECEIVE: _ClassVar[FolderType]
    SEND_ONLY: _ClassVar[FolderType]
    RECEIVE_ONLY: _ClassVar[FolderType]
    RECEIVE_ENCRYPTED: _ClassVar[FolderType]

class FolderStopReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RUNNING: _ClassVar[FolderStopReason]
    PAUSED: _ClassVar[FolderStopReason]

class FileInfoType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILE: _ClassVar[FileInfoType]
    DIRECTORY: _ClassVar[FileInfoType]
    SYMLINK_FILE: _ClassVar[FileInfoType]
    SYMLINK_DIRECTORY: _ClassVar[FileInfoType]
    SYMLINK: _ClassVar[FileInfoType]

class ErrorCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NO_ERROR: _ClassVar[ErrorCode]
    GENERIC: _ClassVar[ErrorCode]
    NO_SUCH_FILE: _ClassVar[ErrorCode]
    INVALID_FILE: _ClassVar[ErrorCode]
CLUSTER_CONFIG: MessageType
INDEX: MessageType
INDEX_UPDATE: MessageType
REQUEST: MessageType
RESPONSE: MessageType
DOWNLOAD_PROGRESS: MessageType
PING: MessageType
CLOSE: MessageType
NONE: MessageCompression
LZ4: MessageCompression
SEND_RECEIVE: FolderType
SEND_ONLY: FolderType
RECEIVE_ONLY: FolderType
RECEIVE_ENCRYPTED: FolderType
RUNNING: FolderStopReason
PAUSED: FolderStopReason
FILE: FileInfoType
DIRECTORY: FileInfoType
SYMLINK_FILE: FileInfoType
SYMLINK_DIRECTORY: FileInfoType
SYMLINK: FileInfoType
NO_ERROR: ErrorCode
GENERIC: ErrorCode
NO_SUCH_FILE: ErrorCode
INVALID_FILE: ErrorCode

class Hello(_message.Message):
    __slots__ = ("device_name", "client_name", "client_version", "num_connections", "timestamp")
    DEVICE_NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_NAME_FIELD_NUMBER: _ClassVar[int]
    CLIENT_VERSION_FIELD_NUMBER: _ClassVar[int]
    NUM_CONNECTIONS_FIELD_NUMBER: _ClassVar[int]
    TIMESTAMP_FIELD_NUMBER: _ClassVar[int]
    device_name: str
    client_name: str
    client_version: str
    num_connections: int
    timestamp: int
    def __init__(self, device_name: _Optional[str] = ..., client_name: _Optional[str] = ..., client_version: _Optional[str] = ..., num_connections: _Optional[int] = ..., timestamp: _Optional[int] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("type", "compression")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    COMPRESSION_FIELD_NUMBER: _ClassVar[int]
    type: MessageType
    compression: MessageCompression
    def __init__(self, type: _Optional[_Union[MessageType, str]] = ..., compression: _Optional[_Union[MessageCompression, str]] = ...) -> None: ...

class ClusterConfig(_message.Message):
    __slots__ = ("folders", "secondary")
    FOLDERS_FIELD_NUMBER: _ClassVar[int]
    SECONDARY_FIELD_NUMBER: _ClassVar[int]
    folders: _containers.RepeatedCompositeFieldContainer[Folder]
    secondary: bool
    def __init__(self, folders: _Optional[_Iterable[_Union[Folder, _Mapping]]] = ..., secondary: _Optional[bool] = ...) -> None: ...

class Folder(_message.Message):
    __slots__ = ("id", "label", "type", "stop_reason", "devices")
    ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    STOP_REASON_FIELD_NUMBER: _ClassVar[int]
    DEVICES_FIELD_NUMBER: _ClassVar[int]
    id: str
    label: str
    type: FolderType
    stop_reason: FolderStopReason
    devices: _containers.RepeatedCompositeFieldContainer[Device]
    def __init__(self, id: _Optional[str] = ..., label: _Optional[str] = ..., type: _Optional[_Union[FolderType, str]] = ..., stop_reason: _Optional[_Union[FolderStopReason, str]] = ..., devices: _Optional[_Iterable[_Union[Device, _Mapping]]] = ...) -> None: ...

class Device(_message.Message):
    __slots__ = ("id", "name", "addresses", "max_sequence", "index_id", "encryption_password_token")
    ID_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    MAX_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTION_PASSWORD_TOKEN_FIELD_NUMBER: _ClassVar[int]
    id: bytes
    name: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    max_sequence: int
    index_id: int
    encryption_password_token: bytes
    def __init__(self, id: _Optional[bytes] = ..., name: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ..., max_sequence: _Optional[int] = ..., index_id: _Optional[int] = ..., encryption_password_token: _Optional[bytes] = ...) -> None: ...

class Index(_message.Message):
    __slots__ = ("folder", "files", "last_sequence", "prev_sequence")
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PREV_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    folder: str
    files: _containers.RepeatedScalarFieldContainer[bytes]
    last_sequence: int
    prev_sequence: int
    def __init__(self, folder: _Optional[str] = ..., files: _Optional[_Iterable[bytes]] = ..., last_sequence: _Optional[int] = ..., prev_sequence: _Optional[int] = ...) -> None: ...

class Counter(_message.Message):
    __slots__ = ("id", "value")
    ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    id: int
    value: int
    def __init__(self, id: _Optional[int] = ..., value: _Optional[int] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("counters",)
    COUNTERS_FIELD_NUMBER: _ClassVar[int]
    counters: _containers.RepeatedCompositeFieldContainer[Counter]
    def __init__(self, counters: _Optional[_Iterable[_Union[Counter, _Mapping]]] = ...) -> None: ...

class BlockInfo(_message.Message):
    __slots__ = ("offset", "size", "hash")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    offset: int
    size: int
    hash: bytes
    def __init__(self, offset: _Optional[int] = ..., size: _Optional[int] = ..., hash: _Optional[bytes] = ...) -> None: ...

class FileInfo(_message.Message):
    __slots__ = ("name", "type", "size", "permissions", "modified_s", "deleted", "invalid", "no_permissions", "version", "sequence", "modified_ns", "modified_by", "block_size", "platform", "blocks", "symlink_target", "blocks_hash", "encrypted", "previous_blocks_hash")
    NAME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    MODIFIED_S_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    INVALID_FIELD_NUMBER: _ClassVar[int]
    NO_PERMISSIONS_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MODIFIED_NS_FIELD_NUMBER: _ClassVar[int]
    MODIFIED_BY_FIELD_NUMBER: _ClassVar[int]
    BLOCK_SIZE_FIELD_NUMBER: _ClassVar[int]
    PLATFORM_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_FIELD_NUMBER: _ClassVar[int]
    SYMLINK_TARGET_FIELD_NUMBER: _ClassVar[int]
    BLOCKS_HASH_FIELD_NUMBER: _ClassVar[int]
    ENCRYPTED_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_BLOCKS_HASH_FIELD_NUMBER: _ClassVar[int]
    name: str
    type: FileInfoType
    size: int
    permissions: int
    modified_s: int
    deleted: bool
    invalid: bool
    no_permissions: bool
    version: Vector
    sequence: int
    modified_ns: int
    modified_by: int
    block_size: int
    platform: bytes
    blocks: _containers.RepeatedCompositeFieldContainer[BlockInfo]
    symlink_target: bytes
    blocks_hash: bytes
    encrypted: bytes
    previous_blocks_hash: bytes
    def __init__(self, name: _Optional[str] = ..., type: _Optional[_Union[FileInfoType, str]] = ..., size: _Optional[int] = ..., permissions: _Optional[int] = ..., modified_s: _Optional[int] = ..., deleted: _Optional[bool] = ..., invalid: _Optional[bool] = ..., no_permissions: _Optional[bool] = ..., version: _Optional[_Union[Vector, _Mapping]] = ..., sequence: _Optional[int] = ..., modified_ns: _Optional[int] = ..., modified_by: _Optional[int] = ..., block_size: _Optional[int] = ..., platform: _Optional[bytes] = ..., blocks: _Optional[_Iterable[_Union[BlockInfo, _Mapping]]] = ..., symlink_target: _Optional[bytes] = ..., blocks_hash: _Optional[bytes] = ..., encrypted: _Optional[bytes] = ..., previous_blocks_hash: _Optional[bytes] = ...) -> None: ...

class PlatformData(_message.Message):
    __slots__ = ("unix", "windows", "linux", "darwin", "freebsd", "netbsd")
    UNIX_FIELD_NUMBER: _ClassVar[int]
    WINDOWS_FIELD_NUMBER: _ClassVar[int]
    LINUX_FIELD_NUMBER: _ClassVar[int]
    DARWIN_FIELD_NUMBER: _ClassVar[int]
    FREEBSD_FIELD_NUMBER: _ClassVar[int]
    NETBSD_FIELD_NUMBER: _ClassVar[int]
    unix: UnixData
    windows: WindowsData
    linux: XattrData
    darwin: XattrData
    freebsd: XattrData
    netbsd: XattrData
    def __init__(self, unix: _Optional[_Union[UnixData, _Mapping]] = ..., windows: _Optional[_Union[WindowsData, _Mapping]] = ..., linux: _Optional[_Union[XattrData, _Mapping]] = ..., darwin: _Optional[_Union[XattrData, _Mapping]] = ..., freebsd: _Optional[_Union[XattrData, _Mapping]] = ..., netbsd: _Optional[_Union[XattrData, _Mapping]] = ...) -> None: ...

class UnixData(_message.Message):
    __slots__ = ("owner_name", "group_name", "uid", "gid")
    OWNER_NAME_FIELD_NUMBER: _ClassVar[int]
    GROUP_NAME_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    owner_name: bytes
    group_name: bytes
    uid: int
    gid: int
    def __init__(self, owner_name: _Optional[bytes] = ..., group_name: _Optional[bytes] = ..., uid: _Optional[int] = ..., gid: _Optional[int] = ...) -> None: ...

class WindowsData(_message.Message):
    __slots__ = ("owner_name", "owner_is_group")
    OWNER_NAME_FIELD_NUMBER: _ClassVar[int]
    OWNER_IS_GROUP_FIELD_NUMBER: _ClassVar[int]
    owner_name: bytes
    owner_is_group: bool
    def __init__(self, owner_name: _Optional[bytes] = ..., owner_is_group: _Optional[bool] = ...) -> None: ...

class XattrData(_message.Message):
    __slots__ = ("xattrs",)
    XATTRS_FIELD_NUMBER: _ClassVar[int]
    xattrs: _containers.RepeatedCompositeFieldContainer[Xattr]
    def __init__(self, xattrs: _Optional[_Iterable[_Union[Xattr, _Mapping]]] = ...) -> None: ...

class Xattr(_message.Message):
    __slots__ = ("name", "value")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    value: bytes
    def __init__(self, name: _Optional[bytes] = ..., value: _Optional[bytes] = ...) -> None: ...

class Request(_message.Message):
    __slots__ = ("id", "folder", "name", "offset", "size", "hash", "from_temporary", "block_no")
    ID_FIELD_NUMBER: _ClassVar[int]
    FOLDER_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    FROM_TEMPORARY_FIELD_NUMBER: _ClassVar[int]
    BLOCK_NO_FIELD_NUMBER: _ClassVar[int]
    id: int
    folder: str
    name: str
    offset: int
    size: int
    hash: bytes
    from_temporary: bool
    block_no: int
    def __init__(self, id: _Optional[int] = ..., folder: _Optional[str] = ..., name: _Optional[str] = ..., offset: _Optional[int] = ..., size: _Optional[int] = ..., hash: _Optional[bytes] = ..., from_temporary: _Optional[bool] = ..., block_no: _Optional[int] = ...) -> None: ...

class Response(_message.Message):
    __slots__ = ("id", "data", "code")
    ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    id: int
    data: bytes
    code: ErrorCode
    def __init__(self, id: _Optional[int] = ..., data: _Optional[bytes] = ..., code: _Optional[_Union[ErrorCode, str]] = ...) -> None: ...

class Close(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...
