"""The ingest loop: messages of the consumer group into raw.inbox, each range exactly once.

For every batch: commit where it will end (the intent), insert it with its token, commit its end. A crash between
any two of these is healed by the next owner of the partition, who repeats exactly the range that the intent names.
While ClickHouse or the broker is away the loop waits, says so once, and goes on.
"""

from __future__ import annotations

import logging
import signal
import time
from typing import TYPE_CHECKING, Protocol

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from retention_platform.errors import ServiceError
from retention_platform.ingest.batch import (
    INBOX_COLUMNS,
    Batch,
    Intent,
    Limits,
    Start,
    encode_row,
    row_prefix,
    where_to_start,
)
from retention_platform.ingest.broker import TOPICS, broker_away, log_identity
from retention_platform.settings import Settings
from retention_platform.warehouse.client import connect, first_line

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

log = logging.getLogger("retention.ingest")

Place = tuple[str, int]

#: The settings every insert carries; one insert is one block, so that its token covers all of it.
INSERT_SETTINGS = {
    "async_insert": 0,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    "max_insert_block_size": 2_000_000,
    "min_insert_block_size_rows": 0,
    "min_insert_block_size_bytes": 0,
    "max_partitions_per_insert_block": 0,
    "wait_end_of_query": 1,
}

#: Commit failures that mean the partition is another's now.
_FENCED = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._STATE,
    KafkaError._ASSIGNMENT_LOST,
}


class Sink(Protocol):
    """Where batches go."""

    def insert(self, rows: bytes, token: str) -> None:
        """Insert rows of raw.inbox in RowBinary. Raises ServiceError when it may not have happened."""


class ClickHouseSink:
    """Inserts into raw.inbox; connects on first use and again after a failure."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client: Client | None = None

    def insert(self, rows: bytes, token: str) -> None:
        """See `Sink`."""
        try:
            if self._client is None:
                self._client = connect(self._settings, client_name="retention-ingest")
            self._client.raw_insert(
                "raw.inbox",
                INBOX_COLUMNS,
                rows,
                settings={**INSERT_SETTINGS, "insert_deduplication_token": token},
                fmt="RowBinary",
            )
        except ServiceError:
            raise
        except Exception as error:  # the driver raises its own, urllib3's and OS errors alike: all mean "again"
            self._client = None
            hint = ": run `retention migrate`" if "UNKNOWN_TABLE" in str(error) else ""
            raise ServiceError(f"ClickHouse did not take the batch ({first_line(error)}){hint}") from error


class Waiting:
    """Says once that something is away, once that it is back, and how long to pause in between."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._tries = 0

    def pause(self, reason: str) -> float:
        """Note a failure; seconds until the next try, from 0.2 doubling to 5."""
        if self._since is None:
            self._since = time.monotonic()
            log.warning("%s; waiting", reason)
        self._tries += 1
        return min(0.1 * 2.0**self._tries, 5.0)

    def over(self) -> None:
        """Note a success."""
        if self._since is not None:
            log.warning("back after %.1f s; going on", time.monotonic() - self._since)
        self._since, self._tries = None, 0


