"""The ingest loop over a log and a sink in memory: what it repeats, and that nothing read is forgotten."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.ingest import consumer as loop
from retention_platform.ingest.batch import Batch, Intent, Row, Source
from retention_platform.ingest.broker import LogQuestion
from retention_platform.ingest.consumer import GAP_SEEKS, Assigned, Ingest
from retention_platform.ingest.quarantine import Fault
from retention_platform.ingest.sink import Refused
from retention_platform.settings import load_settings

LOG = "cluster.first"


class Message:
    """A message of partition 0 of the events' topic."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return EVENTS_TOPIC

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def key(self) -> bytes:
        return b"session"

    def value(self) -> bytes:
        return b"{}"

    def timestamp(self) -> tuple[int, int]:
        return 1, 0


class Broker:
    """One partition and what is committed for it; the class of consumers that the loop makes."""

    def __init__(self, offsets: Sequence[int], committed: TopicPartition | None = None) -> None:
        #: The identity of the log and what is in it, of one moment.
        self.log = (LOG, list(offsets))
        self.mark = committed
        self.position = 0
        self.answers: list[Callable[[], None]] = []
        self.paused = False
        self.config: dict[str, Any] = {}

    @property
    def offsets(self) -> list[int]:
        return self.log[1]

    def identity(self, *_: object) -> dict[str, str]:
        return {EVENTS_TOPIC: self.log[0], VIDEOS_TOPIC: "videos-log"}

    def ask(self, topics: Iterable[str]) -> LogQuestion:
        """What the watch over logs asks; answered at once."""
        question: Future[Any] = Future()
        question.set_result(SimpleNamespace(topic_id=self.log[0].partition(".")[2]))
        return LogQuestion({EVENTS_TOPIC: question} if EVENTS_TOPIC in set(topics) else {})

    def __call__(self, config: dict[str, Any]) -> Broker:
        self.config = config
        return self

    def subscribe(
        self, topics: list[str], on_assign: Callable[..., None], on_revoke: Callable[..., None], **_: object
    ) -> None:
        self.on_assign, self.on_revoke = on_assign, on_revoke
        self.answers.append(lambda: on_assign(self, [TopicPartition(EVENTS_TOPIC, 0)]))

    def unsubscribe(self) -> None:
        self.answers.append(lambda: self.on_revoke(self, [TopicPartition(EVENTS_TOPIC, 0)]))

    def assign(self, places: list[TopicPartition]) -> None:
        if places:
            self.position = places[0].offset

    def assignment(self) -> list[TopicPartition]:
        return [TopicPartition(EVENTS_TOPIC, 0)]

    def committed(self, _: list[TopicPartition], timeout: float) -> list[TopicPartition]:
        return [self.mark or TopicPartition(EVENTS_TOPIC, 0)]

    def get_watermark_offsets(self, *_: object, **__: object) -> tuple[int, int]:
        return self.offsets[0], self.offsets[-1] + 1

    def consume(self, most: int, timeout: float) -> list[Message]:
        answers, self.answers = self.answers, []
        for answer in answers:
            answer()
        if self.position > self.offsets[-1] + 1:
            self.position = self.offsets[0]  # out of range: auto.offset.reset
        found = [] if self.paused else [offset for offset in self.offsets if offset >= self.position][:most]
        if found:
            self.position = found[-1] + 1
        else:
            time.sleep(0.001)
        return [Message(offset) for offset in found]

    def seek(self, place: TopicPartition) -> None:
        self.position = place.offset

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        self.mark = offsets[0]
        self.answers.append(lambda: self.config["on_commit"](None, offsets))

    def poll(self, timeout: float) -> Message | None:
        return next(iter(self.consume(1, timeout)), None)

    def pause(self, _: list[TopicPartition]) -> None:
        # As librdkafka has it, for as long as nobody resumes: assigning does not.
        self.paused = True

    def resume(self, _: list[TopicPartition]) -> None:
        self.paused = False

    def close(self) -> None:
        """Nothing to close."""


class Undecided(Broker):
    """Keeps the first commit back without an answer, and carries it out behind others, if its member is still there."""

    def __init__(self, offsets: Sequence[int]) -> None:
        super().__init__(offsets)
        self.members = 0
        self.kept: tuple[int, TopicPartition] | None = None

    def subscribe(
        self, topics: list[str], on_assign: Callable[..., None], on_revoke: Callable[..., None], **_: object
    ) -> None:
        self.members += 1
        super().subscribe(topics, on_assign, on_revoke)

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        if self.kept is None:
            self.kept = (self.members, offsets[0])
        else:
            super().commit(offsets, asynchronous)

    def carries_it_out(self) -> None:
        assert self.kept is not None
        member, mark = self.kept
        if member == self.members:
            self.mark = mark


