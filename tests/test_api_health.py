"""Health: what each part's silence means, and how fresh the figures are."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from confluent_kafka import Producer

from retention_platform.api.health import Findings, judge
from retention_platform.api.queries import MartsFreshness, RawFreshness
from retention_platform.api.warehouse import MartsMissing, WarehouseAway, WarehouseBusy
from retention_platform.contract import EVENTS_TOPIC
from retention_platform.errors import RetentionError, ServiceError
from retention_platform.settings import load_settings
from tests.api_support import free_port, serving, watch
from tests.conftest import Warehouse, unique
from tests.dbt_support import Chain

NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
RAW = RawFreshness(1000, NOW - timedelta(seconds=2))
MARTS = MartsFreshness(12, NOW - timedelta(seconds=9), NOW - timedelta(seconds=10))
AWAY = WarehouseAway("ClickHouse is away")
BUSY = WarehouseBusy("no room")
MISSING = MartsMissing("not built")
GONE = ServiceError("gone")


@pytest.mark.parametrize(
    ("found", "status", "parts"),
    [
        (Findings(RAW, MARTS, 0, "1.13"), "ok", ("up", "up", "up", "up")),
        (Findings(RAW, MARTS, None, "1.13"), "ok", ("up", "up", "unknown", "up")),
        (Findings(RAW, MARTS, 5, GONE), "degraded", ("up", "up", "up", "down")),
        (Findings(RAW, MARTS, GONE, "1.13"), "degraded", ("up", "up", "down", "up")),
        (Findings(RAW, MISSING, 0, "1.13"), "degraded", ("up", "down", "up", "up")),
        (Findings(MISSING, MISSING, 0, "1.13"), "degraded", ("up", "down", "up", "up")),
        (Findings(BUSY, BUSY, 0, "1.13"), "ok", ("up", "unknown", "up", "up")),
        (Findings(AWAY, AWAY, 0, "1.13"), "unavailable", ("down", "unknown", "up", "up")),
        (Findings(AWAY, AWAY, GONE, GONE), "unavailable", ("down", "unknown", "down", "down")),
        (Findings(RAW, AWAY, 0, "1.13"), "unavailable", ("down", "unknown", "up", "up")),
    ],
)
def test_only_clickhouse_is_required(found: Findings, status: str, parts: tuple[str, ...], tmp_path: Path) -> None:
    health = judge(found, load_settings(retention_home=tmp_path), NOW)
    asked = health.dependencies
    assert health.status == status
    assert (asked.clickhouse.status, asked.marts.status, asked.kafka.status, asked.dagster.status) == parts
    for part in (asked.clickhouse, asked.marts, asked.kafka, asked.dagster):
        assert part.detail
        assert "\n" not in part.detail


def test_the_lag_is_what_is_stored_and_not_in_the_marts(tmp_path: Path) -> None:
    freshness = judge(Findings(RAW, MARTS, 3, "1.13"), load_settings(retention_home=tmp_path), NOW).freshness
    assert (freshness.marts_lag_s, freshness.ingest_lag_messages) == (8.0, 3)
    assert freshness.newest_ingested_at == RAW.newest
    assert freshness.marts_computed_at == MARTS.computed


@pytest.mark.parametrize(
    "found",
    [
        Findings(RawFreshness(0, None), MARTS, GONE, "1"),
        Findings(RAW, MartsFreshness(3, NOW, None), None, "1"),
        Findings(RAW, MISSING, None, "1"),
        Findings(AWAY, AWAY, None, RetentionError("gone")),
    ],
)
def test_a_lag_that_nobody_can_know_is_null_and_not_zero(found: Findings, tmp_path: Path) -> None:
    freshness = judge(found, load_settings(retention_home=tmp_path), NOW).freshness
    assert freshness.marts_lag_s is None
    assert freshness.ingest_lag_messages is None


class _Dagster(BaseHTTPRequestHandler):
    """Answers as Dagster's web server does to /server_info."""

    def do_GET(self) -> None:
        body = json.dumps({"dagster_webserver_version": "1.13.27"}).encode()
        self.send_response(200 if self.path == "/server_info" else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def dagster_port() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Dagster) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def test_health_follows_the_chain_from_the_topic_to_the_marts(
    empty_warehouse: Warehouse, broker: str, dagster_port: int, tmp_path: Path
) -> None:
    settings = load_settings(
        retention_home=tmp_path,
        clickhouse_host="127.0.0.1",
        clickhouse_port=empty_warehouse.settings.clickhouse_port,
        kafka_bootstrap_servers=broker,
        kafka_group=unique("health"),
        dagster_port=dagster_port,
    )
    producer = Producer({"bootstrap.servers": broker, "acks": "all"})
    chain = Chain(settings, tmp_path)
    with serving(settings) as api:
        before = api.get("/health").json()["freshness"]["ingest_lag_messages"]
        for _ in range(7):
            producer.produce(EVENTS_TOPIC, b"{}")
        assert producer.flush(10) == 0

    chain.send_events(watch("a", 1, 20, 60))
    with serving(settings) as api:
        health = api.get("/health").json()
        assert health["freshness"]["ingest_lag_messages"] == before + 7
        assert health["status"] == "degraded"
        assert health["freshness"]["newest_ingested_at"] is not None
        assert health["freshness"]["marts_lag_s"] is None

    chain.build()
    with serving(settings) as api:
        health = api.get("/health").json()
        assert health["status"] == "ok", health
        assert health["freshness"]["marts_lag_s"] == 0
        assert "1.13.27" in health["dependencies"]["dagster"]["detail"]

    wait = chain.client.command("select sleep(1.1)")
    assert wait == 0
    chain.send_events(watch("a", 2, 20, 60))
    with serving(settings) as api:
        assert 1 <= api.get("/health").json()["freshness"]["marts_lag_s"] < 60
    chain.client.close()


def test_a_broker_and_a_dagster_that_are_gone_degrade_but_do_not_stop_it(
    empty_warehouse: Warehouse, tmp_path: Path
) -> None:
    settings = load_settings(
        retention_home=tmp_path,
        clickhouse_host="127.0.0.1",
        clickhouse_port=empty_warehouse.settings.clickhouse_port,
        kafka_bootstrap_servers=f"127.0.0.1:{free_port()}",
        dagster_port=free_port(),
    )
    with serving(settings) as api:
        answer = api.get("/health")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        parts = answer.json()["dependencies"]
        assert (parts["kafka"]["status"], parts["dagster"]["status"]) == ("down", "down")
        assert str(settings.dagster_port) in parts["dagster"]["detail"]
        assert settings.kafka_bootstrap_servers in parts["kafka"]["detail"]