class Ingest:
    """The loop over one consumer. ``run`` returns after `stop`, with everything read inserted and committed."""

    def __init__(self, settings: Settings, sink: Sink) -> None:
        self._settings = settings
        self._sink = sink
        self._limits = Limits(settings.ingest_batch_rows, settings.ingest_batch_bytes, settings.ingest_batch_seconds)
        self._log_ids: dict[str, str] = {}
        self._prefixes: dict[str, bytes] = {}
        self._batches: dict[Place, Batch] = {}
        self._stopping = False
        self._broker_is_away = False
        self.stored = 0

    def stop(self) -> None:
        """Ask the loop to insert what it has read and return; safe in a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Consume until stopped."""
        if not self._learn_logs():
            return
        consumer = Consumer(
            {
                **self._settings.kafka_config(),
                "group.id": self._settings.kafka_group,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 6_000,
                # What librdkafka may hold in memory ahead of us.
                "queued.max.messages.kbytes": 64 * 1024,
                "fetch.wait.max.ms": 100,
                "error_cb": self._on_error,
                "log_level": 0,
            }
        )
        consumer.subscribe(list(TOPICS), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)
        log.info("reading %s as group %s", " and ".join(TOPICS), self._settings.kafka_group)
        most = min(self._limits.rows, 20_000)
        report_at, reported = time.monotonic() + 10, 0
        try:
            while not self._stopping:
                self._take(consumer, consumer.consume(most, timeout=0.05))
                now = time.monotonic()
                self._store(consumer, [b for b in self._batches.values() if b.is_due(now, self._limits)])
                if now >= report_at:
                    if self.stored > reported:
                        log.info("%s messages stored", f"{self.stored:,}")
                    report_at, reported = now + 10, self.stored
            self._store(consumer, [b for b in self._batches.values() if b.rows and b.replay_end in (None, b.end)])
        finally:
            consumer.close()
            log.info("stopped; %s messages stored", f"{self.stored:,}")

    # -- reading

    def _learn_logs(self) -> bool:
        """Ask for the logs' identities until the broker tells; False when stopped before it did."""
        waiting = Waiting()
        while not self._stopping:
            try:
                self._log_ids = log_identity(self._settings)
            except ServiceError as error:
                time.sleep(min(waiting.pause(str(error)), 1.0))
                continue
            waiting.over()
            self._prefixes = {topic: row_prefix(log_id, topic) for topic, log_id in self._log_ids.items()}
            return True
        return False

    def _take(self, consumer: Consumer, messages: list[Message]) -> None:
        """Put messages into their partitions' batches."""
        now = time.monotonic()
        for message in messages:
            error = message.error()
            if error is not None:
                log.warning("broker: %s", error.str())
                continue
            if self._broker_is_away:
                self._broker_is_away = False
                log.warning("broker is back; going on")
            topic, partition, offset = _place(message)
            batch = self._batches.get((topic, partition))
            if batch is not None and not batch.takes(offset):
                # The repeated range ended in a gap: it is complete now.
                self._store(consumer, [batch])
                batch = self._batches.get((topic, partition))
            if batch is None or offset < batch.end:
                continue  # another's by now, or read before: whoever owns the range inserts it
            if not batch.rows:
                batch.opened_at = now
                if offset > batch.start:
                    log.warning(
                        f"{topic}/{partition}: offsets {batch.start} to {offset - 1} are not on the broker (any more)"
                    )
            row = encode_row(
                self._prefixes[topic],
                partition,
                offset,
                max(message.timestamp()[1], 0),
                message.key() or b"",
                message.value() or b"",
            )
            batch.add(offset, row)
            batch.added_at = now

    # -- storing

    def _store(self, consumer: Consumer, batches: list[Batch]) -> None:
        """Intent, insert, commit; a batch whose partition is lost on the way is left to the next owner."""
        batches = [batch for batch in batches if self._is_ours(batch)]
        if not batches:
            return
        waiting = Waiting()
        intents = [self._mark(batch, batch.start, batch.range_end) for batch in batches]
        if not self._commit(consumer, intents, waiting):
            return
        done = []
        for batch in batches:
            if self._insert(consumer, batch, waiting):
                done.append(batch)
        ends = [self._mark(batch, batch.range_end, None) for batch in done if self._is_ours(batch)]
        if not ends or not self._commit(consumer, ends, waiting):
            return
        for batch in done:
            if self._is_ours(batch):
                self.stored += len(batch.rows)
                self._open(batch.topic, batch.partition, Start(batch.range_end))

    def _insert(self, consumer: Consumer, batch: Batch, waiting: Waiting) -> bool:
        """Insert until it is taken; False when the partition was lost, or we are stopping, before it was."""
        rows = b"".join(batch.rows)
        token = batch.token(self._log_ids[batch.topic])
        while self._is_ours(batch):
            try:
                self._sink.insert(rows, token)
            except ServiceError as error:
                if self._stopping:
                    log.warning("%s; stopping: the next run repeats this batch", error)
                    return False
                self._idle(consumer, waiting.pause(str(error)))
                continue
            waiting.over()
            return True
        return False

    def _commit(self, consumer: Consumer, places: list[TopicPartition], waiting: Waiting) -> bool:
        """Commit until the broker takes it; False when it says that the partitions are another's."""
        while True:
            try:
                results = consumer.commit(offsets=places, asynchronous=False)
                failed = [place.error for place in results if place.error is not None]
                if failed:
                    raise KafkaException(failed[0])
            except KafkaException as error:
                if error.args[0].code() in _FENCED:
                    log.warning("partitions were taken over by another ingest; leaving the batch to it")
                    self._batches.clear()
                    return False
                if self._stopping:
                    return False
                self._idle(consumer, waiting.pause(str(broker_away(self._settings, error))))
                continue
            waiting.over()
            return True

    def _idle(self, consumer: Consumer, seconds: float) -> None:
        """Wait without reading more, but polling, so that the group does not take us for dead."""
        consumer.pause(consumer.assignment())
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            message = consumer.poll(0.1)
            if message is not None:
                self._take(consumer, [message])
        consumer.resume(consumer.assignment())

    def _is_ours(self, batch: Batch) -> bool:
        return self._batches.get((batch.topic, batch.partition)) is batch

    def _open(self, topic: str, partition: int, start: Start) -> None:
        self._batches[topic, partition] = Batch(topic, partition, start.offset, time.monotonic(), start.replay_end)

    def _mark(self, batch: Batch, offset: int, end: int | None) -> TopicPartition:
        """A committed offset of the batch's partition with its intent as metadata."""
        metadata = Intent(self._log_ids[batch.topic], end).encode()
        return TopicPartition(batch.topic, batch.partition, offset, metadata=metadata)

    # -- librdkafka's callbacks, called inside consume() and poll()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        starts = []
        for place in consumer.committed(partitions, timeout=10):
            low, _ = consumer.get_watermark_offsets(TopicPartition(place.topic, place.partition), timeout=10)
            start = where_to_start(self._log_ids[place.topic], low, place.offset, place.metadata)
            self._open(place.topic, place.partition, start)
            starts.append(TopicPartition(place.topic, place.partition, start.offset))
        consumer.assign(starts)

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        # What was read and not inserted is not committed either: the next owner reads it again.
        for place in partitions:
            self._batches.pop((place.topic, place.partition), None)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._broker_is_away:
            self._broker_is_away = True
            log.warning("%s; waiting", broker_away(self._settings, KafkaException(error)))


def _place(message: Message) -> tuple[str, int, int]:
    """Where a message is; the binding's types allow None, which only messages not yet sent have."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None
    return topic, partition, offset


def run_ingest(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then store what was read and return."""
    ingest = Ingest(settings, ClickHouseSink(settings))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ingest.stop())
    ingest.run()