class Away(Broker):
    """Refuses the first commit, and deals the group anew while ingest waits."""

    refused = False

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        if self.refused:
            super().commit(offsets, asynchronous)
            return
        self.refused = True
        error = KafkaError(KafkaError.COORDINATOR_NOT_AVAILABLE)
        self.answers.append(lambda: self.config["on_commit"](error, offsets))

    def poll(self, timeout: float) -> Message | None:
        places = [TopicPartition(EVENTS_TOPIC, 0)]
        self.answers += [lambda: self.on_revoke(self, places), lambda: self.on_assign(self, places)]
        return super().poll(timeout)


class Untold(Broker):
    """Takes every commit, and at the first does not tell which logs there are."""

    def __init__(self, offsets: Sequence[int]) -> None:
        super().__init__(offsets)
        self.untold = 0
        self.left = False

    def ask(self, topics: Iterable[str]) -> LogQuestion:
        if EVENTS_TOPIC not in set(topics) or self.untold == 2:
            return super().ask(topics)
        self.untold += 1
        question: Future[Any] = Future()
        question.set_exception(KafkaException(KafkaError(KafkaError._TIMED_OUT)))
        return LogQuestion({EVENTS_TOPIC: question})

    def unsubscribe(self) -> None:
        self.left = True
        super().unsubscribe()


class Sink:
    """Keeps what is inserted by its token."""

    def __init__(self) -> None:
        self.inserted: list[tuple[str, list[int]]] = []
        #: Set: inserts are not answered, for ever.
        self.silent = threading.Event()
        self.asked = threading.Event()
        self.prepared = threading.Event()

    def prepare(self) -> None:
        self.prepared.set()

    def insert(self, source: Source, rows: Sequence[Row], token: str) -> None:
        self.asked.set()
        if self.silent.is_set():
            threading.Event().wait()
        assert token.startswith(f"{source.log_id}/{source.topic}/{source.partition}/"), "under another log's token"
        self.inserted.append((token, [offset for offset, *_ in rows]))

    def rejects(self, source: Source, first: int, end: int) -> int:
        return 0

    def poison(self, source: Source, rows: Sequence[Row]) -> list[Fault]:
        raise AssertionError("nothing is wrong with these rows")

    def reject(self, source: Source, rows: Sequence[Row], reasons: Sequence[str], token: str) -> None:
        raise AssertionError("nothing is wrong with these rows")


@contextlib.contextmanager
def ingesting(
    broker: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch, sink: Sink | None = None, **chosen: Any
) -> Iterator[Sink]:
    """An ingest that runs while the block does; where it stores."""
    sink = sink or Sink()
    monkeypatch.setattr(loop, "Consumer", broker)
    monkeypatch.setattr(loop, "log_identity", broker.identity)
    monkeypatch.setattr(loop, "LogWatch", lambda _: broker)
    settings = load_settings(
        retention_home=folder, kafka_bootstrap_servers="nowhere", **{"ingest_batch_seconds": 0.02, **chosen}
    )
    ingest = Ingest(settings, sink)
    running = threading.Thread(target=ingest.run)
    running.start()
    try:
        yield sink
    finally:
        ingest.stop()
        running.join(60)
    assert not running.is_alive(), "asked to stop, and goes on"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.01)


