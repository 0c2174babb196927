"""Both ends of the log: a sender that notes what was acknowledged, and a witness that reads everything as it comes.

The witness reads along because the development broker forgets the oldest messages; it belongs to no consumer group.
"""

from __future__ import annotations

import functools
import json
import threading
import time
from collections import Counter
from typing import Any

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka import Message as Delivered

from retention_platform.contract import EVENTS_TOPIC
from tests.soak.traffic import Kind, Message, Traffic

Place = tuple[int, int]
PARTITIONS = 4
#: How long a message may be on its way before the producer gives it up: longer than any fault lasts.
PATIENCE_MS = 300_000


class Sender(threading.Thread):
    """Sends what traffic has as it is due, until told to stop; then what was held back."""

    def __init__(self, address: str, traffic: Traffic) -> None:
        super().__init__(daemon=True)
        self._traffic = traffic
        self._ending = threading.Event()
        self._producer = Producer(
            {
                "bootstrap.servers": address,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 20,
                "compression.type": "zstd",
                "queue.buffering.max.messages": 1_000_000,
                "message.timeout.ms": PATIENCE_MS,
                "log_level": 0,
            }
        )
        self.sent: Counter[Kind] = Counter()
        self.late = 0
        #: Every value that was ever sent to the topic of events, and what it is.
        self.kinds: dict[bytes, Kind] = {}
        #: By place, what the broker said it has; what it acknowledged without saying where is in `somewhere`.
        self.acknowledged: dict[Place, bytes] = {}
        self.somewhere: list[bytes] = []
        self.given_up: list[str] = []
        self._videos: list[bytes] = []
        self.failed: BaseException | None = None

    def finish(self) -> None:
        """Send what is left, and wait until all is acknowledged or given up."""
        self._ending.set()
        if self.ident is not None:
            self.join(PATIENCE_MS / 1000 + 60)

    def run(self) -> None:
        try:
            while not self._ending.wait(0.02):
                for message in self._traffic.until(int(time.time() * 1000)):
                    self._send(message)
                self._producer.poll(0)
            for message in self._traffic.rest(int(time.time() * 1000)):
                self._send(message)
            self._producer.flush(PATIENCE_MS / 1000 + 30)
        except BaseException as error:
            self.failed = error

    def _send(self, message: Message) -> None:
        self.sent[message.kind] += 1
        self.late += message.late
        if message.topic == EVENTS_TOPIC:
            self.kinds[message.value] = "malformed" if message.kind == "malformed" else "event"
        else:
            self._videos.append(message.value)
        noted = functools.partial(self._noted, message)
        self._producer.produce(message.topic, message.value, key=message.key, on_delivery=noted)

    def _noted(self, message: Message, error: KafkaError | None, delivered: Delivered) -> None:
        if error is not None:
            self.given_up.append(error.str())
        elif message.topic == EVENTS_TOPIC:
            partition, offset = delivered.partition(), delivered.offset()
            # Of a message that was retried and had been stored the first time, the broker may not say where.
            if partition is None or offset is None or offset < 0:
                self.somewhere.append(message.value)
            else:
                self.acknowledged[partition, offset] = message.value

    @property
    def videos(self) -> list[dict[str, Any]]:
        """The descriptions of videos that were sent."""
        return [json.loads(value) for value in self._videos]

    @property
    def acknowledged_count(self) -> int:
        """How many messages to the topic of events were acknowledged."""
        return len(self.acknowledged) + len(self.somewhere)


class Witness(threading.Thread):
    """Every message of the topic of events, by partition and offset."""

    def __init__(self, address: str, kinds: dict[bytes, Kind]) -> None:
        super().__init__(daemon=True)
        self._ending = threading.Event()
        self._kinds = kinds
        self._consumer = Consumer(
            {
                "bootstrap.servers": address,
                "group.id": "soak-witness",
                "enable.auto.commit": False,
                # What it did not read in time is gone: that must not pass unseen.
                "auto.offset.reset": "error",
                "log_level": 0,
            }
        )
        self._consumer.assign([TopicPartition(EVENTS_TOPIC, partition, 0) for partition in range(PARTITIONS)])
        self.log: dict[Place, bytes] = {}
        self.twice: list[Place] = []
        self.lost: str | None = None

    def run(self) -> None:
        while not self._ending.is_set():
            for message in self._consumer.consume(1000, timeout=0.2):
                error, value = message.error(), message.value()
                if error is not None:
                    if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
                        self.lost = error.str()
                    continue
                partition, offset = message.partition(), message.offset()
                assert partition is not None and offset is not None and value is not None
                if (partition, offset) in self.log:
                    self.twice.append((partition, offset))
                self.log[partition, offset] = value
        self._consumer.close()

    def has_read(self, ends: dict[int, int]) -> bool:
        """Whether it has every message before these offsets."""
        return len(self.log) >= sum(ends.values())

    def finish(self) -> None:
        """Stop reading."""
        self._ending.set()
        if self.ident is not None:
            self.join(60)
