from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Segment(_message.Message):
    __slots__ = ("writer", "append_id", "time_ms", "first_sequence", "entries", "cursors", "renewal", "previous", "confirmations")
    WRITER_FIELD_NUMBER: _ClassVar[int]
    APPEND_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    CURSORS_FIELD_NUMBER: _ClassVar[int]
    RENEWAL_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    CONFIRMATIONS_FIELD_NUMBER: _ClassVar[int]
    writer: bytes
    append_id: bytes
    time_ms: int
    first_sequence: int
    entries: _containers.RepeatedCompositeFieldContainer[Entry]
    cursors: _containers.RepeatedCompositeFieldContainer[PeerCursor]
    renewal: Renewal
    previous: int
    confirmations: _containers.RepeatedCompositeFieldContainer[Confirmation]
    def __init__(self, writer: _Optional[bytes] = ..., append_id: _Optional[bytes] = ..., time_ms: _Optional[int] = ..., first_sequence: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[Entry, _Mapping]]] = ..., cursors: _Optional[_Iterable[_Union[PeerCursor, _Mapping]]] = ..., renewal: _Optional[_Union[Renewal, _Mapping]] = ..., previous: _Optional[int] = ..., confirmations: _Optional[_Iterable[_Union[Confirmation, _Mapping]]] = ...) -> None: ...

class Entry(_message.Message):
    __slots__ = ("file_info", "content_hash", "object_size", "part_size", "part_crc32c", "source", "claims")
    FILE_INFO_FIELD_NUMBER: _ClassVar[int]
    CONTENT_HASH_FIELD_NUMBER: _ClassVar[int]
    OBJECT_SIZE_FIELD_NUMBER: _ClassVar[int]
    PART_SIZE_FIELD_NUMBER: _ClassVar[int]
    PART_CRC32C_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    CLAIMS_FIELD_NUMBER: _ClassVar[int]
    file_info: bytes
    content_hash: str
    object_size: int
    part_size: int
    part_crc32c: _containers.RepeatedScalarFieldContainer[int]
    source: bytes
    claims: Claims
    def __init__(self, file_info: _Optional[bytes] = ..., content_hash: _Optional[str] = ..., object_size: _Optional[int] = ..., part_size: _Optional[int] = ..., part_crc32c: _Optional[_Iterable[int]] = ..., source: _Optional[bytes] = ..., claims: _Optional[_Union[Claims, _Mapping]] = ...) -> None: ...

class Claims(_message.Message):
    __slots__ = ("claimed_by", "dissents", "declined")
    CLAIMED_BY_FIELD_NUMBER: _ClassVar[int]
    DISSENTS_FIELD_NUMBER: _ClassVar[int]
    DECLINED_FIELD_NUMBER: _ClassVar[int]
    claimed_by: _containers.RepeatedScalarFieldContainer[bytes]
    dissents: _containers.RepeatedCompositeFieldContainer[Dissent]
    declined: _containers.RepeatedCompositeFieldContainer[Declined]
    def __init__(self, claimed_by: _Optional[_Iterable[bytes]] = ..., dissents: _Optional[_Iterable[_Union[Dissent, _Mapping]]] = ..., declined: _Optional[_Iterable[_Union[Declined, _Mapping]]] = ...) -> None: ...

class Dissent(_message.Message):
    __slots__ = ("version", "claimed_by")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    CLAIMED_BY_FIELD_NUMBER: _ClassVar[int]
    version: Entry
    claimed_by: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, version: _Optional[_Union[Entry, _Mapping]] = ..., claimed_by: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Declined(_message.Message):
    __slots__ = ("device_id", "version", "time_ms", "times", "shown_again")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    TIME_MS_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    SHOWN_AGAIN_FIELD_NUMBER: _ClassVar[int]
    device_id: bytes
    version: int
    time_ms: int
    times: int
    shown_again: bool
    def __init__(self, device_id: _Optional[bytes] = ..., version: _Optional[int] = ..., time_ms: _Optional[int] = ..., times: _Optional[int] = ..., shown_again: _Optional[bool] = ...) -> None: ...

class Confirmation(_message.Message):
    __slots__ = ("device_id", "ranges")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    RANGES_FIELD_NUMBER: _ClassVar[int]
    device_id: bytes
    ranges: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, device_id: _Optional[bytes] = ..., ranges: _Optional[_Iterable[int]] = ...) -> None: ...

class PeerCursor(_message.Message):
    __slots__ = ("device_id", "index_id", "sequence")
    DEVICE_ID_FIELD_NUMBER: _ClassVar[int]
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    device_id: bytes
    index_id: int
    sequence: int
    def __init__(self, device_id: _Optional[bytes] = ..., index_id: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class Renewal(_message.Message):
    __slots__ = ("index_id", "removals")
    INDEX_ID_FIELD_NUMBER: _ClassVar[int]
    REMOVALS_FIELD_NUMBER: _ClassVar[int]
    index_id: int
    removals: _containers.RepeatedCompositeFieldContainer[Removal]
    def __init__(self, index_id: _Optional[int] = ..., removals: _Optional[_Iterable[_Union[Removal, _Mapping]]] = ...) -> None: ...

class Removal(_message.Message):
    __slots__ = ("name_hash", "missing_object", "name", "version")
    NAME_HASH_FIELD_NUMBER: _ClassVar[int]
    MISSING_OBJECT_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name_hash: bytes
    missing_object: str
    name: str
    version: bytes
    def __init__(self, name_hash: _Optional[bytes] = ..., missing_object: _Optional[str] = ..., name: _Optional[str] = ..., version: _Optional[bytes] = ...) -> None: ...
