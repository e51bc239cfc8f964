"""Tunable numbers: frozen settings with a default each. Sizes are in bytes, times in seconds.

Nothing here changes what is in the bucket (store/format.py) or on the wire (bep/constants.py). Each class goes to the
layer that it is named after; `Settings` holds all of them for a running program.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from untrusted_s3.units import DAY, GIB, KIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings:
    """Requests to the store.

    Attributes:
        timeout: How long the store may send nothing before a request fails.
        connect_timeout: How long a TCP connection to the store may take.
        slowest_upload: Bytes a second below which an upload fails.
        tries: How often a request is sent before its failure is reported.
        retry_delay: The longest pause before the second try; it doubles with each further try.
        get_lifetime: How long a presigned URL for reading is valid.
        put_lifetime: How long a presigned URL for writing is valid.
        cached_urls: How many presigned URLs for reading are kept.
        connections: How many connections for object data may be open: more than the limits of all requests together.
        control_connections: How many connections for other requests are kept open.
        concurrent_parts: How many parts of a local file are sent or received at once.
        concurrent_deletions: How many objects are deleted at once.
        empty_pages: How many pages without an item a listing may have in a row.
        listed: The most items of one listing.
        conditional_writes: Whether writes that need a free key carry `If-None-Match: *`. Without it no other process
            may write to the bucket: the key is looked at before.
    """

    timeout: float = 60.0
    connect_timeout: float = 10.0
    slowest_upload: float = 32.0 * KIB
    tries: int = 5
    retry_delay: float = 0.2
    get_lifetime: int = 6 * 3600
    put_lifetime: int = 900
    cached_urls: int = 20_000
    connections: int = 400
    control_connections: int = 16
    concurrent_parts: int = 4
    concurrent_deletions: int = 32
    empty_pages: int = 1000
    listed: int = 100_000_000
    conditional_writes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """A folder's log and local index.

    Attributes:
        segment_entries: The most entries in one segment.
        segment_size: Bytes of file infos after which a segment is full.
        segment_interval: How long to wait for more entries before a segment is written.
        segment_burst: How many segments may be written without a pause.
        segment_pace: Seconds a segment after that.
        segment_cost: What reading a segment costs beside its bytes, in bytes; decides when a checkpoint is due.
        checkpoint_cost: The least cost of segments that a checkpoint replaces, in bytes.
        checkpoint_share: The least cost of segments that a checkpoint replaces, as a share of the state's size.
        poll_interval: How often the segments of other gateways are looked for while a device shares the folder.
        idle_poll_interval: How often otherwise.
        idle_after: How long after the last device has gone they are still looked for as often as before.
        cursor_interval: How often peers' cursors are written while nothing else is.
        max_append_delay: The longest pause between tries to write to the log.
        read_ahead: How many segments are read at once.
        large_segment: Segments of more bytes are encoded and decoded in threads: one of 64 MiB takes a second.
        concurrent_deletions: How many trimmed segments are deleted at once.
        check_interval: How often it is checked that the store still has the end of the log, while a device shares the
            folder.
        idle_check_interval: How often what follows the end is listed then, where the log has not gone on.
        trusted_look: For how long after a look the end of the log counts as there.
        whole_check_interval: How often it is checked that the store still has all of the log.
    """

    segment_entries: int = 1000
    segment_size: int = 8 * MIB
    segment_interval: float = 0.25
    segment_burst: int = 100
    segment_pace: float = 5.0
    segment_cost: float = 32 * KIB
    checkpoint_cost: float = 100 * 32 * KIB
    checkpoint_share: float = 0.125
    poll_interval: float = 15.0
    idle_poll_interval: float = 300.0
    idle_after: float = 120.0
    cursor_interval: float = 60.0
    max_append_delay: float = 15.0
    read_ahead: int = 16
    large_segment: int = 2 * MIB
    concurrent_deletions: int = 16
    check_interval: float = 60.0
    idle_check_interval: float = 900.0
    trusted_look: float = 60.0
    whole_check_interval: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectSettings:
    """Writing and reading objects.

    Attributes:
        concurrent_uploads: How many small objects may be sent at once at least, over all folders,
        most_uploads: and at most. Where between, follows from how long the store takes.
        concurrent_part_uploads: How many parts of large objects may be sent at once at least, over all folders,
        most_part_uploads: and at most.
        concurrent_part_copies: How many parts of large objects a folder copies inside the store at once.
        patience: How long the blocks of an object or a part may take while other devices wait for memory and this one
            holds more than an equal part of it.
        read_back_size: Bytes that are read at once to checksum an object that is there already.
        coalesced_get_size: The most bytes of neighbouring blocks of an object that one GET reads to write another.
    """

    concurrent_uploads: int = 16
    most_uploads: int = 128
    concurrent_part_uploads: int = 4
    most_part_uploads: int = 16
    concurrent_part_copies: int = 8
    patience: float = 30.0
    read_back_size: int = 16 * MIB
    coalesced_get_size: int = 4 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """Connections to peers.

    Attributes:
        handshake_timeout: How long TLS and Hello may take together.
        ping_interval: How long nothing is sent before a Ping is.
        receive_timeout: How long a peer may send nothing.
        stall_timeout: How long a message may take to arrive, or to be read by the peer, at any speed.
        slowest_peer: Bytes a second that a message must have after that.
        close_timeout: How long a closed connection waits for the peer to read the Close.
        write_buffer: Bytes that wait to be sent before the sender waits.
        dial_interval: The pause after the first vain attempt to dial a peer; it doubles up to max_dial_interval.
        max_dial_interval: The longest pause between attempts to dial a peer.
        listen_interval: How often it is looked whether connections are still accepted.
        max_unadmitted: The most connections of devices that are not accepted (yet).
        max_open_files: The most open files that the process asks for.
        eviction_log_interval: How often the log says that connections of unknown devices are cut.
    """

    handshake_timeout: float = 20.0
    ping_interval: float = 90.0
    receive_timeout: float = 300.0
    stall_timeout: float = 120.0
    slowest_peer: float = 1.0 * KIB
    close_timeout: float = 10.0
    write_buffer: int = 1 * MIB
    dial_interval: float = 10.0
    max_dial_interval: float = 60.0
    listen_interval: float = 5.0
    max_unadmitted: int = 1024
    max_open_files: int = 65_536
    eviction_log_interval: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimSettings:
    """Offering versions of a name to devices that claim others (index/claims.py).

    Attributes:
        chance: How long a connected device that requests nothing has to take over what it is shown.
        interval: How often it is looked who has had its chance.
        first_pause: After this time a device is shown a version again that it declined; twice as long each time,
        longest_pause: up to this.
    """

    chance: float = 60.0
    interval: float = 5.0
    first_pause: float = 600.0
    longest_pause: float = 365 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """Synchronizing a folder with its peers.

    Attributes:
        concurrent_small_files: How many files of one device that are written by a single PUT a folder pulls at once;
            more by as many as the store takes more objects at once than `ObjectSettings.concurrent_uploads`.
            Of several devices together, this and the next two are half as many again, and at least one a device.
        concurrent_large_files: How many larger files of one device a folder pulls at once.
        entries_in_work: The most entries of one device that a folder is pulling or that wait for the log.
        queued_large_files: How many larger files of a device may wait for their turn.
        file_infos_in_work: The most bytes of their parsed file infos, over all folders; and as many of the files that
            are written in parts.
        parsed_file_infos: The most bytes of parsed file infos that wait to be pulled or were looked up lately, over all
            folders.
        pending_disk: The most bytes of the local disk that announced entries take until they are in the log, over all
            folders, with write-ahead logs above 1 MiB. A device alone gets two thirds of it; above that, its index
            waits.
        index_room_interval: How often it is looked whether a device's index that waits may go on.
        index_ratio: How many bytes of file infos a device may send for each byte that comes over its connections,
        index_burst: how many bytes more at once,
        index_rate: and how many more a second. Above that, its index waits.
        share_burst: How many folders a device may share at once in its cluster configs, one a config added,
        share_rate: and how many more a second. Above that, its cluster configs wait.
        large_entries: The most bytes of the blocks of very large files that were looked up lately, over all folders.
            Those of one are kept, however many they are.
        pull_retry_interval: The pause before a failed pull is tried again; it doubles with each failure of the file,
            and while the store fails.
        max_pull_retry_interval: The longest such pause when it is not the peers that failed.
        max_failure_interval: The longest such pause of a file that no peer gives.
        tries_before_older: After how many failed tries a newer version of a trusted device no longer keeps an older one
            of another device waiting.
        kept_failures: How many failed pulls of a folder are kept in memory with their pauses.
        request_window: The most bytes of blocks that are requested of a peer and not here yet.
        first_request_window: As many bytes are requested of a peer at once beside what came within `request_memory`.
        request_memory: Seconds of blocks received from a peer that tell how much to request at once.
        request_timeout: How long a peer may send nothing of a block that was requested of it.
        slowest_peer: Bytes a second at which a peer makes progress with a block.
        queued_message_memory: Bytes of unhandled messages after which a peer is not read from.
        index_piece_files: How many file infos of an index are handled before others get their turn.
        index_piece_size: How many bytes of them.
        concurrent_gets: How many ranged GETs may serve block requests at once at least,
        most_gets: and at most. Where between, follows from how long the store takes.
        concurrent_gets_of_object: How many of these read one object.
        largest_get: The most bytes that one of these reads, if that is not less than a block.
        recent_lifetime: How long what was read stays in memory for others while nobody asks for it.
        second_source_after: After how long a block is asked of another device too that announces the same version.
        second_connection_timeout: How long a second connection of a device may take to prove that it is wanted.
        drain_timeout: How long pulls may go on when the gateway stops.
        missing_pause: The least pause between renewals of the log because of missing objects; it doubles up to
            max_missing_pause while more are noticed.
        max_missing_pause: The longest such pause.
        object_list_interval: How often all objects of a folder may be listed because one is missing.
        missing_at_once: After how many missing objects of one listing the rest waits until these are taken back. Each
            takes about half a KiB of memory until then.
        missing_logged: How many missing objects are logged by their keys.
    """

    concurrent_small_files: int = 64
    concurrent_large_files: int = 2
    queued_large_files: int = 16
    entries_in_work: int = 4000
    file_infos_in_work: int = 96 * MIB
    parsed_file_infos: int = 16 * MIB
    pending_disk: int = 2 * GIB
    index_room_interval: float = 5.0
    index_ratio: int = 8
    index_burst: int = 16 * MIB
    index_rate: float = 256.0 * KIB
    share_burst: int = 2000
    share_rate: float = 5.0
    large_entries: int = 128 * MIB
    pull_retry_interval: float = 5.0
    max_pull_retry_interval: float = 60.0
    max_failure_interval: float = 3600.0
    tries_before_older: int = 3
    kept_failures: int = 20_000
    request_window: int = 32 * MIB
    first_request_window: int = 256 * KIB
    request_memory: float = 30.0
    request_timeout: float = 120.0
    slowest_peer: float = 1.0 * KIB
    queued_message_memory: int = 4 * MIB
    index_piece_files: int = 250
    index_piece_size: int = 1 * MIB
    concurrent_gets: int = 16
    most_gets: int = 128
    concurrent_gets_of_object: int = 3
    largest_get: int = 16 * MIB
    recent_lifetime: float = 30.0
    second_source_after: float = 15.0
    second_connection_timeout: float = 20.0
    drain_timeout: float = 8.0
    missing_pause: float = 60.0
    max_missing_pause: float = 900.0
    object_list_interval: float = 3600.0
    missing_at_once: int = 200_000
    missing_logged: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPSettings:
    """The gateway's HTTP pages.

    Attributes:
        max_connections: How many clients may be connected.
        head_timeout: How long a client may take to send its request.
        request_timeout: How long a connection may take in all.
        store_timeout: How long the store may take to answer before the gateway is not ready.
        store_check_lifetime: How long the answer of the store counts for readiness.
    """

    max_connections: int = 64
    head_timeout: float = 5.0
    request_timeout: float = 30.0
    store_timeout: float = 5.0
    store_check_lifetime: float = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepSettings:
    """What the gateway does by itself, beside synchronizing.

    Attributes:
        first_delay: About how long after the start the first maintenance begins.
        interval: About how often maintenance is done after that.
        busy_trim_interval: How often it is looked for logs that have got many checkpoints.
        busy_checkpoints: After how many checkpoints a log is trimmed then.
        checkpoint_age: About how old the newest checkpoint of a folder that has changed since may get. Only what is
            before a checkpoint can be cleaned up.
        first_list_delay: About how long after the start the present objects of each folder are listed in the store.
        list_interval: About how often after that, where anything has changed.
        heartbeat_interval: How often a gateway tells the store that it runs while devices share folders. To programs
            from before December 2026 a gateway whose heartbeat is older than 90 seconds does not run.
        idle_heartbeat_interval: How often otherwise: a multiple of that, and below HEARTBEAT_LIFETIME.
        peers_interval: How often a gateway lists the accepted devices after the start and after a change, and later
            reads the records of those that are connected.
        idle_peers_interval: How often it lists them later: a multiple of that.
        idle_peers_after: How long after the last change.
        peers_lifetime: After how long the record of a device is read again that the list says is unchanged.
        lookup_interval: How often the store is asked for one unknown device.
        candidate_connections: How many connections of one device, beside the one in use, may wait to be used.
        concurrent_lookups: How many unknown devices the store is asked for at once.
        unknown_devices_shown: How many unknown devices the status lists.
        restart_delay: The pause before a failed background task is started again; it doubles up to max_restart_delay.
        max_restart_delay: The longest such pause.
        record_interval: How often the gateway looks whether files that wait have room, and whose losses are to be read.
        quota_interval: How often quotas are read while files come in or wait.
        max_quota_interval: How often else.
        quota_pause: After how long without a file the next one waits until they are read again.
        quota_timeout: How long such a reading may take.
        removal_interval: How often the gateway looks whether a folder was removed that devices share.
        idle_removal_interval: How often for other folders.
        disk_interval: How often the gateway looks at the disk with the local state.
        folders_of_device: How many folders one device may create.
        lag_interval: How often the gateway looks how late its event loop is.
        min_free_disk: Bytes that should be free there; below, the gateway is degraded.
        message_memory: The most bytes of unhandled messages, over all peers.
        stop_timeout: How long a stop may take.
        close_timeout: How much of that is for peers to read the Close.
        same_signal: Signals to stop that follow each other within this time count as one.
        heal_pause: The least pause before a folder's log is healed again; it doubles up to max_heal_pause.
        max_heal_pause: The longest such pause.
        claim_pause: The least time between renewals of a log because a device says that it knows more of our index
            than there is; it doubles up to max_claim_pause.
        max_claim_pause: The longest such pause.
        losses_interval: How often it is read again what a folder's log has lost, where something is.
        max_losses_interval: How often elsewhere.
        usage_interval: How often a gateway writes down how many requests it has sent.
    """

    first_delay: float = 60.0
    interval: float = 6 * 3600.0
    busy_trim_interval: float = 60.0
    busy_checkpoints: int = 2
    checkpoint_age: float = 1.0 * DAY
    first_list_delay: float = 900.0
    list_interval: float = 1.0 * DAY
    heartbeat_interval: float = 75.0
    idle_heartbeat_interval: float = 150.0
    peers_interval: float = 30.0
    idle_peers_interval: float = 150.0
    idle_peers_after: float = 600.0
    peers_lifetime: float = 3600.0
    lookup_interval: float = 5.0
    candidate_connections: int = 2
    concurrent_lookups: int = 4
    unknown_devices_shown: int = 32
    restart_delay: float = 10.0
    max_restart_delay: float = 300.0
    record_interval: float = 15.0
    quota_interval: float = 45.0
    max_quota_interval: float = 600.0
    quota_pause: float = 5.0
    quota_timeout: float = 10.0
    removal_interval: float = 150.0
    idle_removal_interval: float = 300.0
    disk_interval: float = 10.0
    folders_of_device: int = 100
    lag_interval: float = 0.1
    min_free_disk: int = 64 * MIB
    message_memory: int = 128 * MIB
    stop_timeout: float = 20.0
    close_timeout: float = 2.0
    same_signal: float = 0.5
    heal_pause: float = 60.0
    max_heal_pause: float = 3600.0
    claim_pause: float = 3600.0
    max_claim_pause: float = 86400.0
    losses_interval: float = 60.0
    max_losses_interval: float = 3600.0
    usage_interval: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScrubSettings:
    """Reading all objects now and then to find damage.

    Attributes:
        interval: How often it is looked what is due.
        save_share: After which share of a round its progress is written to the store.
        bytes_in_turn: After how many bytes of a folder other folders have their turn.
        names_at_once: How many names are looked up at once.
        read_size: The most bytes of an object in memory.
    """

    interval: float = 600.0
    save_share: float = 1 / 30
    bytes_in_turn: int = 1 * GIB
    names_at_once: int = 100
    read_size: int = 4 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSettings:
    """Reading a folder with its password.

    Attributes:
        memory: Bytes for data on its way.
        threads: How many threads decrypt; 0 for as many as there are cores.
        read_size: The most bytes of an object that one GET reads, if the memory is at least 16 times that.
        read_ahead: How many reads of one file are under way at once.
        concurrent_reads: How many reads may be under way at once at least,
        most_reads: and at most. Where between, follows from how long the store takes.
        concurrent_files: How many files are restored or verified at once.
        concurrent_large_files: How many of these are larger than one read.
        small_read_size: Bytes up to which a range is decrypted at once, for less than a change of threads costs.
        concurrent_checks: How many parts of objects are read at once where only checksums are compared.
        check_read_size: The most bytes of each that are in memory.
        large_folder: From how many files on the objects of a folder are listed in many pieces at once by a check.
    """

    memory: int = 256 * MIB
    threads: int = 0
    read_size: int = 16 * MIB
    read_ahead: int = 4
    concurrent_reads: int = 32
    most_reads: int = 128
    concurrent_files: int = 128
    concurrent_large_files: int = 4
    small_read_size: int = 64 * KIB
    concurrent_checks: int = 16
    check_read_size: int = 4 * MIB
    large_folder: int = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedSettings:
    """The embedded S3 server.

    Attributes:
        memory_limit: The soft limit of the server's Go runtime, in the notation of GOMEMLIMIT.
        start_timeout: How long the server may take to answer, or another one to let go of its directory.
        stop_timeout: How long the server may take to end before it is killed.
    """

    memory_limit: str = "512MiB"
    start_timeout: float = 30.0
    stop_timeout: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentitySettings:
    """Identities in the store.

    Attributes:
        scrypt_n: Scrypt's parameter N for a new identity: 2**17 takes 128 MiB and about half a second.
    """

    scrypt_n: int = 2**17


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a program.

    Attributes:
        store: Requests to the store.
        embedded: The embedded S3 server.
        log: Folders' logs and local indexes.
        objects: Writing and reading objects.
        connections: Connections to peers.
        sync: Synchronizing folders.
        claims: Offering versions to devices that claim others.
        http: The gateway's HTTP pages.
        upkeep: What the gateway does by itself.
        scrub: Reading all objects now and then.
        reading: Reading a folder with its password.
        identity: Identities in the store.
    """

    store: StoreSettings = field(default_factory=StoreSettings)
    embedded: EmbeddedSettings = field(default_factory=EmbeddedSettings)
    log: LogSettings = field(default_factory=LogSettings)
    objects: ObjectSettings = field(default_factory=ObjectSettings)
    connections: ConnectionSettings = field(default_factory=ConnectionSettings)
    sync: SyncSettings = field(default_factory=SyncSettings)
    claims: ClaimSettings = field(default_factory=ClaimSettings)
    http: HTTPSettings = field(default_factory=HTTPSettings)
    upkeep: UpkeepSettings = field(default_factory=UpkeepSettings)
    scrub: ScrubSettings = field(default_factory=ScrubSettings)
    reading: ReadSettings = field(default_factory=ReadSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)


DEFAULT_BUFFER_MEMORY = 256 * MIB
MIN_BUFFER_MEMORY = 64 * MIB
MIN_PENDING_DISK = 128 * MIB
DEFAULT_HISTORY = 30 * DAY
MIN_HISTORY = 1 * DAY
DEFAULT_SCRUB = 30 * DAY
