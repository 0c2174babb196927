"""How fast events come from the topic to raw: ingest beside ClickHouse's Kafka engine and beside a usual consumer.

Apache Kafka's transactions make the race fair: a contender has started, joined and sees nothing, until all events of
its turn are committed at once. From then the clock runs, until the last of them is stored.
"""

from __future__ import annotations

import contextlib
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path

import psutil
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient

from benchmarks import live
from benchmarks.report import Report
from producer.simulator import history, in_sending_order
from retention_platform.contract import EVENTS_TOPIC, VIDEOS_TOPIC
from retention_platform.embedded import clickhouse as embedded_clickhouse
from retention_platform.settings import Settings, load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate
from tests.delivery.kafka import PARTITIONS, Kafka, unavailable

DOCS = Path(__file__).parents[1] / "docs"
#: Seconds that one turn may take.
PATIENCE = 300.0
#: Seconds between two looks at how much is stored; each costs ClickHouse some milliseconds.
LOOK = 0.2

Message = tuple[str, bytes]


@dataclass(frozen=True)
class Contender:
    """A way from the topic into ClickHouse."""

    name: str
    #: Members of its consumer group.
    members: int
    #: Starts it, and gives its processes beside ClickHouse, for as long as the context lasts.
    running: Callable[[Settings, int], contextlib.AbstractContextManager[list[int]]]
    #: What has arrived so far.
    stored: str
    #: Of how many events one is given to it.
    one_in: int = 1


@dataclass(frozen=True)
class Turn:
    """What one turn took."""

    events: int
    seconds: float
    #: Seconds of CPU time of the contender's own processes, of ClickHouse and of the broker.
    own: float
    clickhouse: float
    broker: float

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds


def run(report: Report, events: int = 250_000, rounds: int = 3, seconds: int = 20) -> None:
    """Measure; ``seconds`` is how long events come at 1,000 a second."""
    reason = unavailable()
    if reason is not None:
        report.text(f"Not measured: {reason}.")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        broker = Kafka(folder / "kafka")
        try:
            broker.start()
            _race(report, broker, folder, events, rounds)
            _latency(report, broker, folder, seconds)
        finally:
            broker.stop()


