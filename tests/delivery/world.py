"""A whole delivery path to break: broker, ingest processes, a proxy, ClickHouse; a producer that notes what was
acknowledged; and the oracle that says by exact sets whether anything was lost or doubled.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from retention_platform.errors import ServiceError
from retention_platform.ingest.broker import group_lag
from retention_platform.settings import Settings, load_settings
from retention_platform.warehouse.client import connect
from retention_platform.warehouse.migrate import migrate
from tests import live_oracle
from tests.api_support import answers, free_port
from tests.delivery.proxy import Proxy

TOPIC = "playback_events"


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 240.0) -> None:
    """Wait for something that must come, on a machine that may be busy; fails with ``what`` it was."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@dataclass
class Process:
    """A process that a test may kill, stop and continue."""

    popen: subprocess.Popen[bytes]

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()

    def freeze(self) -> None:
        self.popen.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        self.popen.terminate()
        return self.popen.wait(60)

    @property
    def runs(self) -> bool:
        return self.popen.poll() is None


@dataclass
class World:
    """The path; `running` makes one."""

    folder: Path
    settings: Settings
    proxy: Proxy
    #: What the faults choose by; the events are chosen by `traffic`, so that each repeats whatever the other's pace.
    rng: random.Random
    traffic: random.Random
    clickhouse_port: int
    clickhouse_folder: Path
    deduplicate: bool = True
    #: Environment variables of every ingest that is started.
    ingest_settings: dict[str, str] = field(default_factory=dict)
    clickhouse: Process | None = None
    ingests: list[Process] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    refused_by_contract: set[str] = field(default_factory=set)
    sent: int = 0

    # -- parts

    def start_clickhouse(self) -> None:
        command = [sys.executable, "-m", "retention_platform.embedded.clickhouse"]
        command += ["--path", str(self.clickhouse_folder), "--port", str(self.clickhouse_port)]
        with (self.folder / "clickhouse.log").open("ab") as log:
            popen = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        self.clickhouse = Process(popen)

        def is_there() -> bool:
            assert popen.poll() is None, f"ClickHouse ended by itself with {popen.returncode}: {self.clickhouse_log()}"
            return answers(f"http://127.0.0.1:{self.clickhouse_port}/ping")

        try:
            wait_until(is_there, "ClickHouse to answer")
        except AssertionError as error:
            if popen.poll() is None:
                raise AssertionError(f"{error}: {self.clickhouse_log()}") from None
            raise

    def clickhouse_log(self) -> str:
        """The end of what the server said."""
        return (self.folder / "clickhouse.log").read_text(errors="replace")[-800:]

    def start_ingest(self, **settings: str) -> Process:
        """One more of the group; ``settings`` are environment variables of its own."""
        environment = {
            **os.environ,
            "RETENTION_HOME": str(self.folder),
            # Through the proxy; the test itself goes straight.
            "CLICKHOUSE_PORT": str(self.proxy.port),
            "KAFKA_BOOTSTRAP_SERVERS": self.settings.kafka_bootstrap_servers,
            "KAFKA_LOG_ID": self.settings.kafka_log_id,
            "INGEST_BATCH_SECONDS": "0.2",
            "INGEST_BATCH_ROWS": "300",
            "INGEST_DEDUPLICATE": str(self.deduplicate).lower(),
            **self.ingest_settings,
            **settings,
        }
        with (self.folder / "ingest.log").open("ab") as log:
            popen = subprocess.Popen(
                [sys.executable, "-m", "retention_platform.cli", "ingest"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
            )
        process = Process(popen)
        self.ingests.append(process)
        return process

    # -- traffic

    def publish(self, count: int, *, malformed: float = 0.01) -> None:
        """Send events of now, the players of one session one after the other; a few that are not the contract."""
        producer = Producer(
            {
                "bootstrap.servers": self.settings.kafka_bootstrap_servers,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 5,
                "message.timeout.ms": 120_000,
                "log_level": 0,
            }
        )

        def noted(good: bool, name: str) -> Callable[[KafkaError | None, Message], None]:
            def on_delivery(error: KafkaError | None, _: Message) -> None:
                if error is None:
                    (self.acknowledged if good else self.refused_by_contract).add(name)

            return on_delivery

        for _ in range(count):
            event_id = str(uuid.UUID(int=self.traffic.getrandbits(128), version=4))
            session = f"session-{self.traffic.randrange(60)}"
            start = self.traffic.randrange(0, 60_000)
            event: dict[str, Any] = {
                "schema_version": 1,
                "event_id": event_id,
                "event_type": self.traffic.choice(["heartbeat", "heartbeat", "seek", "pause"]),
                "event_time": int(time.time() * 1000) - self.traffic.randrange(120_000, 1_800_000),
                "session_id": session,
                "viewer_id": f"viewer-{session}",
                "video_id": f"video-{hash_of(session) % 5}",
                "position_ms": start + 5000,
                "played_from_ms": start,
                "played_to_ms": start + self.traffic.randrange(1, 15_000),
                "playback_rate": self.traffic.choice([1, 1.5]),
                "duration_ms": 90_000,
            }
            good = self.traffic.random() >= malformed
            if not good:
                event["position_ms"] = "a while"
            producer.produce(TOPIC, json.dumps(event).encode(), key=session, on_delivery=noted(good, event_id))
            self.sent += 1
            if self.sent % 100 == 0:
                producer.poll(0)
        assert producer.flush(120) == 0

    @contextlib.contextmanager
    def publishing(self, per_second: int = 400) -> Iterator[None]:
        """Send without pause while the block runs."""
        stop = threading.Event()
        failed: list[BaseException] = []

        def send() -> None:
            try:
                while not stop.is_set():
                    self.publish(per_second // 5)
                    stop.wait(0.2)
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(180)
        assert not failed, failed

    # -- truth

    def settle(self) -> None:
        """Make everything well again and wait until ingest has stored all there is."""
        self.proxy.refusing, self.proxy.swallow = False, 0
        if self.proxy.status or self.proxy.silent:
            self.proxy.status, self.proxy.silent = 0, False
            self.proxy.cut()
        for process in self.ingests:
            if process.runs:
                process.thaw()
        assert self.clickhouse is not None
        self.clickhouse.thaw()
        self.ingests = [process for process in self.ingests if process.runs]
        if not self.ingests:
            self.start_ingest()
        wait_until(self.caught_up, f"ingest to catch up: {self.log()[-1500:]}")

    def caught_up(self) -> bool:
        with contextlib.suppress(ServiceError):
            return not any(place.lag for place in group_lag(self.settings))
        return False

    def reached(self) -> dict[int, int]:
        """The last offset stored, by partition."""
        return dict(self.ask("select partition, max(offset) from raw.playback_events group by partition"))

    def reached_beyond(self, offsets: dict[int, int]) -> bool:
        """Whether something behind these offsets is stored, in each of their partitions."""
        reached = self.reached()
        return all(reached.get(partition, -1) > offset for partition, offset in offsets.items())

    def ends(self) -> dict[int, int]:
        """One past the last offset of the log, by partition."""
        return {place.partition: place.end for place in group_lag(self.settings) if place.topic == TOPIC}

    def log(self) -> str:
        file = self.folder / "ingest.log"
        return file.read_text() if file.exists() else ""

    def in_the_log(self) -> dict[tuple[int, int], bytes]:
        """Every message of the topic by partition and offset, read back from the broker."""
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.kafka_bootstrap_servers,
                "group.id": "oracle",
                "enable.auto.commit": False,
                "log_level": 0,
            }
        )
        found: dict[tuple[int, int], bytes] = {}
        for partition in range(4):
            low, high = consumer.get_watermark_offsets(TopicPartition(TOPIC, partition), timeout=30)
            if high <= low:
                continue
            consumer.assign([TopicPartition(TOPIC, partition, low)])
            deadline = time.monotonic() + 60
            last = low - 1
            while last < high - 1:
                assert time.monotonic() < deadline, "the log cannot be read back"
                for message in consumer.consume(1000, timeout=1.0):
                    if message.error() is None:
                        offset, value = message.offset(), message.value()
                        assert offset is not None and value is not None
                        found[partition, offset] = value
                        last = offset
        consumer.close()
        return found

    def check(self) -> list[dict[str, Any]]:
        """Acknowledged ⊆ stored ⊆ sent, each once without FINAL; rejects are the malformed; live equals the oracle.

        The stored events, for those who build more on them.
        """
        log = self.in_the_log()
        client = connect(self.settings)
        try:
            places = "select partition, offset from raw.{} where topic = 'playback_events'"
            stored = [tuple(row) for row in client.query(places.format("playback_events")).result_rows]
            rejected = [tuple(row) for row in client.query(places.format("rejected_events")).result_rows]
            known = client.query("select toString(event_id) from raw.playback_events").result_rows
            ids = {str(row[0]) for row in known}
            delivered = client.query("select sum(messages) from raw.deliveries").result_rows[0][0]
        finally:
            client.close()
        assert len(stored) == len(set(stored)), f"{len(stored) - len(set(stored))} messages are stored twice"
        assert len(rejected) == len(set(rejected)), "messages are rejected twice"
        assert delivered == len(stored), f"raw.deliveries counts {delivered} messages, {len(stored)} are stored"
        missing = log.keys() - set(stored) - set(rejected)
        assert not missing, f"{len(missing)} messages of the log are nowhere: {sorted(missing)[:5]}"
        assert set(stored) | set(rejected) == log.keys(), "what is stored was never sent"
        events = {place: json.loads(value) for place, value in log.items()}
        malformed = {place for place, event in events.items() if event["position_ms"] == "a while"}
        assert set(rejected) == malformed
        assert self.acknowledged <= ids <= {event["event_id"] for event in events.values()}
        assert {events[place]["event_id"] for place in malformed} >= self.refused_by_contract
        good = [event for place, event in events.items() if place not in malformed]
        live_oracle.assert_live(self.ask, good)
        return good

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        client = connect(self.settings)
        try:
            return [tuple(row) for row in client.query(sql).result_rows]
        finally:
            client.close()


