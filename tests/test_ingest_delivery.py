"""Ingest over a real broker and a real ClickHouse: nothing lost, nothing doubled, whatever is killed on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Producer

from retention_platform.embedded import broker as embedded_broker
from retention_platform.embedded import clickhouse as embedded_clickhouse
from retention_platform.embedded.status import gather
from retention_platform.embedded.up import free_port
from retention_platform.ingest.broker import group_lag
from retention_platform.ingest.metrics import Figures, read_figures
from retention_platform.settings import Settings, load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate
from tests.messages import EVENT, VIDEO


def publish(address: str, count: int, *, malformed_every: int = 0) -> tuple[set[str], int]:
    """Publish events to all partitions; the ids of the good ones and the number of malformed ones."""
    producer = Producer({"bootstrap.servers": address, "enable.idempotence": True, "linger.ms": 5})
    good, malformed = set(), 0
    for number in range(count):
        event_id = str(uuid.uuid4())
        message = {**EVENT, "event_id": event_id, "session_id": f"session-{number // 20}"}
        if malformed_every and number % malformed_every == 0:
            message["position_ms"] = "a while"
            malformed += 1
        else:
            good.add(event_id)
        producer.produce("playback_events", json.dumps(message).encode(), key=message["session_id"])
        if number % 1000 == 0:
            producer.poll(0)
    assert producer.flush(30) == 0
    return good, malformed


class IngestProcess:
    """`retention ingest` as a process of its own."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "retention_platform.cli", "ingest"],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "RETENTION_HOME": str(settings.retention_home),
                    "CLICKHOUSE_PORT": str(settings.clickhouse_port),
                    "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
                    "KAFKA_LOG_ID": settings.kafka_log_id,
                    "KAFKA_GROUP": settings.kafka_group,
                    "INGEST_BATCH_SECONDS": "0.2",
                    "INGEST_BATCH_ROWS": "700",
                    "INGEST_METRICS_PORT": str(settings.ingest_metrics_port),
                },
            )

    def __enter__(self) -> IngestProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGKILL)

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(20)


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A broker and a ClickHouse of this test's own."""
    with embedded_broker.running() as address, embedded_clickhouse.running(tmp_path / "clickhouse") as server:
        chosen = load_settings(
            retention_home=tmp_path,
            clickhouse_port=server.port,
            kafka_bootstrap_servers=address,
            kafka_log_id="test-log",
            ingest_metrics_port=free_port(),
        )
        client = connect(chosen)
        migrate(client)
        client.close()
        yield chosen


