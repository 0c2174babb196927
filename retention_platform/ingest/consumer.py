"""The ingest loop: messages of the consumer group into raw.inbox, each range exactly once.

For every batch: commit where it will end (the intent), insert it with its token, commit its end. A crash between
any two of these is healed by the next owner of the partition, who repeats exactly the range that the intent names.
While a partition's batch is being inserted the next one fills; where that is full as well, the partition is paused.
While ClickHouse or the broker is away the loop waits, says so once, and goes on.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from retention_platform.errors import ServiceError
from retention_platform.ingest.batch import Batch, Intent, Limits, Source, Start, where_to_start
from retention_platform.ingest.broker import TOPICS, LogQuestion, LogWatch, broker_away, log_identity
from retention_platform.ingest.metrics import Metrics
from retention_platform.ingest.pseudonym import Pseudonyms
from retention_platform.ingest.sink import ClickHouseSink, Refused, Sink
from retention_platform.ingest.workers import Workers
from retention_platform.settings import Settings

log = logging.getLogger("retention.ingest")

Place = tuple[str, int]
#: Committed offsets with their metadata, of any order.
Marks = frozenset[tuple[str, int, int, str]]

#: After so long without an answer a commit counts as undecided.
COMMIT_SECONDS = 10.0
#: How often it is asked whether a topic was made anew, while nothing is committed.
LOG_SECONDS = 2.0
#: How long a graceful stop waits for ClickHouse; what it has not taken by then is the next run's.
STOP_SECONDS = 5.0
#: How often a skipped offset is asked for again before it is believed to be gone.
GAP_SEEKS = 3
#: Messages read at once: of many more, the first are out of the processor's caches before the last have come.
READ_AT_ONCE = 2_000
#: Full batches' worth of messages that are held in memory, whatever the number of partitions; beyond that nothing more
#: is read, and what there is is inserted as it is.
FULL_BATCHES_HELD = 4
#: Batches inserted at the same time, of different partitions.
PARALLEL_INSERTS = 2

#: Commit failures that mean the partition is another's now.
_FENCED = {
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.REBALANCE_IN_PROGRESS,
    KafkaError.FENCED_INSTANCE_ID,
    KafkaError._STATE,
    KafkaError._ASSIGNMENT_LOST,
}
#: Commit failures after which the broker may still carry the commit out, at any time.
_UNDECIDED = {KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError.REQUEST_TIMED_OUT}


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


@dataclass
class Assigned:
    """One partition that is ours: the batch that fills and the one that is being inserted."""

    filling: Batch
    flying: Batch | None = None
    done: Future[bool] | None = None
    paused: bool = False
    #: Set when the partition is another's: whoever works on it leaves it.
    lost: bool = False
    #: Whether nothing that moves the place we read at came since the last message was taken: then what is skipped
    #: is not on the broker, as transaction markers and what compaction took are not.
    in_order: bool = False
    #: The offset that was asked for again, and how often.
    sought: int = -1
    seeks: int = 0

    def seek_again(self, offset: int) -> bool:
        """Whether a skipped offset should be asked for once more, rather than taken for gone."""
        if self.sought != offset:
            self.sought, self.seeks = offset, 0
        self.seeks += 1
        return self.seeks <= GAP_SEEKS


class Ingest:
    """The loop over one consumer.

    ``run`` returns after `stop`, with everything read inserted and committed, if ClickHouse takes it in time.
    """

    def __init__(self, settings: Settings, sink: Sink, metrics: Metrics | None = None) -> None:
        self._settings = settings
        self._sink = sink
        self._limits = Limits(settings.ingest_batch_rows, settings.ingest_batch_bytes, settings.ingest_batch_seconds)
        self._metrics = metrics or Metrics()
        self._log_ids: dict[str, str] = {}
        self._ours: dict[Place, Assigned] = {}
        self._watch = LogWatch(settings)
        self._asked: LogQuestion | None = None
        self._asked_at = 0.0
        self._stopping = threading.Event()
        self._broker_is_away = False
        self._clickhouse = Waiting()
        key = settings.viewer_id_key()
        self._pseudonyms = None if key is None else Pseudonyms(key)
        self._lag_told_at = 0.0
        #: Answers to commits, by what was committed; None for those that the broker took.
        self._answers: dict[Marks, KafkaError | None] = {}
        self.stored = 0

    def stop(self) -> None:
        """Ask the loop to insert what it has read and return; safe in a signal handler."""
        self._stopping.set()

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
                # What librdkafka may hold in memory ahead of us, and how long it then waits: a second unless told.
                "queued.max.messages.kbytes": 16 * 1024,
                "fetch.queue.backoff.ms": 20,
                "fetch.wait.max.ms": 100,
                "error_cb": self._on_error,
                "on_commit": self._on_commit,
                "log_level": 0,
            }
        )
        self._join(consumer)
        log.info("reading %s as group %s", " and ".join(TOPICS), self._settings.kafka_group)
        with Workers(PARALLEL_INSERTS, "insert", self._prepare) as pool:
            try:
                self._loop(consumer, pool)
                self._finish(consumer, pool)
            finally:
                # What still waits for ClickHouse gives up: its intent is committed, the next run repeats it.
                for assigned in self._ours.values():
                    assigned.lost = True
                consumer.close()
                log.info("stopped; %s messages stored", f"{self.stored:,}")

    def _join(self, consumer: Consumer) -> None:
        consumer.subscribe(list(TOPICS), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_revoke)

    def _loop(self, consumer: Consumer, pool: Workers) -> None:
        most = min(self._limits.rows, READ_AT_ONCE)
        report_at, reported = time.monotonic() + 10, 0
        while not self._stopping.is_set():
            flying = any(assigned.flying for assigned in self._ours.values())
            self._take(consumer, consumer.consume(most, timeout=0.01 if flying else 0.05))
            now = time.monotonic()
            self._turn(consumer, pool, now, everything=False)
            self._hold_back(consumer)
            self._look_at_logs(consumer, now)
            self._tell_lag(consumer, now)
            if now >= report_at:
                if self.stored > reported:
                    log.info("%s messages stored", f"{self.stored:,}")
                report_at, reported = now + 10, self.stored

    def _finish(self, consumer: Consumer, pool: Workers) -> None:
        """Insert all that was read; what ClickHouse does not take now is left to the next run."""
        deadline = time.monotonic() + STOP_SECONDS
        while True:
            self._turn(consumer, pool, time.monotonic(), everything=True)
            flying = [assigned for assigned in self._ours.values() if assigned.flying]
            if not flying:
                return
            if time.monotonic() >= deadline:
                log.warning("ClickHouse has not answered for %.0f s; stopping: the next run repeats", STOP_SECONDS)
                return
            # Nothing more is read, but the group must not take us for dead.
            consumer.pause(consumer.assignment())
            self._take(consumer, consumer.consume(1, timeout=0.02))

    # -- reading

    def _learn_logs(self) -> bool:
        """Ask for the logs' identities until the broker tells; False when stopped before it did."""
        waiting = Waiting()
        while not self._stopping.is_set():
            try:
                self._know(log_identity(self._settings))
            except ServiceError as error:
                self._stopping.wait(min(waiting.pause(str(error)), 1.0))
                continue
            waiting.over()
            return True
        return False

    def _know(self, log_ids: dict[str, str]) -> None:
        self._log_ids.update(log_ids)

    def _look_at_logs(self, consumer: Consumer, now: float) -> None:
        """Notice a topic made anew of which nothing comes, because what we wait for is behind its end."""
        if self._asked is None:
            if now >= self._asked_at + LOG_SECONDS:
                self._asked, self._asked_at = self._watch.ask(topic for topic, _ in self._ours), now
        elif self._asked.answered:
            asked, self._asked = self._asked, None
            try:
                changed = asked.changed(self._log_ids)
            except KafkaException:
                return  # a broker that is away is told of by what needs it
            if changed:
                self._leave_old_logs(consumer, changed)

    def _leave_old_logs(self, consumer: Consumer, topics: set[str]) -> None:
        """Begin anew with all partitions, as after a rebalance: what is being inserted is announced, and repeated."""
        log.warning("%s was made anew; reading it from its beginning", " and ".join(sorted(topics)))
        places = [TopicPartition(*place) for place in self._ours]
        self._asked = None  # about logs that were ours until now
        self._abandon(list(self._ours))
        self._on_assign(consumer, places)

    def _take(self, consumer: Consumer, messages: Iterable[Message]) -> None:
        """Put messages into their partitions' batches, each in the order of its log and without a gap.

        Where an offset is skipped behind one that came, there is none. Where nothing came yet since we moved, it is
        asked for again, and only what is skipped each time is not on the broker: after a seek librdkafka may still
        hand out what it had fetched before.
        """
        now = time.monotonic()
        skipped: set[Place] = set()
        for message in messages:
            error = message.error()
            if error is not None:
                log.warning("broker: %s", error.str())
                for each in self._ours.values():
                    each.in_order = False
                continue
            if self._broker_is_away:
                self._broker_is_away = False
                log.warning("broker is back; going on")
            topic, partition, offset = _place(message)
            assigned = self._ours.get((topic, partition))
            if assigned is None:
                continue  # another's by now: whoever owns the range inserts it
            batch = assigned.filling
            # Nearly always a message is the next one of a batch that has no end yet.
            if (offset != batch.end or batch.replay_end is not None or skipped) and not self._belongs(
                consumer, assigned, offset, skipped
            ):
                continue
            if not batch.rows:
                batch.opened_at = now
            key, value = message.key() or b"", message.value() or b""
            if self._pseudonyms is not None:
                value = self._pseudonyms.message(topic, value)
            batch.add((offset, max(message.timestamp()[1], 0), key, value))
            assigned.in_order = True
            batch.added_at = now

    def _belongs(self, consumer: Consumer, assigned: Assigned, offset: int, skipped: set[Place]) -> bool:
        """Whether the message at ``offset`` goes into the partition's batch now; what should come before is asked for,
        and ``skipped`` then names the partition.
        """
        batch = assigned.filling
        place = (batch.topic, batch.partition)
        if place in skipped or offset < batch.end:
            return False  # asked for again, or read before
        if batch.replay_end is not None and batch.end >= batch.replay_end:
            # Complete, and not inserted yet. Asked for now, for the next batch: nothing may come behind it.
            return self._seek(consumer, assigned, skipped)
        if offset > batch.end and not assigned.in_order and assigned.seek_again(batch.end):
            return self._seek(consumer, assigned, skipped)
        if not batch.takes(offset):
            # The rest of the range that is repeated is not on the broker any more.
            batch.end = batch.range_end
            return self._seek(consumer, assigned, skipped)
        if offset > batch.end:
            level = logging.DEBUG if assigned.in_order else logging.WARNING
            log.log(level, "%s/%d: offsets %d to %d are not on the broker (any more)", *place, batch.end, offset - 1)
        return True

    def _seek(self, consumer: Consumer, assigned: Assigned, skipped: set[Place]) -> bool:
        """Ask for what comes behind the partition's batch; False, for the message that does not belong there now."""
        place = (assigned.filling.topic, assigned.filling.partition)
        consumer.seek(TopicPartition(*place, assigned.filling.end))
        assigned.in_order = False
        skipped.add(place)
        return False

    def _hold_back(self, consumer: Consumer) -> None:
        """Pause partitions whose next batch is full while one is being inserted, all when enough is held; resume the
        others. A range that is repeated is read to its end, since only whole it is inserted.
        """
        enough = self._holds_enough()
        for assigned in self._ours.values():
            full = assigned.flying is not None and assigned.filling.is_full(self._limits)
            full = full or (enough and assigned.filling.replay_end is None)
            if full != assigned.paused:
                places = [TopicPartition(assigned.filling.topic, assigned.filling.partition)]
                (consumer.pause if full else consumer.resume)(places)
                assigned.paused, assigned.in_order = full, False

    def _holds_enough(self) -> bool:
        """Whether more should not be held in memory."""
        held = sum(
            batch.size
            for assigned in self._ours.values()
            for batch in (assigned.filling, assigned.flying)
            if batch is not None
        )
        return held >= FULL_BATCHES_HELD * self._limits.size

    def _tell_lag(self, consumer: Consumer, now: float) -> None:
        """Once a second, from what librdkafka knows anyway."""
        if now < self._lag_told_at + 1:
            return
        self._lag_told_at = now
        for (topic, partition), assigned in self._ours.items():
            known = consumer.get_watermark_offsets(TopicPartition(topic, partition), cached=True)
            if known is not None and known[1] >= 0:
                start = (assigned.flying or assigned.filling).start
                self._metrics.behind(topic, partition, max(0, known[1] - max(start, known[0])))

    # -- storing

    def _turn(self, consumer: Consumer, pool: Workers, now: float, *, everything: bool) -> None:
        """Commit what was inserted and what is inserted next, in one commit, and hand the next batches over.

        Until the commit is through nothing is inserted: its metadata is the intent that a crash is healed by. What is
        read meanwhile goes into new batches, since a range that was announced must stay as it is.
        """
        marks: list[tuple[Assigned, TopicPartition]] = []
        landed: list[tuple[Assigned, Batch]] = []
        starting: list[tuple[Assigned, Batch]] = []
        everything = everything or self._holds_enough()
        for assigned in list(self._ours.values()):
            if assigned.flying is not None:
                if assigned.done is None or not assigned.done.done():
                    continue
                if not assigned.done.result():
                    # Given up while stopping: the intent stays, and the next run repeats the batch.
                    assigned.flying = assigned.done = None
                    assigned.lost = True
                    continue
                landed.append((assigned, assigned.flying))
            batch = assigned.filling
            behind = _behind(consumer, batch) if batch.rows else 0
            due = not assigned.lost and (batch.is_due(now, self._limits, behind) or (everything and batch.is_whole()))
            if due:
                starting.append((assigned, batch))
                assigned.filling = Batch(batch.topic, batch.partition, batch.range_end, now)
            if due or assigned.flying is not None:
                marks.append((assigned, self._mark(batch, batch.range_end if due else None)))
        if not marks or not self._commit(consumer, marks):
            return
        for assigned, batch in landed:
            assigned.flying = assigned.done = None
            self.stored += len(batch.rows)
            self._metrics.stored(batch)
        for assigned, batch in starting:
            if assigned.lost:
                continue
            assigned.flying = batch
            # The log that it was read from: the next assignment may find another under this name.
            assigned.done = pool.submit(partial(self._insert, assigned, batch, self._log_ids[batch.topic]))

    def _prepare(self) -> None:
        # What goes wrong here goes wrong again with the first batch, and is told then.
        with contextlib.suppress(ServiceError):
            self._sink.prepare()

    def _insert(self, assigned: Assigned, batch: Batch, log_id: str) -> bool:
        """Insert until it is taken; False when the partition was lost, or we are stopping, before it was."""
        began = time.perf_counter()
        source = Source(log_id, batch.topic, batch.partition)
        # Of a repeated range nothing may be on the broker any more.
        while batch.rows and not assigned.lost:
            token = batch.token(log_id)
            try:
                self._sink.insert(source, batch.rows, token)
            except Refused as error:
                # The server is there and says no: is it something in the batch?
                if self._quarantine(source, batch, token):
                    continue
                reason: ServiceError = error
            except ServiceError as error:
                reason = error
            else:
                self._clickhouse.over()
                self._metrics.inserted(batch, time.perf_counter() - began)
                self._count_rejects(source, batch)
                return True
            self._metrics.retried()
            if self._stopping.wait(0):
                log.warning("%s; stopping: the next run repeats this batch", reason)
                return False
            self._stopping.wait(self._clickhouse.pause(str(reason)))
        return not batch.rows

    def _count_rejects(self, source: Source, batch: Batch) -> None:
        """ClickHouse parses, so it alone knows. Where it is gone again the figure is too low, no more."""
        with contextlib.suppress(ServiceError):
            self._metrics.rejected(batch.topic, self._sink.rejects(source, batch.start, batch.range_end))

    def _quarantine(self, source: Source, batch: Batch, token: str) -> bool:
        """Put the messages that ClickHouse cannot store among the rejected; False when none of them is at fault."""
        try:
            poison = self._sink.poison(source, batch.rows)
            if poison:
                rows, reasons = [batch.rows[index] for index, _ in poison], [why for _, why in poison]
                self._sink.reject(source, rows, reasons, token)
        except ServiceError:
            return False
        if not poison:
            return False
        for index, _ in reversed(poison):
            del batch.rows[index]
        # ClickHouse's words hold values of the messages: they stay where erasing finds them.
        log.warning(
            '%s/%d: %d that cannot be stored are rejected; `retention rejects --reason "cannot be stored"` tells why',
            *(batch.topic, batch.partition, len(poison)),
        )
        self._metrics.poisoned(len(poison))
        return True

    def _commit(self, consumer: Consumer, marks: list[tuple[Assigned, TopicPartition]]) -> bool:
        """Commit until the broker takes it; False when it says that the partitions are another's, or when stopping.

        Also when the broker may still carry it out: behind a later commit it would put an older mark back. So we leave
        the group and join it as another member, in whose time the broker refuses what the former one asked for; the
        mark that holds then is where we go on.
        """
        waiting = Waiting()
        while True:
            # What is another's, or ours anew, is not where these marks would set it.
            places = [place for assigned, place in marks if not assigned.lost]
            if not places:
                return False
            error = self._commit_once(consumer, places)
            if error is None:
                waiting.over()
                return True
            if error.code() in _FENCED:
                log.warning("partitions were taken over by another ingest; leaving the batch to it")
                self._abandon(list(self._ours))
                return False
            reason = str(broker_away(self._settings, KafkaException(error)))
            if self._stopping.is_set() or error.code() in _UNDECIDED:
                self._abandon(list(self._ours))
                if not self._stopping.is_set():
                    log.warning("%s; joining the group anew", reason)
                    consumer.unsubscribe()
                    self._join(consumer)
                return False
            pause = waiting.pause(reason)
            self._idle(consumer, pause)

    def _commit_once(self, consumer: Consumer, places: list[TopicPartition]) -> KafkaError | None:
        """Ask for one commit, and go on reading until it is answered: a wait within librdkafka would keep the group's
        own news from us, for which the commit may be waiting.
        """
        self._answers.clear()
        asked = _marks(places)
        # Asked after all of the batch was read: if the log is the same now, all of it is of that log.
        logs = self._watch.ask(place.topic for place in places)
        try:
            consumer.commit(offsets=places, asynchronous=True)
        except KafkaException as error:
            return _kafka_error(error)
        deadline = time.monotonic() + COMMIT_SECONDS
        # An answer to an earlier commit, that came too late for it, is none to this one.
        while not (asked in self._answers and logs.answered) and time.monotonic() < deadline:
            self._take(consumer, consumer.consume(1000, timeout=0.005))
        answer = self._answers.get(asked, KafkaError(KafkaError._TIMED_OUT))
        if answer is not None and answer.code() in _UNDECIDED:
            return answer
        if not logs.answered:
            return KafkaError(KafkaError._TIMED_OUT_QUEUE)
        try:
            changed = logs.changed(self._log_ids)
        except KafkaException as error:
            # The commit was answered: it is only asked for again, with the question.
            return KafkaError(KafkaError._TIMED_OUT_QUEUE, _kafka_error(error).str())
        if changed:
            self._leave_old_logs(consumer, changed)
            return None  # the marks are nobody's any more
        return answer

    def _idle(self, consumer: Consumer, seconds: float) -> None:
        """Wait without reading more, but polling, so that the group does not take us for dead."""
        consumer.pause(consumer.assignment())
        for assigned in self._ours.values():
            assigned.paused, assigned.in_order = True, False
        until = time.monotonic() + seconds
        while not self._stopping.is_set() and time.monotonic() < until:
            message = consumer.poll(0.1)
            if message is not None:
                self._take(consumer, [message])

    def _mark(self, batch: Batch, end: int | None) -> TopicPartition:
        """The committed offset where ``batch`` starts, with its intent as metadata."""
        metadata = Intent(self._log_ids[batch.topic], end).encode()
        return TopicPartition(batch.topic, batch.partition, batch.start, metadata=metadata)

    # -- librdkafka's callbacks, called inside consume() and poll()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        starts = self._starts(consumer, partitions)
        for place, start in starts:
            self._ours[place.topic, place.partition] = Assigned(_batch(place, start))
        consumer.assign([TopicPartition(place.topic, place.partition, start.offset) for place, start in starts])
        # What was paused when it was ours before is paused still.
        consumer.resume([TopicPartition(place.topic, place.partition) for place, _ in starts])

    def _starts(self, consumer: Consumer, partitions: list[TopicPartition]) -> list[tuple[TopicPartition, Start]]:
        """Where each partition is read from, as soon as the broker tells; none when stopped before it did."""
        waiting = Waiting()
        while not self._stopping.is_set():
            try:
                # Asked again each time: a topic may have been made anew while we ran.
                self._know(log_identity(self._settings, tuple({place.topic for place in partitions})))
                starts = []
                for place in consumer.committed(partitions, timeout=10):
                    if place.error is not None:
                        raise KafkaException(place.error)
                    low, _ = consumer.get_watermark_offsets(TopicPartition(place.topic, place.partition), timeout=10)
                    log_id = self._log_ids[place.topic]
                    starts.append((place, where_to_start(log_id, low, place.offset, place.metadata)))
            except ServiceError as error:
                self._stopping.wait(waiting.pause(str(error)))
                continue
            except KafkaException as error:
                self._stopping.wait(waiting.pause(str(broker_away(self._settings, error))))
                continue
            waiting.over()
            return starts
        return []

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        # What was read and not inserted is not committed either: the next owner reads it again. What is being
        # inserted has its intent committed: the next owner repeats that range, and ClickHouse stores it once.
        self._abandon([(place.topic, place.partition) for place in partitions])

    def _abandon(self, places: list[Place]) -> None:
        for place in places:
            assigned = self._ours.pop(place, None)
            if assigned is not None:
                assigned.lost = True
                self._metrics.behind(*place, None)

    def _on_commit(self, error: KafkaError | None, places: list[TopicPartition]) -> None:
        failed = [place.error for place in places if place.error is not None]
        self._answers[_marks(places)] = error or (failed[0] if failed else None)

    def _on_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN and not self._broker_is_away:
            self._broker_is_away = True
            log.warning("%s; waiting", broker_away(self._settings, KafkaException(error)))


