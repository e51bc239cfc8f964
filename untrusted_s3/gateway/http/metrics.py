"""Metrics that are read from the gateway when Prometheus asks for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, Self

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.metrics_core import CounterMetricFamily
from prometheus_client.registry import Collector

from untrusted_s3.gateway.http.served import ServedGateway
from untrusted_s3.supervisor import TaskState, TaskStatus

# Fields of a folder in /api/status, with what they mean
_FOLDER_GAUGES: Final = {
    "files": "Files in the folder",
    "directories": "Directories and symlinks in the folder",
    "deleted": "Deleted entries that the folder remembers",
    "bytes": "Bytes of encrypted file data in the folder",
    "sequence": "Highest sequence number announced",
    "pending_files": "Files announced by peers and not in the store yet",
    "pending_bytes": "Bytes of the pending files",
    "conflicting_files": "Files of which a device stays with its own version, though it was offered another one",
    "disputed_files": "Files of which devices have different versions",
    "dissents": "Versions of files that devices have and that are not the current ones",
    "missing_files": "Files whose objects the store has lost or damaged",
    "lost_count": "Losses of the log that the operator has not taken note of",
}


class Shown(Protocol):
    """What is shown of a gateway."""

    @property
    def store_requests(self) -> Mapping[str, int]: ...

    @property
    def problems(self) -> Sequence[str]: ...

    def tasks(self) -> Sequence[TaskStatus]: ...

    def status(self) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was to be shown of a gateway at one time. Implements `Shown`, also in a thread."""

    store_requests: Mapping[str, int]
    problems: Sequence[str]
    _tasks: Sequence[TaskStatus]
    _status: dict[str, Any]

    @classmethod
    async def of(cls, gateway: ServedGateway) -> Self:
        """Return what is to be shown of a gateway now."""
        status = await gateway.status_in_steps()
        return cls(dict(gateway.store_requests), gateway.problems, gateway.tasks(), status)

    def tasks(self) -> Sequence[TaskStatus]:
        """Return the states of all background tasks."""
        return self._tasks

    def status(self) -> dict[str, Any]:
        """Return the JSON of /api/status."""
        return self._status


def metrics_text(counters: CollectorRegistry, shown: Shown) -> bytes:
    """Return counters and what is shown of a gateway in the text format of Prometheus."""
    gauges = CollectorRegistry()
    gauges.register(GatewayCollector(shown))
    return generate_latest(counters) + generate_latest(gauges)


