"""The development broker as its clients see it, and its process."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.embedded.broker import running
from tests.conftest import unique


def consumer(address: str, **options: str) -> Consumer:
    return Consumer({"bootstrap.servers": address, "group.id": unique("group"), "log_level": 2, **options})


def test_its_topics_are_there_from_the_start(broker: str) -> None:
    topics = Producer({"bootstrap.servers": broker, "log_level": 2}).list_topics(timeout=10).topics
    assert {EVENTS_TOPIC, VIDEOS_TOPIC} <= topics.keys()
    assert len(topics[EVENTS_TOPIC].partitions) == 4


def test_what_an_idempotent_producer_sends_arrives_in_order(broker: str) -> None:
    topic = unique("ordered")
    producer = Producer({"bootstrap.servers": broker, "enable.idempotence": True, "acks": "all", "log_level": 2})
    sent = [str(n).encode() for n in range(1000)]
    for value in sent:
        producer.produce(topic, value, partition=2)
    assert producer.flush(20) == 0
    reader = consumer(broker)
    reader.assign([TopicPartition(topic, 2, 0)])
    seen: list[bytes | None] = []
    deadline = time.monotonic() + 20
    while len(seen) < len(sent) and time.monotonic() < deadline:
        seen += [message.value() for message in reader.consume(1000, 0.2)]
    reader.close()
    assert seen == sent


def test_committed_offsets_keep_their_metadata(broker: str) -> None:
    first = consumer(broker)
    group = {"group.id": unique("metadata")}
    first.close()
    for offset, text in ((7, "planned to 9"), (9, "")):
        writer = consumer(broker, **group)
        writer.commit(offsets=[TopicPartition(EVENTS_TOPIC, 1, offset, text)], asynchronous=False)
        writer.close()
        reader = consumer(broker, **group)
        (committed,) = reader.committed([TopicPartition(EVENTS_TOPIC, 1)], timeout=10)
        reader.close()
        assert (committed.offset, committed.metadata or "") == (offset, text)


def test_it_drops_the_oldest_beyond_five_mebibytes_and_a_reader_can_notice(broker: str) -> None:
    """The limit that loads through this broker must respect; were it gone, their flow control could go too."""
    topic = unique("overflow")
    producer = Producer({"bootstrap.servers": broker, "compression.type": "none", "log_level": 2})
    size, count = 10_000, 1000
    for _ in range(count):
        producer.produce(topic, os.urandom(size), partition=0)
    assert producer.flush(20) == 0
    reader = consumer(broker, **{"auto.offset.reset": "error"})
    low, high = reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
    assert high == count
    assert 0 < (high - low) * size < 5.5 * 1024**2
    reader.assign([TopicPartition(topic, 0, 0)])
    with pytest.raises(KafkaException) as raised:
        message = reader.poll(10)
        assert message is not None
        error = message.error()
        assert error is not None, f"offset {message.offset()} came, though 0 was asked for"
        raise KafkaException(error)
    reader.close()
    assert raised.value.args[0].code() == KafkaError._AUTO_OFFSET_RESET


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_tells_its_address_and_ends_quietly(tmp_path: Path, number: signal.Signals) -> None:
    file = tmp_path / "address"
    command = [sys.executable, "-m", "retention_platform.embedded.broker", "--address-file", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
        assert file.read_text() == address
        client = Producer({"bootstrap.servers": address, "log_level": 2})
        client.list_topics(timeout=10)
        process.send_signal(number)
        _, errors = process.communicate(timeout=5)
    assert (process.returncode, errors) == (0, "")


def test_two_brokers_run_side_by_side() -> None:
    with running() as one, running() as two:
        assert one != two
        producer = Producer({"bootstrap.servers": one, "log_level": 2})
        producer.produce(EVENTS_TOPIC, b"x", partition=0)
        assert producer.flush(10) == 0
        for address, messages in ((one, 1), (two, 0)):
            reader = consumer(address)
            assert reader.get_watermark_offsets(TopicPartition(EVENTS_TOPIC, 0), timeout=10) == (0, messages)
            reader.close()
