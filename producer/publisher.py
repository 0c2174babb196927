"""Publishes contract messages, each acknowledged by the broker, and never far ahead of what ingest has stored.

The development broker keeps 5 MiB a partition and drops the oldest silently, so a bulk load may only be so far ahead of
the ingest group's committed offsets. The same bound keeps a real cluster from being flooded.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from types import TracebackType

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from retention_platform.errors import RetentionError, ServiceError
from retention_platform.settings import Settings

#: Bytes a partition may hold that ingest has not stored, uncompressed: below the 5 MiB (compressed) that the
#: development broker keeps, also when a quarter more is sent before the next look.
MAX_AHEAD_BYTES = 4 * 1024 * 1024 - 1
#: Seconds without any progress of ingest after which a bulk load gives up.
PATIENCE = 60.0

Place = tuple[str, int]


class Publisher:
    """An idempotent producer with flow control. Use as a context manager.

    Raises ServiceError when the broker is away or ingest does not move, RetentionError when a message is refused.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        flow_control: bool = True,
        patience: float = PATIENCE,
        delivery_seconds: float = 30.0,
    ) -> None:
        self._settings = settings
        self._patience = patience
        self._flow_control = flow_control
        self._producer = Producer(
            {
                **settings.kafka_config(),
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": 20,
                "queue.buffering.max.messages": 200_000,
                "queue.buffering.max.kbytes": 64 * 1024,
                "message.timeout.ms": int(delivery_seconds * 1000),
                "error_cb": self._on_error,
                "log_level": 0,
            }
        )
        self._watcher: Consumer | None = None
        self._failure: RetentionError | None = None
        self._delivered = 0
        #: By partition: one past the last acknowledged offset.
        self._ends: dict[Place, int] = {}
        #: By partition: (offset, size) of what is acknowledged and not yet known to be stored.
        self._ahead: dict[Place, deque[tuple[int, int]]] = defaultdict(deque)
        self._ahead_bytes: dict[Place, int] = defaultdict(int)

    def __enter__(self) -> Publisher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush()
        if self._watcher is not None:
            self._watcher.close()

    def send(self, topic: str, key: str, value: bytes) -> None:
        """Hand one message to the producer without waiting; a failure is raised by a later call."""
        while True:
            try:
                self._producer.produce(topic, value, key=key, on_delivery=self._on_delivery)
            except BufferError:
                self._producer.poll(0.1)
                self._raise_failure()
            except KafkaException as error:
                raise RetentionError(f"topic {topic} did not take a message: {error.args[0].str()}") from None
            else:
                break
        self._producer.poll(0)
        self._raise_failure()

    def flush(self, seconds: float = 35.0) -> None:
        """Return when every message sent is acknowledged."""
        deadline = time.monotonic() + seconds
        # In slices, because a signal is only seen between them.
        while left := self._producer.flush(0.2):
            self._raise_failure()
            if time.monotonic() > deadline:
                break
        self._raise_failure()
        if left:
            raise self._away(f"{left:,} messages were not acknowledged")

    def publish(
        self, topic: str, messages: Iterable[tuple[str, bytes]], progress: Callable[[int], None] | None = None
    ) -> int:
        """Publish (key, value) pairs; how many were acknowledged. ``progress`` is told of each few thousand."""
        before = self._delivered
        count = size = 0
        for key, value in messages:
            self.send(topic, key, value)
            count += 1
            size += len(value)
            # Checked this often, one partition can get this much further before the next look.
            if size >= MAX_AHEAD_BYTES // 4:
                self.flush()
                self._wait_for_ingest()
                if progress:
                    progress(count)
                count = size = 0
        self.flush()
        if progress:
            progress(count)
        return self._delivered - before

    def wait_until_stored(self) -> None:
        """Return when ingest has stored everything this publisher was told is on the topic."""
        self.flush()
        self._wait(lambda stored: all(stored.get(place, 0) >= end for place, end in self._ends.items()))

    # -- flow control

    def _wait_for_ingest(self) -> None:
        """Return when no partition is too far ahead of ingest."""
        if self._flow_control and max(self._ahead_bytes.values(), default=0) > MAX_AHEAD_BYTES:
            self._wait(lambda _: max(self._ahead_bytes.values(), default=0) <= MAX_AHEAD_BYTES // 2)

    def _wait(self, is_done: Callable[[dict[Place, int]], bool]) -> None:
        deadline = time.monotonic() + self._patience
        last: dict[Place, int] | None = None
        while True:
            stored = self._stored()
            if is_done(stored):
                return
            if stored != last:
                last, deadline = stored, time.monotonic() + self._patience
            elif time.monotonic() > deadline:
                raise ServiceError(
                    f"ingest (group {self._settings.kafka_group}) has stored nothing for {self._patience:.0f} s: "
                    "start it with `retention ingest`, or see why it waits in its log"
                )
            time.sleep(0.02)

    def _stored(self) -> dict[Place, int]:
        """The ingest group's committed offset in each partition we wrote to."""
        if self._watcher is None:
            self._watcher = Consumer(
                {
                    **self._settings.kafka_config(),
                    "group.id": self._settings.kafka_group,
                    "enable.auto.commit": False,
                    "log_level": 0,
                }
            )
        places = [TopicPartition(topic, partition) for topic, partition in self._ends]
        try:
            committed = self._watcher.committed(places, timeout=10) if places else []
        except KafkaException as error:
            raise self._away(str(error.args[0].str())) from None
        stored = {(place.topic, place.partition): max(place.offset, 0) for place in committed}
        for place, offset in stored.items():
            waiting = self._ahead[place]
            while waiting and waiting[0][0] < offset:
                self._ahead_bytes[place] -= waiting.popleft()[1]
        return stored

    # -- librdkafka's callbacks

    def _on_delivery(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            if error.code() == KafkaError._MSG_TIMED_OUT:
                self._failure = self._away("messages were not acknowledged in time")
            else:
                self._failure = RetentionError(f"topic {message.topic()} did not take a message: {error.str()}")
            return
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None and partition is not None and offset is not None
        self._delivered += 1
        place = (topic, partition)
        self._ends[place] = max(self._ends.get(place, 0), offset + 1)
        if self._flow_control:
            size = len(message)
            self._ahead[place].append((offset, size))
            self._ahead_bytes[place] += size

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failure = RetentionError(f"the Kafka producer gave up: {error.str()}; run this again")

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _away(self, reason: str) -> ServiceError:
        return ServiceError(
            f"Kafka broker at {self._settings.kafka_bootstrap_servers} does not answer ({reason}): "
            "start it with `retention up`, or check KAFKA_BOOTSTRAP_SERVERS"
        )
