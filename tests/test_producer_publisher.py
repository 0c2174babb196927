"""The publisher against a real broker: nothing lost, never far ahead of ingest, clear words when it cannot go on."""

from __future__ import annotations

import contextlib
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from producer.publisher import MAX_AHEAD_BYTES, Publisher
from retention_platform.errors import RetentionError, ServiceError
from retention_platform.settings import Settings, load_settings
from tests.conftest import unique

#: What the development broker keeps of a partition.
KEPT_BYTES = 5 * 1024 * 1024


@pytest.fixture
def settings(broker: str, tmp_path: Path) -> Settings:
    return load_settings(retention_home=tmp_path, kafka_bootstrap_servers=broker, kafka_group=unique("group"))


def incompressible(count: int, size: int = 1000) -> Iterator[tuple[str, bytes]]:
    chance = random.Random(1)
    for number in range(count):
        yield f"key-{number % 40}", f"{number:08d}".encode() + chance.randbytes(size - 8)


class SlowIngest(threading.Thread):
    """In ingest's place: reads and commits at its own pace, keeping all it read, until it has read so many."""

    def __init__(self, settings: Settings, topics: list[str], wanted: int, batch: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self.read: list[tuple[int, int, str, bytes]] = []
        self.furthest_ahead = 0
        self._consumer = Consumer(
            {
                **settings.kafka_config(),
                "group.id": settings.kafka_group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 20,
            }
        )
        for topic in topics:
            # The development broker makes a topic when a producer first asks for it; until then reading it is an error.
            Producer(settings.kafka_config()).list_topics(topic, timeout=10)
        self._consumer.subscribe(topics)
        self._wanted, self._batch, self._seconds = wanted, batch, seconds

    def run(self) -> None:
        deadline = time.monotonic() + 60
        while len(self.read) < self._wanted and time.monotonic() < deadline:
            messages = self._consumer.consume(self._batch, timeout=0.1)
            for message in messages:
                partition, offset, key, value = message.partition(), message.offset(), message.key(), message.value()
                assert message.error() is None
                assert partition is not None and offset is not None and key is not None and value is not None
                self.read.append((partition, offset, key.decode(), value))
            if messages:
                for place in self._consumer.assignment():
                    _, end = self._consumer.get_watermark_offsets(place, timeout=5)
                    (committed,) = self._consumer.committed([place], timeout=5)
                    self.furthest_ahead = max(self.furthest_ahead, end - max(committed.offset, 0))
                self._consumer.commit(asynchronous=False)
                time.sleep(self._seconds)
        self._consumer.close()


def test_every_message_is_acknowledged_and_a_key_stays_in_one_partition_in_order(settings: Settings) -> None:
    topic = unique("topic")
    told: list[int] = []
    sent = list(incompressible(3000))
    with Publisher(settings, flow_control=False) as publisher:
        assert publisher.publish(topic, sent, told.append) == 3000
    assert sum(told) == 3000
    reader = SlowIngest(settings, [topic], 3000, 1000, 0)
    reader.start()
    reader.join()
    assert Counter((key, value) for _, _, key, value in reader.read) == Counter(sent)
    for key in {key for key, _ in sent}:
        mine = sorted((partition, offset, value) for partition, offset, k, value in reader.read if k == key)
        assert len({partition for partition, _, _ in mine}) == 1
        assert [value for _, _, value in mine] == [value for k, value in sent if k == key]


def test_a_bulk_load_through_a_slow_ingest_loses_nothing(settings: Settings) -> None:
    topic, count = unique("topic"), 30_000
    ingest = SlowIngest(settings, [topic], count, 2000, 0.02)
    ingest.start()
    with Publisher(settings) as publisher:
        assert publisher.publish(topic, incompressible(count)) == count
        publisher.wait_until_stored()
    ingest.join()
    assert Counter((key, value) for _, _, key, value in ingest.read) == Counter(incompressible(count))
    assert MAX_AHEAD_BYTES / 2 < ingest.furthest_ahead * 1000 <= KEPT_BYTES


def test_without_flow_control_the_development_broker_would_have_dropped_messages(settings: Settings) -> None:
    topic = unique("topic")
    with Publisher(settings, flow_control=False) as publisher:
        publisher.publish(topic, incompressible(30_000))
    consumer = Consumer({**settings.kafka_config(), "group.id": settings.kafka_group})
    lows = [consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=5)[0] for p in range(4)]
    consumer.close()
    assert max(lows) > 0


def test_an_ingest_that_stores_nothing_is_named(settings: Settings) -> None:
    with (
        pytest.raises(ServiceError, match=r"has stored nothing for 1 s: start it with `retention ingest`"),
        Publisher(settings, patience=1.0) as publisher,
    ):
        publisher.publish(unique("topic"), incompressible(30_000))


def test_waiting_until_stored_ends_when_the_group_has_committed_everything(settings: Settings) -> None:
    topic = unique("topic")
    with Publisher(settings, patience=20.0) as publisher:
        publisher.publish(topic, incompressible(500))
        ingest = SlowIngest(settings, [topic], 500, 50, 0.05)
        ingest.start()
        publisher.wait_until_stored()
        consumer = Consumer({**settings.kafka_config(), "group.id": settings.kafka_group})
        committed = consumer.committed([TopicPartition(topic, p) for p in range(4)], timeout=5)
        consumer.close()
        assert sum(max(place.offset, 0) for place in committed) == 500
        ingest.join()


def test_waiting_until_stored_gives_up_on_an_ingest_that_stopped(settings: Settings) -> None:
    with Publisher(settings, patience=0.5) as publisher:
        publisher.publish(unique("topic"), incompressible(10))
        with pytest.raises(ServiceError, match="retention ingest"):
            publisher.wait_until_stored()


def test_a_broker_that_is_away_is_named_with_its_address(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    away = load_settings(retention_home=tmp_path, kafka_bootstrap_servers=address)
    publisher = Publisher(away, flow_control=False)
    publisher.send("topic", "key", b"value")
    with pytest.raises(ServiceError, match=f"{address} does not answer .*KAFKA_BOOTSTRAP_SERVERS"):
        publisher.flush(0.5)


def test_a_message_the_broker_did_not_take_in_time_is_an_error(tmp_path: Path) -> None:
    with _broker_that_can_be_killed(tmp_path) as (address, process):
        settings = load_settings(retention_home=tmp_path, kafka_bootstrap_servers=address)
        publisher = Publisher(settings, flow_control=False, delivery_seconds=1.0)
        publisher.publish("topic", [("key", b"taken")])
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(ServiceError, match="not acknowledged in time"):
            publisher.publish("topic", [("key", b"lost")])


@contextlib.contextmanager
def _broker_that_can_be_killed(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    file = folder / "address"
    process = subprocess.Popen(
        [sys.executable, "-m", "retention_platform.embedded.broker", "--address-file", str(file)],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 20
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        yield file.read_text(encoding="utf-8"), process
    finally:
        process.kill()
        process.wait()


def test_a_message_too_large_for_the_producer_is_an_error_that_names_the_topic(settings: Settings) -> None:
    topic = unique("topic")
    with (
        pytest.raises(RetentionError, match=f"topic {topic} did not take a message: .*large"),
        Publisher(settings, flow_control=False) as publisher,
    ):
        publisher.send(topic, "key", bytes(2_000_000))