def _kafka_error(error: KafkaException) -> KafkaError:
    """What librdkafka said."""
    said: KafkaError = error.args[0]
    return said


def _marks(places: Iterable[TopicPartition]) -> Marks:
    return frozenset((place.topic, place.partition, place.offset, place.metadata or "") for place in places)


def _batch(place: TopicPartition, start: Start) -> Batch:
    return Batch(place.topic, place.partition, start.offset, time.monotonic(), start.replay_end)


def _behind(consumer: Consumer, batch: Batch) -> int:
    """How many messages librdkafka knows of behind a batch, without asking the broker."""
    known = consumer.get_watermark_offsets(TopicPartition(batch.topic, batch.partition), cached=True)
    return 0 if known is None else max(0, known[1] - batch.end)


def _place(message: Message) -> tuple[str, int, int]:
    """Where a message is; the binding's types allow None, which only messages not yet sent have."""
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None
    return topic, partition, offset


def run_ingest(settings: Settings) -> None:
    """Run until SIGTERM or SIGINT, then store what was read and return."""
    # Messages and rows are in no cycles, and so many at once that looking for some takes a tenth of the time.
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)
    metrics = Metrics()
    ingest = Ingest(settings, ClickHouseSink(settings), metrics)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ingest.stop())
    with metrics.serving(settings.ingest_metrics_host, settings.ingest_metrics_port):
        ingest.run()