def wait_until(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def caught_up(settings: Settings) -> bool:
    return not any(place.lag for place in group_lag(settings))


def stored(settings: Settings) -> list[str]:
    client = connect(settings)
    rows = client.query("select toString(event_id) from raw.playback_events").result_rows
    client.close()
    return [row[0] for row in rows]


def figures(settings: Settings) -> Figures:
    return read_figures(httpx.get(f"http://127.0.0.1:{settings.ingest_metrics_port}/metrics").text)


def count(settings: Settings, sql: str) -> int:
    client = connect(settings)
    value = client.query(sql).result_rows[0][0]
    client.close()
    return int(value)


def test_every_message_is_stored_once_or_rejected_once(settings: Settings, tmp_path: Path) -> None:
    good, malformed = publish(settings.kafka_bootstrap_servers, 5000, malformed_every=100)
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    producer.produce("videos", json.dumps(VIDEO).encode(), key="video-1")
    producer.produce("videos", b"no video")
    producer.flush(10)
    with IngestProcess(settings, tmp_path / "ingest.log") as ingest:
        wait_until(lambda: caught_up(settings))
        wait_until(lambda: figures(settings).rejects == malformed + 1)
        told = next(part for part in gather(settings) if part.name == "ingest")
        assert ingest.stop() == 0, ingest.log.read_text()
    assert told.up
    assert told.detail.startswith("0 messages behind; ")
    assert f" a batch, {malformed + 1} rejected, 0 retries; " in told.detail
    ids = stored(settings)
    assert len(ids) == len(good)
    assert set(ids) == good
    assert count(settings, "select count() from raw.rejected_events where topic = 'playback_events'") == malformed
    assert count(settings, "select count() from raw.rejected_events where field = 'position_ms'") == malformed
    assert count(settings, "select count() from raw.rejected_events where topic = 'videos'") == 1
    assert count(settings, "select count() from raw.videos") == 1


def test_kills_of_ingest_lose_and_double_nothing(settings: Settings, tmp_path: Path) -> None:
    log = tmp_path / "ingest.log"
    chance = random.Random(7)
    good, _ = publish(settings.kafka_bootstrap_servers, 40_000)
    for _ in range(3):
        before = count(settings, "select count() from raw.playback_events")
        with IngestProcess(settings, log):
            # Kill between two of the many small batches, at any point of the protocol.
            wait_until(lambda: count(settings, "select count() from raw.playback_events") > before)  # noqa: B023
            time.sleep(chance.random() * 0.3)
        assert not caught_up(settings), "the kill came too late to show anything: publish more"
    with IngestProcess(settings, log) as ingest:
        wait_until(lambda: caught_up(settings), 60)
        assert ingest.stop() == 0, log.read_text()
    ids = stored(settings)
    assert set(ids) == good
    assert len(ids) == len(good)


def test_ingest_waits_for_clickhouse_says_so_and_goes_on(tmp_path: Path) -> None:
    with embedded_broker.running() as address:
        with embedded_clickhouse.running(tmp_path / "clickhouse") as server:
            settings = load_settings(
                retention_home=tmp_path,
                clickhouse_port=server.port,
                kafka_bootstrap_servers=address,
                kafka_log_id="test-log",
            )
            client = connect(settings)
            migrate(client)
            client.close()
        good, _ = publish(address, 2000)
        with IngestProcess(settings, tmp_path / "ingest.log") as ingest:
            wait_until(lambda: "does not answer" in ingest.log.read_text())
            assert ingest.process.poll() is None
            with embedded_clickhouse.running(tmp_path / "clickhouse", port=settings.clickhouse_port):
                wait_until(lambda: caught_up(settings))
                ids = stored(settings)
                assert set(ids) == good
                assert len(ids) == len(good)
                assert ingest.stop() == 0
        text = ingest.log.read_text()
        assert "Traceback" not in text
        assert text.count("does not answer") == 1
        assert "going on" in text


def test_a_topic_made_anew_is_not_taken_for_the_old_one(settings: Settings, tmp_path: Path) -> None:
    first, _ = publish(settings.kafka_bootstrap_servers, 500)
    with IngestProcess(settings, tmp_path / "ingest.log") as ingest:
        wait_until(lambda: caught_up(settings))
        ingest.stop()
    with embedded_broker.running() as address:
        # Offsets start at 0 again: only the log's identity tells these batches from the first ones.
        anew = settings.model_copy(update={"kafka_bootstrap_servers": address, "kafka_log_id": "test-log-2"})
        second, _ = publish(address, 500)
        with IngestProcess(anew, tmp_path / "ingest.log") as ingest:
            wait_until(lambda: caught_up(anew))
            ingest.stop()
    assert set(stored(settings)) == first | second


def test_ingest_waits_for_a_broker_says_so_and_still_stops_when_asked(tmp_path: Path) -> None:
    # A port that was free a moment ago: nothing listens there.
    settings = load_settings(
        retention_home=tmp_path, kafka_bootstrap_servers=f"127.0.0.1:{free_port()}", kafka_log_id=""
    )
    with IngestProcess(settings, tmp_path / "ingest.log") as ingest:
        wait_until(lambda: "does not answer" in ingest.log.read_text())
        assert ingest.process.poll() is None
        assert ingest.stop() == 0
    text = ingest.log.read_text()
    assert text.count("does not answer") == 1
    assert "Traceback" not in text


def test_messages_that_break_a_view_further_down_stop_nobody_else(settings: Settings, tmp_path: Path) -> None:
    client = connect(settings)
    client.command("create database if not exists live")
    client.command("create table live.seen (position_ms Int64, wrong UInt8) engine = MergeTree order by position_ms")
    client.command(
        "create materialized view live.broken to live.seen as "
        "select position_ms, throwIf(position_ms = 666, 'no such luck') as wrong from raw.playback_events"
    )
    client.close()
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers})
    good, poison = set(), set()
    for number in range(3000):
        event_id = str(uuid.uuid4())
        bad = number % 997 == 5
        (poison if bad else good).add(event_id)
        message = {**EVENT, "event_id": event_id, "session_id": f"s-{number}", "position_ms": 666 if bad else 1}
        producer.produce("playback_events", json.dumps(message).encode(), key=message["session_id"])
    assert producer.flush(30) == 0
    with IngestProcess(settings, tmp_path / "ingest.log") as ingest:
        wait_until(lambda: caught_up(settings), 60)
        assert ingest.stop() == 0, ingest.log.read_text()
    ids = stored(settings)
    assert set(ids) == good and len(ids) == len(good)
    client = connect(settings)
    rejected = client.query("select payload, reason from raw.rejected_events").result_rows
    client.close()
    assert {json.loads(payload)["event_id"] for payload, _ in rejected} == poison
    assert len(rejected) == len(poison)
    assert all("no such luck" in reason for _, reason in rejected)
    assert count(settings, "select count() from live.seen") == len(good)
