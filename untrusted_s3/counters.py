"""What the gateway counts, for /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Histogram


class Counters:
    """Counters that only ever rise, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.blocks_received = self._counter("blocks_received", "Encrypted blocks that peers sent us")
        self.block_bytes_received = self._counter(
            "block_bytes_received", "Bytes of encrypted blocks that peers sent us"
        )
        self.blocks_sent = self._counter("blocks_sent", "Encrypted blocks that we sent to peers")
        self.block_bytes_sent = self._counter("block_bytes_sent", "Bytes of encrypted blocks that we sent to peers")
        self.requests_refused = self._counter("requests_refused", "Block requests that match no stored block")
        self.index_entries_received = self._counter("index_entries_received", "File infos that peers sent us")
        self.index_entries_sent = self._counter("index_entries_sent", "File infos that we sent to peers")
        self.objects_written = self._counter("objects_written", "Objects with file data written to the store")
        self.object_bytes_written = self._counter("object_bytes_written", "Bytes of file data sent to the store")
        self.parts_sent = self._counter("parts_sent", "Parts of large objects sent to the store")
        self.parts_copied = self._counter("parts_copied", "Unchanged parts of large objects copied inside the store")
        self.part_bytes_copied = self._counter("part_bytes_copied", "Bytes of the parts copied inside the store")
        self.parts_resumed = self._counter("parts_resumed", "Parts of large objects found in unfinished uploads")
        self.range_requests = self._counter("range_requests", "Ranged GETs sent to the store for block requests")
        self.segments_appended = self._counter("segments_appended", "Segments appended to folder logs")
        self.segments_deleted = self._counter(
            "segments_deleted", "Log segments deleted because history ends after them"
        )
        self.checkpoints_deleted = self._counter("checkpoints_deleted", "Checkpoints deleted because others do")
        self.uploads_aborted = self._counter(
            "uploads_aborted", "Unfinished multipart uploads ended on which nobody had worked for a week"
        )
        self.garbage_deleted = self._counter("garbage_deleted", "Objects deleted that no entry names")
        self.garbage_bytes_deleted = self._counter("garbage_bytes_deleted", "Bytes of the objects deleted")
        self.pull_failures = self._counter("pull_failures", "Files that could not be pulled and are tried again")
        self.objects_scrubbed = self._counter("objects_scrubbed", "Objects that the scrub has read")
        self.scrub_bytes = self._counter("scrub_bytes", "Bytes of the objects that the scrub has read")
        self.scrub_damage = self._counter("scrub_damage", "Objects that the scrub found damaged or missing")

        self._task_failures = Counter(
            "untrusted_s3_task_failures", "Failures of background tasks", labelnames=["task"], registry=self.registry
        )

        self._loop_lag = Histogram(
            "untrusted_s3_loop_lag_seconds",
            "How late the event loop is",
            buckets=[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0],
            registry=self.registry,
        )

    def loop_lag(self, seconds: float) -> None:
        """Note by how much the event loop was late."""
        self._loop_lag.observe(seconds)

    def task_failed(self, task: str) -> None:
        """Count a failure of the background task of that name."""
        self._task_failures.labels(task).inc()

    def _counter(self, name: str, description: str) -> Counter:
        return Counter(f"untrusted_s3_{name}", description, registry=self.registry)