class GatewayCollector(Collector):
    """The gauges of a gateway, and the counts that others keep."""

    def __init__(self, gateway: Shown) -> None:
        self._gateway = gateway

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics."""
        status = self._gateway.status()
        for field, description in _FOLDER_GAUGES.items():
            gauge = GaugeMetricFamily(f"untrusted_s3_folder_{field}", description, labels=["folder"])
            for folder in status["folders"]:
                gauge.add_metric([folder["id"]], folder[field])
            yield gauge
        dissents = GaugeMetricFamily(
            "untrusted_s3_folder_dissents_of_device",
            "Versions that the device has and that are not the current ones; the twenty devices with the most",
            labels=["folder", "device"],
        )
        for folder in status["folders"]:
            for one in folder["dissents_of"]:
                dissents.add_metric([folder["id"], one["device_id"]], one["dissents"])
        yield dissents
        yield from _limits(status)
        yield from _scrubs(status["folders"])
        failed = GaugeMetricFamily("untrusted_s3_folder_error", "1 while the folder has an error", labels=["folder"])
        for folder in status["folders"]:
            failed.add_metric([folder["id"]], folder["state"] == "error")
        yield failed
        yield GaugeMetricFamily(
            "untrusted_s3_problems", "Parts of the gateway that do not work", value=len(self._gateway.problems)
        )
        denied = GaugeMetricFamily(
            "untrusted_s3_deletion_denied",
            "1 for a deletion that the store denies to this gateway",
            labels=["operation"],
        )
        for operation in status.get("denied", ()):
            denied.add_metric([operation], 1)
        yield denied
        connected = GaugeMetricFamily("untrusted_s3_peer_connected", "1 while the peer is connected", labels=["device"])
        for peer in status["peers"]:
            connected.add_metric([peer["device_id"]], peer["connected"])
        yield connected
        yield self._tasks()
        requests = CounterMetricFamily("untrusted_s3_store_requests", "Requests to the store", labels=["operation"])
        for operation, count in self._gateway.store_requests.items():
            requests.add_metric([operation], count)
        yield requests
        yield from _store_limits(status.get("store_limits", {}))

    def describe(self) -> list[Metric]:
        """Return nothing: the names are only known once there are folders and peers."""
        return []

    def _tasks(self) -> Metric:
        gauge = GaugeMetricFamily(
            "untrusted_s3_task_running", "1 while the background task runs, 0 before it is restarted", labels=["task"]
        )
        for task in self._gateway.tasks():
            gauge.add_metric([task.name], task.state is TaskState.RUNNING)
        return gauge


def _limits(status: dict[str, Any]) -> Iterator[Metric]:
    description = "Bytes of encrypted file data in all folders, and of what is under way"
    yield GaugeMetricFamily("untrusted_s3_used_bytes", description, value=status.get("used_bytes", 0))
    if (max_store := status.get("max_store")) is not None:
        yield GaugeMetricFamily("untrusted_s3_max_store", "The most that they may be", value=max_store)
    quotas = GaugeMetricFamily("untrusted_s3_folder_quota", "The folder's quota in bytes, if any", labels=["folder"])
    reached = GaugeMetricFamily(
        "untrusted_s3_folder_limits_reached", "Quotas and limits for which files of the folder wait", labels=["folder"]
    )
    for folder in status["folders"]:
        if (quota := folder.get("quota")) is not None:
            quotas.add_metric([folder["id"]], quota)
        reached.add_metric([folder["id"]], len(folder.get("limits_reached", ())))
    yield quotas
    yield reached
    of_peers = GaugeMetricFamily("untrusted_s3_peer_quota", "The device's quota in bytes, if any", labels=["device"])
    used_by_peers = GaugeMetricFamily(
        "untrusted_s3_peer_used_bytes", "The bytes that count for the device's quota, if any", labels=["device"]
    )
    for peer in status["peers"]:
        if (quota := peer.get("quota")) is not None:
            of_peers.add_metric([peer["device_id"]], quota)
            used_by_peers.add_metric([peer["device_id"]], peer["used_bytes"])
    yield of_peers
    yield used_by_peers


def _store_limits(limits: dict[str, dict[str, int]]) -> Iterator[Metric]:
    most = GaugeMetricFamily("untrusted_s3_store_limit", "How many requests may be under way now", labels=["requests"])
    used = GaugeMetricFamily("untrusted_s3_store_under_way", "How many requests are under way", labels=["requests"])
    backed_off = CounterMetricFamily(
        "untrusted_s3_store_backed_off", "Cuts of the limit because the store is asked too much", labels=["requests"]
    )
    for name, limit in limits.items():
        most.add_metric([name], limit["limit"])
        used.add_metric([name], limit["under_way"])
        backed_off.add_metric([name], limit["backed_off"])
    yield most
    yield used
    yield backed_off


def _scrubs(folders: Iterable[dict[str, Any]]) -> Iterator[Metric]:
    progress = GaugeMetricFamily(
        "untrusted_s3_folder_scrub_progress", "Share of the scrub's round that is done", labels=["folder"]
    )
    damaged = GaugeMetricFamily(
        "untrusted_s3_folder_scrub_damaged", "Objects that this round has found damaged or missing", labels=["folder"]
    )
    for folder in folders:
        if (scrub := folder.get("scrub")) is not None:
            progress.add_metric([folder["id"]], scrub["progress"])
            damaged.add_metric([folder["id"]], scrub["damaged"])
    yield progress
    yield damaged