def ingest_all(broker: Broker, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """What is inserted until all that the broker has is committed."""
    with ingesting(broker, folder, monkeypatch) as sink:
        wait_until(lambda: broker.mark is not None and broker.mark.offset == broker.offsets[-1] + 1)
    return sink.inserted


def intent(start: int, end: int) -> TopicPartition:
    """A committed offset whose owner died while it inserted a batch up to ``end``."""
    return TopicPartition(EVENTS_TOPIC, 0, start, metadata=Intent(LOG, end).encode())


def test_what_was_read_with_the_end_of_a_repeated_range_is_stored_though_nothing_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inserted = ingest_all(Broker(range(100), intent(10, 40)), tmp_path, monkeypatch)
    assert inserted[0] == (f"{LOG}/{EVENTS_TOPIC}/0/10-39", list(range(10, 40)))
    assert [offset for _, offsets in inserted for offset in offsets] == list(range(10, 100))


def test_a_repeated_range_whose_last_messages_are_gone_holds_up_none_of_those_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offsets = [*range(30), *range(60, 100)]
    inserted = ingest_all(Broker(offsets, intent(10, 40)), tmp_path, monkeypatch)
    assert inserted[0] == (f"{LOG}/{EVENTS_TOPIC}/0/10-39", list(range(10, 30)))
    assert [offset for _, found in inserted for offset in found] == [*range(10, 30), *range(60, 100)]


def test_a_repeated_range_that_the_broker_has_dropped_whole_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inserted = ingest_all(Broker(range(60, 100), intent(10, 40)), tmp_path, monkeypatch)
    assert [offset for _, found in inserted for offset in found] == list(range(60, 100))


def test_offsets_that_hold_no_message_are_asked_for_again_only_where_nothing_came_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a transaction leaves one after its messages."""
    broker, sought = Broker([offset for offset in range(3, 1000) if offset % 5]), list[int]()

    def seek(place: TopicPartition) -> None:
        sought.append(place.offset)
        Broker.seek(broker, place)

    monkeypatch.setattr(broker, "seek", seek)
    inserted = ingest_all(broker, tmp_path, monkeypatch)
    assert [offset for _, offsets in inserted for offset in offsets] == broker.offsets
    assert len(sought) <= GAP_SEEKS


def test_what_comes_from_elsewhere_after_a_move_is_not_taken_for_a_gap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a seek librdkafka may still hand out what it had fetched before."""
    broker, stale = Broker(range(100), intent(10, 40)), [[*range(60, 80)], [*range(80, 90)]]

    def seek(place: TopicPartition) -> None:
        Broker.seek(broker, place)
        if stale:
            late = stale.pop()
            real = broker.consume

            def consume(most: int, timeout: float) -> list[Message]:
                monkeypatch.setattr(broker, "consume", real)
                return [Message(offset) for offset in late]

            monkeypatch.setattr(broker, "consume", consume)

    monkeypatch.setattr(broker, "seek", seek)
    inserted = ingest_all(broker, tmp_path, monkeypatch)
    assert not stale
    assert [offset for _, offsets in inserted for offset in offsets] == list(range(10, 100))


@pytest.mark.parametrize("count", [30, 100, 300], ids=["shorter", "as long", "longer"])
def test_a_log_made_anew_while_ingest_runs_is_read_from_its_beginning_under_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    broker = Broker(range(100))
    with ingesting(broker, tmp_path, monkeypatch) as sink:
        wait_until(lambda: broker.mark is not None and broker.mark.offset == 100)
        broker.log = ("cluster.other", list(range(count)))
        wait_until(lambda: sum(len(offsets) for _, offsets in sink.inserted) >= 100 + count)
    found: dict[str, list[int]] = {LOG: [], "cluster.other": []}
    for token, offsets in sink.inserted:
        found[token.partition("/")[0]] += offsets
    assert found == {LOG: list(range(100)), "cluster.other": list(range(count))}


def test_a_stop_does_not_wait_for_an_insert_that_is_never_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STOP_SECONDS", 0.2)
    broker = Broker(range(100))
    sink = Sink()
    sink.silent.set()
    with ingesting(broker, tmp_path, monkeypatch, sink):
        assert sink.asked.wait(30)
    assert not sink.inserted
    assert broker.mark is not None
    assert broker.mark.offset == 0, "what was not answered is not committed"
    assert (Intent.decode(broker.mark.metadata) or Intent("")).end == 100, "and is announced, for the next run"


def test_a_commit_that_the_broker_carries_out_late_puts_no_older_mark_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "COMMIT_SECONDS", 0.1)
    broker, sink = Undecided(range(50)), Sink()

    def committed(offset: int) -> Callable[[], bool]:
        return lambda: broker.mark is not None and broker.mark.offset == offset

    with ingesting(broker, tmp_path, monkeypatch, sink):
        wait_until(committed(50))
        broker.log = (LOG, list(range(100)))
        wait_until(committed(100))
    broker.carries_it_out()
    broker.log = (LOG, list(range(150)))
    with ingesting(broker, tmp_path, monkeypatch, sink):
        wait_until(committed(150))
    stored = dict(sink.inserted)
    assert sorted(offset for offsets in stored.values() for offset in offsets) == list(range(150)), "each of one token"


def test_partitions_that_come_back_after_a_wait_for_the_broker_are_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Away(range(100))
    inserted = ingest_all(broker, tmp_path, monkeypatch)
    assert broker.refused
    assert [offset for _, offsets in inserted for offset in offsets] == list(range(100))


def test_a_commit_that_was_answered_is_decided_though_nobody_told_of_the_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Asked by commits alone, not while nothing is committed.
    monkeypatch.setattr(loop, "LOG_SECONDS", 1e9)
    broker = Untold(range(100))
    inserted = ingest_all(broker, tmp_path, monkeypatch)
    assert broker.untold == 2
    assert not broker.left, "joined its group anew, for nothing"
    assert [offset for _, offsets in inserted for offset in offsets] == list(range(100))