def hash_of(text: str) -> int:
    """The same in every process."""
    return sum(text.encode())


@contextlib.contextmanager
def running(
    folder: Path,
    broker_address: str,
    seed: int,
    *,
    log_id: str = "test-log",
    deduplicate: bool = True,
    clickhouse_folder: Path | None = None,
) -> Iterator[World]:
    """A path over a broker that runs, with ClickHouse started and migrated and no ingest yet."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    settings = load_settings(
        retention_home=folder, clickhouse_port=port, kafka_bootstrap_servers=broker_address, kafka_log_id=log_id
    )
    with Proxy(port) as proxy:
        world = World(
            folder,
            settings,
            proxy,
            random.Random(seed),
            random.Random(f"traffic {seed}"),
            port,
            clickhouse_folder or folder / "clickhouse",
            deduplicate,
        )
        try:
            world.start_clickhouse()
            client = connect(settings)
            migrate(client)
            # A merge takes together what was stored twice, before anybody could count it.
            for table in ("playback_events", "rejected_events"):
                limits = ", ".join(f"max_bytes_to_merge_at_{end}_space_in_pool = 1" for end in ("min", "max"))
                client.command(f"alter table raw.{table} modify setting {limits}")
            client.close()
            yield world
        finally:
            for process in [*world.ingests, *([world.clickhouse] if world.clickhouse else [])]:
                if process.runs:
                    process.thaw()
                    process.kill()
