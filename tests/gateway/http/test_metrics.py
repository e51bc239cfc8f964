"""What is read from the gateway for Prometheus."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from tests.gateway.http.served import FakeGateway, failing, running
from untrusted_s3.gateway.http.metrics import GatewayCollector

FOLDER = {
    "id": "f",
    "files": 1,
    "directories": 2,
    "deleted": 3,
    "bytes": 4,
    "sequence": 5,
    "pending_files": 6,
    "pending_bytes": 7,
    "conflicting_files": 8,
    "disputed_files": 8,
    "dissents": 9,
    "missing_files": 8,
    "lost_count": 9,
    "state": "idle",
    "dissents_of": [{"device_id": "A", "name": "laptop", "dissents": 9}],
}


@pytest.fixture
def gateway() -> FakeGateway:
    gateway = FakeGateway()
    gateway.shown = {
        "folders": [FOLDER, {**FOLDER, "id": "g", "files": 10}],
        "peers": [{"device_id": "A", "connected": True}, {"device_id": "B", "connected": False}],
    }
    gateway.background = [running("dial"), failing("heartbeat")]
    gateway.store_requests = {"GET": 8, "list_objects_v2": 9}
    gateway.counters.registry.register(GatewayCollector(gateway))
    return gateway


@pytest.fixture
def registry(gateway: FakeGateway) -> CollectorRegistry:
    return gateway.counters.registry


def test_folders(registry: CollectorRegistry) -> None:
    fields = [name for name in FOLDER if name not in ("id", "state", "dissents_of")]
    values = {name: registry.get_sample_value(f"untrusted_s3_folder_{name}", {"folder": "f"}) for name in fields}
    assert values == {name: FOLDER[name] for name in fields}
    assert registry.get_sample_value("untrusted_s3_folder_files", {"folder": "g"}) == 10


def test_scrubs(gateway: FakeGateway, registry: CollectorRegistry) -> None:
    gateway.shown["folders"][1]["scrub"] = {"progress": 0.25, "damaged": 3}
    value = registry.get_sample_value
    assert value("untrusted_s3_folder_scrub_progress", {"folder": "g"}) == 0.25
    assert value("untrusted_s3_folder_scrub_damaged", {"folder": "g"}) == 3
    assert value("untrusted_s3_folder_scrub_damaged", {"folder": "f"}) is None


def test_limits(gateway: FakeGateway, registry: CollectorRegistry) -> None:
    gateway.shown["folders"][0] = {**FOLDER, "quota": 100, "limits_reached": [{}]}
    found = {
        (name, folder): registry.get_sample_value(f"untrusted_s3_folder_{name}", {"folder": folder})
        for name in ("quota", "limits_reached")
        for folder in ("f", "g")
    }
    assert found == {
        ("quota", "f"): 100,
        ("quota", "g"): None,
        ("limits_reached", "f"): 1,
        ("limits_reached", "g"): 0,
    }


def test_limits_of_devices_and_of_the_store(gateway: FakeGateway, registry: CollectorRegistry) -> None:
    value = registry.get_sample_value
    assert value("untrusted_s3_max_store") is None and value("untrusted_s3_used_bytes") == 0
    gateway.shown["peers"][0] |= {"quota": 100, "used_bytes": 7}
    gateway.shown |= {"max_store": 1000, "used_bytes": 70}
    assert (value("untrusted_s3_max_store"), value("untrusted_s3_used_bytes")) == (1000, 70)
    for name, shown in (("quota", 100), ("used_bytes", 7)):
        assert value(f"untrusted_s3_peer_{name}", {"device": "A"}) == shown
        assert value(f"untrusted_s3_peer_{name}", {"device": "B"}) is None


def test_devices_with_other_versions(registry: CollectorRegistry) -> None:
    labels = {"folder": "g", "device": "A"}
    assert registry.get_sample_value("untrusted_s3_folder_dissents_of_device", labels) == 9


def test_folders_with_errors(gateway: FakeGateway, registry: CollectorRegistry) -> None:
    gateway.shown["folders"][1]["state"] = "error"
    assert registry.get_sample_value("untrusted_s3_folder_error", {"folder": "f"}) == 0
    assert registry.get_sample_value("untrusted_s3_folder_error", {"folder": "g"}) == 1
    assert registry.get_sample_value("untrusted_s3_problems") == 1


def test_peers(registry: CollectorRegistry) -> None:
    assert registry.get_sample_value("untrusted_s3_peer_connected", {"device": "A"}) == 1
    assert registry.get_sample_value("untrusted_s3_peer_connected", {"device": "B"}) == 0


def test_requests_to_the_store(registry: CollectorRegistry) -> None:
    value = registry.get_sample_value
    assert value("untrusted_s3_store_requests_total", {"operation": "GET"}) == 8
    assert value("untrusted_s3_store_requests_total", {"operation": "list_objects_v2"}) == 9


def test_tasks(gateway: FakeGateway, registry: CollectorRegistry) -> None:
    assert registry.get_sample_value("untrusted_s3_task_running", {"task": "dial"}) == 1
    assert registry.get_sample_value("untrusted_s3_task_running", {"task": "heartbeat"}) == 0
    for _ in range(2):
        gateway.counters.task_failed("heartbeat")
    assert registry.get_sample_value("untrusted_s3_task_failures_total", {"task": "heartbeat"}) == 2
    assert registry.get_sample_value("untrusted_s3_task_failures_total", {"task": "dial"}) is None


def test_values_are_read_anew_each_time(gateway: FakeGateway, registry: CollectorRegistry) -> None:
    gateway.shown = {"folders": [{**FOLDER, "files": 100}], "peers": []}
    assert registry.get_sample_value("untrusted_s3_folder_files", {"folder": "f"}) == 100
    assert registry.get_sample_value("untrusted_s3_folder_files", {"folder": "g"}) is None
    assert registry.get_sample_value("untrusted_s3_peer_connected", {"device": "A"}) is None


def test_any_name_of_a_folder_makes_valid_text(gateway: FakeGateway, registry: CollectorRegistry) -> None:
    gateway.shown = {"folders": [{**FOLDER, "id": 'a"\n\\'}], "peers": []}
    assert b'untrusted_s3_folder_files{folder="a\\"\\n\\\\"} 1.0' in generate_latest(registry)