def _race(report: Report, broker: Kafka, folder: Path, events: int, rounds: int) -> None:
    messages = [
        (session.session_id, message)
        for session, message in islice(
            in_sending_order(history(1, events // 20 + 100, 1, datetime.now(timezone.utc))), events
        )
    ]
    assert len(messages) == events, "the simulated history is too short"
    size = sum(len(message) for _, message in messages) / events
    report.text(
        f"{events:,} simulated events of the last day, {size:.0f} bytes each, {PARTITIONS} partitions of Apache "
        f"Kafka, {rounds} rounds in which each contender has a turn with a topic and a warehouse of its own. It has "
        "joined its group before the events are committed, all at once; the clock runs from then until the last is "
        "stored. Kafka engine: ClickHouse's own, as in [scaling.md](scaling.md#other-ways-into-raw), into the same "
        "tables through the same views. Tutorial: `json.loads` of each message, rows inserted by thousands into a "
        "table of the same columns without a view, nothing checked; it has a tenth of the events."
    )
    turns: dict[str, list[Turn]] = {contender.name: [] for contender in CONTENDERS}
    for number in range(rounds):
        for contender in CONTENDERS if number % 2 else CONTENDERS[::-1]:
            place = folder / f"{contender.name} {number}".replace(" ", "-")
            turns[contender.name].append(_turn(broker, place, contender, messages[:: contender.one_in]))
    report.table(
        (
            *("topic to raw", "events/s, median", "lowest", "highest"),
            *("CPU s a million: its own", "ClickHouse", "together", "the broker"),
        ),
        [(name, *_rates(found), *_work(found)) for name, found in turns.items()],
    )
    for ours, theirs in RATIOS:
        # A round is compared with itself: what else runs on the machine slows both sides of it.
        ratios = [one.rate / other.rate for one, other in zip(turns[ours], turns[theirs], strict=True)]
        report.text(
            f"{ours} / {theirs}: {statistics.median(ratios):.1f} times the events/s "
            f"({min(ratios):.1f} to {max(ratios):.1f})."
        )


def _rates(turns: Sequence[Turn]) -> list[str]:
    rates = [turn.rate for turn in turns]
    return [f"{rate:,.0f}" for rate in (statistics.median(rates), min(rates), max(rates))]


def _work(turns: Sequence[Turn]) -> list[str]:
    """CPU seconds per million events, medians."""
    parts: list[Callable[[Turn], float]] = [
        lambda turn: turn.own,
        lambda turn: turn.clickhouse,
        lambda turn: turn.own + turn.clickhouse,
        lambda turn: turn.broker,
    ]
    return [f"{statistics.median(part(turn) / turn.events * 1e6 for turn in turns):.1f}" for part in parts]


def _turn(broker: Kafka, folder: Path, contender: Contender, messages: Sequence[Message]) -> Turn:
    broker.create_topics(EVENTS_TOPIC, VIDEOS_TOPIC)
    try:
        with embedded_clickhouse.running(folder / "clickhouse") as server:
            settings = load_settings(
                retention_home=folder,
                clickhouse_port=server.port,
                kafka_bootstrap_servers=broker.address,
                kafka_group=f"group-{uuid.uuid4()}",
            )
            client = connect(settings)
            migrate(client)
            with contender.running(settings, contender.members) as own:
                _await_members(broker, settings.kafka_group, contender.members)
                commit = _sent(broker, messages)
                # What was sent is not to be written to disk at the expense of what is measured.
                os.sync()
                processes = (own, [server.pid], [broker.pid])
                before = [_cpu(pids) for pids in processes]
                begin = time.perf_counter()
                commit()
                while (stored := int(client.query(contender.stored).result_rows[0][0])) < len(messages):
                    seconds = time.perf_counter() - begin
                    assert seconds < PATIENCE, f"{contender.name} has stored {stored} after {seconds:.0f} s"
                    time.sleep(LOOK)
                seconds = time.perf_counter() - begin
                spent = [_cpu(pids) - then for pids, then in zip(processes, before, strict=True)]
            assert stored == len(messages), f"{contender.name} has stored {stored} of {len(messages)}"
            return Turn(len(messages), seconds, *spent)
    finally:
        broker.delete_topics(EVENTS_TOPIC, VIDEOS_TOPIC)


def _cpu(pids: Sequence[int]) -> float:
    """Seconds of CPU time that processes have used."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(one.user + one.system for one in times))


def _await_members(broker: Kafka, group: str, members: int) -> None:
    """Wait until so many members share all partitions of the topic of events."""
    admin = AdminClient({"bootstrap.servers": broker.address, "log_level": 0})
    deadline = time.monotonic() + 60
    shared: list[int] = []
    while len(shared) != members or sum(shared) != PARTITIONS:
        assert time.monotonic() < deadline, f"{len(shared)} of {members} members have partitions"
        time.sleep(0.1)
        # While the broker makes its own topics nobody coordinates the group.
        with contextlib.suppress(KafkaException):
            found = admin.describe_consumer_groups([group])[group].result(10).members
            counts = (
                sum(place.topic == EVENTS_TOPIC for place in member.assignment.topic_partitions)
                for member in found
                if member.assignment
            )
            shared = [count for count in counts if count]


def _sent(broker: Kafka, messages: Sequence[Message]) -> Callable[[], None]:
    """Send messages that nobody sees before the function that is returned is called."""
    producer = Producer(
        {
            "bootstrap.servers": broker.address,
            "transactional.id": f"bench-{uuid.uuid4()}",
            "transaction.timeout.ms": 600_000,
            "linger.ms": 20,
            "queue.buffering.max.kbytes": 1 << 20,
            "log_level": 0,
        }
    )
    producer.init_transactions(60)
    producer.begin_transaction()
    for key, message in messages:
        while True:
            try:
                producer.produce(EVENTS_TOPIC, message, key=key)
                break
            except BufferError:
                producer.poll(0.05)
    assert producer.flush(120) == 0
    return lambda: producer.commit_transaction(60)


# -- contenders


@contextlib.contextmanager
def _ingest(settings: Settings, members: int) -> Iterator[list[int]]:
    """The real processes, with their settings as they are by default."""
    yield from _processes(settings, members, ["-m", "retention_platform.cli", "ingest"])


@contextlib.contextmanager
def _kafka_engine(settings: Settings, members: int) -> Iterator[list[int]]:
    """The tables that the documentation shows."""
    client = connect(settings)
    for statement in kafka_engine_sql(settings.kafka_bootstrap_servers, settings.kafka_group, members):
        client.command(statement)
    try:
        yield []
    finally:
        client.command("drop table raw.kafka_feed sync")
        client.command("drop table raw.kafka_queue sync")
        client.close()


@contextlib.contextmanager
def _tutorial(settings: Settings, members: int) -> Iterator[list[int]]:
    yield from _processes(settings, members, ["-m", "benchmarks.delivery_tutorial"])


def _processes(settings: Settings, count: int, command: Sequence[str]) -> Iterator[list[int]]:
    environment = {
        **os.environ,
        "RETENTION_HOME": str(settings.retention_home),
        "CLICKHOUSE_PORT": str(settings.clickhouse_port),
        "KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers,
        "KAFKA_GROUP": settings.kafka_group,
    }
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            process = stack.enter_context(
                subprocess.Popen([sys.executable, *command], env=environment, stderr=subprocess.DEVNULL)
            )
            stack.callback(process.terminate)
            found.append(process.pid)
        yield found


def kafka_engine_sql(broker: str, group: str, consumers: int) -> list[str]:
    """The statements in docs/scaling.md that put the Kafka engine in ingest's place, for this broker."""
    document = (DOCS / "scaling.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```sql\n(create table raw\.kafka_queue .*?)```", document, re.DOTALL)
    for written, wanted in (
        ("'redpanda:9092'", f"'{broker}'"),
        ("'retention-kafka-engine'", f"'{group}'"),
        ("kafka_num_consumers = 1", f"kafka_num_consumers = {consumers}"),
    ):
        assert block.count(written) == 1, written
        block = block.replace(written, wanted)
    return [statement for statement in map(str.strip, block.split(";")) if statement]


#: Counts repeated events each time, and nothing twice that was stored once.
_DELIVERED = "select sum(messages) from raw.deliveries"

CONTENDERS = (
    Contender("ingest, 1 process", 1, _ingest, _DELIVERED),
    Contender("ingest, 2 processes", 2, _ingest, _DELIVERED),
    Contender("Kafka engine, 1 consumer", 1, _kafka_engine, _DELIVERED),
    Contender("Kafka engine, 2 consumers", 2, _kafka_engine, _DELIVERED),
    Contender("tutorial", 1, _tutorial, "select count() from tutorial.events", one_in=10),
)
RATIOS = (
    ("ingest, 1 process", "Kafka engine, 1 consumer"),
    ("ingest, 2 processes", "Kafka engine, 2 consumers"),
    ("ingest, 1 process", "tutorial"),
)


def _latency(report: Report, broker: Kafka, folder: Path, seconds: int) -> None:
    """As the benchmark of the live layer has it, over this broker."""
    rate = 1_000
    broker.create_topics(EVENTS_TOPIC, VIDEOS_TOPIC)
    with live.chain(broker.address, folder / "latency") as settings:
        raw, _ = live.measure(settings, rate, seconds)
    cuts = statistics.quantiles(raw, n=100)
    report.table(
        (f"acknowledged to visible in raw, {rate:,} events/s", "p50", "p95", "p99", "events"),
        [("ingest, 1 process", *(f"{cuts[q - 1]:.2f} s" for q in (50, 95, 99)), f"{len(raw):,}")],
    )
