"""How long an event takes from the broker's acknowledgement until a query of the live tables sees it."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from confluent_kafka import Producer

from benchmarks.report import Report
from retention_platform.embedded import broker as embedded_broker
from retention_platform.embedded import clickhouse as embedded_clickhouse
from retention_platform.settings import Settings, load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate

SECONDS = 40
RATES = (20, 1_000)


def run(report: Report) -> None:
    """Events at a steady rate through broker, ingest and ClickHouse, each its own process; a query every 20 ms."""
    report.text(
        "From the broker's acknowledgement of an event until `live.events` and `live.ticks` show it to a query, with "
        f"the parts of the demo stack and its settings, for {SECONDS} s at each rate; raw is asked in the same breath."
    )
    rows = []
    for rate in RATES:
        with (
            tempfile.TemporaryDirectory() as folder,
            embedded_broker.running() as address,
            chain(address, Path(folder)) as settings,
        ):
            raw, live = measure(settings, rate, SECONDS)
        for table, seconds in (("raw.playback_events", raw), ("live", live)):
            cuts = statistics.quantiles(seconds, n=100)
            rows.append(
                (f"{table}, {rate:,} events/s", *(f"{cuts[q - 1]:.2f} s" for q in (50, 95, 99)), f"{len(seconds):,}")
            )
    report.table(("acknowledged to visible", "p50", "p95", "p99", "events"), rows)


@contextlib.contextmanager
def chain(broker: str, home: Path) -> Iterator[Settings]:
    """ClickHouse and ingest over a broker that runs, for as long as the block does."""
    with embedded_clickhouse.running(home / "clickhouse") as server:
        settings = load_settings(
            retention_home=home, clickhouse_port=server.port, kafka_bootstrap_servers=broker, kafka_log_id="bench"
        )
        client = connect(settings)
        migrate(client)
        client.close()
        environment = {
            **os.environ,
            "RETENTION_HOME": str(home),
            "CLICKHOUSE_PORT": str(server.port),
            "KAFKA_BOOTSTRAP_SERVERS": broker,
            "KAFKA_LOG_ID": "bench",
        }
        command = [sys.executable, "-m", "retention_platform.cli", "ingest"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as ingest:
            try:
                yield settings
            finally:
                ingest.terminate()


def measure(settings: Settings, rate: int, seconds: int) -> tuple[list[float], list[float]]:
    """Seconds from acknowledgement to visible in raw and in live, by event; events come for so many ``seconds``."""
    acknowledged: dict[int, float] = {}
    seen: dict[str, dict[int, float]] = {"raw": {}, "live": {}}
    stop = threading.Event()

    def watch() -> None:
        client = connect(settings)
        # Positions are the events' numbers, and of one partition: what is seen is all up to the greatest.
        asked = {
            "raw": "select max(played_to_ms) from raw.playback_events",
            "live": "select max(played_to_ms) from live.events where (select count() from live.ticks) > 0",
        }
        known = {"raw": 0, "live": 0}
        while not stop.is_set():
            for table, sql in asked.items():
                newest = int(client.query(sql).result_rows[0][0] or 0)
                now = time.monotonic()
                for number in range(known[table] + 1, newest + 1):
                    seen[table][number] = now
                known[table] = max(known[table], newest)
            time.sleep(0.02)
        client.close()

    watcher = threading.Thread(target=watch)
    watcher.start()
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "acks": "all", "linger.ms": 5})

    def note(number: int) -> object:
        return lambda error, message: acknowledged.setdefault(number, time.monotonic())

    began, total = time.monotonic(), rate * seconds
    for number in range(1, total + 1):
        due = began + number / rate
        while (left := due - time.monotonic()) > 0:
            producer.poll(min(left, 0.005))
        event = {
            "schema_version": 1,
            "event_id": str(uuid.uuid4()),
            "event_type": "heartbeat",
            "event_time": int(time.time() * 1000),
            "session_id": f"session-{number % 500}",
            "viewer_id": f"viewer-{number % 400}",
            "video_id": f"video-{number % 12}",
            "position_ms": number,
            "played_from_ms": max(0, number - 10_000),
            "played_to_ms": number,
        }
        producer.produce("playback_events", json.dumps(event).encode(), partition=0, on_delivery=note(number))
    producer.flush(30)
    deadline = time.monotonic() + 30
    while len(seen["live"]) < total and time.monotonic() < deadline:
        time.sleep(0.05)
    stop.set()
    watcher.join()
    # The group's first assignment is not what is measured.
    counted = [number for number in acknowledged if acknowledged[number] > began + 8 and number in seen["live"]]
    return (
        [max(0.0, seen["raw"][number] - acknowledged[number]) for number in counted],
        [max(0.0, seen["live"][number] - acknowledged[number]) for number in counted],
    )