def test_what_is_read_while_an_insert_is_not_answered_is_bounded_and_goes_on_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Slow(Sink):
        """Answers the first insert when it may."""

        def __init__(self) -> None:
            super().__init__()
            self.may = threading.Event()

        def insert(self, source: Source, rows: Sequence[Row], token: str) -> None:
            self.asked.set()
            assert self.may.wait(30)
            super().insert(source, rows, token)

    broker, sink = Broker(range(20_000)), Slow()
    with ingesting(broker, tmp_path, monkeypatch, sink, ingest_batch_rows=100):
        assert sink.asked.wait(30)
        wait_until(lambda: broker.paused)
        read = broker.position
        time.sleep(0.1)
        assert broker.position == read < 5_000
        sink.may.set()
        wait_until(lambda: broker.mark is not None and broker.mark.offset == 20_000)
    assert not broker.paused
    assert [offset for _, offsets in sink.inserted for offset in offsets] == list(range(20_000))


def test_what_is_put_aside_is_logged_in_one_line_that_quotes_no_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Poisoned(Sink):
        """Cannot store every third message."""

        def __init__(self) -> None:
            super().__init__()
            self.rejected: list[int] = []

        def insert(self, source: Source, rows: Sequence[Row], token: str) -> None:
            if any(offset % 3 == 0 for offset, *_ in rows):
                raise Refused("Cannot parse string 'viewer-7' as UInt8")
            super().insert(source, rows, token)

        def poison(self, source: Source, rows: Sequence[Row]) -> list[Fault]:
            why = "Cannot parse string 'viewer-7' as UInt8"
            return [(at, why) for at, (offset, *_) in enumerate(rows) if offset % 3 == 0]

        def reject(self, source: Source, rows: Sequence[Row], reasons: Sequence[str], token: str) -> None:
            self.rejected += [offset for offset, *_ in rows]

    sink = Poisoned()
    broker = Broker(range(100))
    with ingesting(broker, tmp_path, monkeypatch, sink):
        wait_until(lambda: broker.mark is not None and broker.mark.offset == 100)
    assert sink.rejected == list(range(0, 100, 3))
    assert [offset for _, offsets in sink.inserted for offset in offsets] == [n for n in range(100) if n % 3]
    told = [message for message in caplog.messages if "rejected" in message]
    assert len(told) < 5 and "viewer-7" not in caplog.text


def test_when_enough_is_held_it_is_inserted_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "READ_AT_ONCE", 100)
    monkeypatch.setattr(loop, "FULL_BATCHES_HELD", 0.5)
    broker = Broker(range(200))
    with ingesting(broker, tmp_path, monkeypatch, ingest_batch_seconds=60.0, ingest_batch_bytes=10_000) as sink:
        wait_until(lambda: broker.mark is not None and broker.mark.offset == 200)
    assert [offsets for _, offsets in sink.inserted] == [list(range(200))], "neither full nor old"


def test_while_enough_is_held_only_what_is_repeated_is_read_on(tmp_path: Path) -> None:
    class Consumer:
        def __init__(self) -> None:
            self.paused = set[int]()

        def pause(self, places: list[TopicPartition]) -> None:
            self.paused |= {place.partition for place in places}

        def resume(self, places: list[TopicPartition]) -> None:
            self.paused -= {place.partition for place in places}

    settings = load_settings(retention_home=tmp_path, kafka_bootstrap_servers="nowhere", ingest_batch_bytes=1_000)
    ingest, consumer = Ingest(settings, Sink()), Consumer()
    for partition in range(12):
        batch = Batch(EVENTS_TOPIC, partition, 0, 0.0, replay_end=9 if partition == 7 else None)
        batch.add((0, 0, b"", b"x" * 350))
        ingest._ours[EVENTS_TOPIC, partition] = Assigned(batch)
    ingest._hold_back(consumer)  # type: ignore[arg-type]
    assert consumer.paused == {*range(12)} - {7}
    for partition in range(6):
        del ingest._ours[EVENTS_TOPIC, partition]
    ingest._hold_back(consumer)  # type: ignore[arg-type]
    assert consumer.paused == {*range(6)}, "less is held: the others are read again"


def test_where_batches_go_is_prepared_before_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ingesting(Broker([0]), tmp_path, monkeypatch, ingest_batch_seconds=60.0) as sink:
        assert sink.prepared.wait(30)
        assert not sink.asked.is_set()
