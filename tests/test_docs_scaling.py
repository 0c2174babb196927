"""The SQL of docs/scaling.md that puts ClickHouse's Kafka engine in ingest's place, on the embedded server."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

from clickhouse_connect.driver.client import Client
from confluent_kafka import Producer

from benchmarks.delivery import kafka_engine_sql
from retention_platform.contract import EVENTS_TOPIC
from retention_platform.embedded import broker as embedded_broker
from retention_platform.embedded import clickhouse as embedded_clickhouse
from retention_platform.settings import load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate
from tests.messages import EVENT


def test_the_kafka_engine_fills_the_tables_of_ingest(tmp_path: Path) -> None:
    with embedded_broker.running() as broker, embedded_clickhouse.running(tmp_path / "clickhouse") as server:
        sent = send(broker, 200, b"no JSON")
        client = connect(load_settings(retention_home=tmp_path, clickhouse_port=server.port))
        migrate(client)
        for statement in kafka_engine_sql(broker, "engine", 1):
            client.command(statement)
        await_stored(client, sent)
        # At least once is all that the engine promises.
        rejected = client.query("select payload, reason from raw.rejected_events final").result_rows
        client.close()
    assert rejected == [("no JSON", "message: not JSON")]


def send(broker: str, count: int, *others: bytes) -> set[str]:
    """So many events to the topic, and what else is given; the events' ids."""
    producer = Producer({"bootstrap.servers": broker, "acks": "all"})
    ids = {str(uuid.uuid4()) for _ in range(count)}
    for message in (*others, *(json.dumps({**EVENT, "event_id": name}).encode() for name in ids)):
        producer.produce(EVENTS_TOPIC, message)
    assert producer.flush(30) == 0
    return ids


def await_stored(client: Client, ids: set[str]) -> None:
    """Wait until these events are in raw, and no others."""
    deadline = time.monotonic() + 60
    while {row[0] for row in client.query("select toString(event_id) from raw.playback_events").result_rows} != ids:
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
